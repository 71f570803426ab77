"""What a GGUF file says of itself: its metadata, and where each tensor lies. No torch.

Format: docs/gguf.md of ggml, versions 2 and 3, little-endian.
"""

from __future__ import annotations

import math
import mmap
import struct
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from feldspar.errors import TrainingError

SUFFIX = ".gguf"
_MAGIC = b"GGUF"
_VERSIONS = (2, 3)
_STRING, _ARRAY = 8, 9
_FORMATS = {
    **{0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", 7: "<?"},
    **{10: "<Q", 11: "<q", 12: "<d"},
}
"""struct formats of the metadata's numbers, by their type."""
_ALIGNMENT = 32
_MOST_DIMENSIONS = 4

MetaValue = str | int | float | bool | list[str] | list[int] | list[float] | list[bool]


class TensorKind(NamedTuple):
    """How values are stored: in blocks of so many values and bytes."""

    name: str
    block_values: int
    block_bytes: int

    @property
    def bits(self) -> float:
        """Of a value, its share of the block's scales with it."""
        return 8 * self.block_bytes / self.block_values

    @property
    def is_quantised(self) -> bool:
        return self.block_values > 1


_KINDS = {
    **{0: TensorKind("F32", 1, 4), 1: TensorKind("F16", 1, 2), 30: TensorKind("BF16", 1, 2)},
    **{2: TensorKind("Q4_0", 32, 18), 3: TensorKind("Q4_1", 32, 20)},
    **{6: TensorKind("Q5_0", 32, 22), 7: TensorKind("Q5_1", 32, 24)},
    **{8: TensorKind("Q8_0", 32, 34), 10: TensorKind("Q2_K", 256, 84)},
    **{11: TensorKind("Q3_K", 256, 110), 12: TensorKind("Q4_K", 256, 144)},
    **{13: TensorKind("Q5_K", 256, 176), 14: TensorKind("Q6_K", 256, 210)},
    **{16: TensorKind("IQ2_XXS", 256, 66), 17: TensorKind("IQ2_XS", 256, 74)},
    **{18: TensorKind("IQ3_XXS", 256, 98), 19: TensorKind("IQ1_S", 256, 50)},
    **{20: TensorKind("IQ4_NL", 32, 18), 21: TensorKind("IQ3_S", 256, 110)},
    **{22: TensorKind("IQ2_S", 256, 82), 23: TensorKind("IQ4_XS", 256, 136)},
    29: TensorKind("IQ1_M", 256, 56),
}
"""By the numbers of ggml.h's `enum ggml_type`."""


class TensorPlace(NamedTuple):
    """A tensor's bytes in the file."""

    name: str
    shape: tuple[int, ...]
    """Rows first, as torch has it."""
    number: int
    """Of its kind, as ggml counts them."""
    offset: int
    """From the start of the file."""

    @property
    def kind(self) -> TensorKind:
        return _KINDS[self.number]

    @property
    def num_values(self) -> int:
        return math.prod(self.shape)

    @property
    def num_bytes(self) -> int:
        return self.num_values // self.kind.block_values * self.kind.block_bytes


class GgufHeader(NamedTuple):
    """All of a file but the values of its tensors."""

    path: Path
    metadata: dict[str, MetaValue]
    tensors: tuple[TensorPlace, ...]

    @property
    def architecture(self) -> str:
        return str(self.metadata.get("general.architecture"))

    @property
    def num_values(self) -> int:
        return sum(tensor.num_values for tensor in self.tensors)

    @property
    def is_quantised(self) -> bool:
        return any(tensor.kind.is_quantised for tensor in self.tensors)

    def what_was_lost(self) -> str:
        """Which tensors hold how many bits a value: `210 tensors at 5 bits (Q4_1), ...`."""
        num_tensors: Counter[TensorKind] = Counter(tensor.kind for tensor in self.tensors)
        quantised = sorted(kind for kind in num_tensors if kind.is_quantised)
        parts = [f"{num_tensors[k]} tensors at {k.bits:g} bits ({k.name})" for k in quantised]
        whole = sum(n for kind, n in num_tensors.items() if not kind.is_quantised)
        if not parts:
            return f"{whole} tensors, none quantised"
        return ", ".join([*parts, f"{whole} not quantised"])

    def text(self, key: str) -> str | None:
        value = self.metadata.get(key)
        return value if isinstance(value, str) else None

    def number(self, key: str) -> int | None:
        """A whole number of the metadata."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else None

    def texts(self, key: str) -> list[str]:
        """A list of texts; empty where there is none."""
        value = self.metadata.get(key)
        return [v for v in value if isinstance(v, str)] if isinstance(value, list) else []


def read_header(path: Path) -> GgufHeader:
    """Read a file's metadata and its list of tensors; values are not read.

    Raises TrainingError where it is no such file, or not all of one.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise TrainingError(f"{path}: not a GGUF file; fetch it again")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                return _HeaderReader(path, content).header()
    except OSError as error:
        raise TrainingError(f"{path}: cannot be read: {error.strerror or error}") from error
    except (struct.error, UnicodeDecodeError, OverflowError, MemoryError) as error:
        raise TrainingError(f"{path}: its header is damaged ({error}); fetch it again") from error


class _HeaderReader:
    """Goes through a file from its start."""

    def __init__(self, path: Path, content: mmap.mmap) -> None:
        self._path, self._content, self._at = path, content, len(_MAGIC)

    def header(self) -> GgufHeader:
        version, num_tensors, num_values = self._numbers("<IQQ")
        if version not in _VERSIONS:
            raise TrainingError(
                f"{self._path}: version {version} of GGUF; versions 2 and 3 can be read"
            )
        metadata: dict[str, MetaValue] = {}
        for _ in range(num_values):
            key = self._string()
            metadata[key] = self._value(self._numbers("<I")[0])
        listed = [self._tensor() for _ in range(num_tensors)]
        alignment = metadata.get("general.alignment", _ALIGNMENT)
        if not isinstance(alignment, int) or alignment < 1:
            raise struct.error(f"an alignment of {alignment!r}")
        start = -(-self._at // alignment) * alignment
        tensors = tuple(t._replace(offset=start + t.offset) for t in listed)
        end = max((t.offset + t.num_bytes for t in tensors), default=start)
        if end > len(self._content):
            raise TrainingError(
                f"{self._path}: cut off: {len(self._content):,} bytes of {end:,} are there; fetch "
                "it again"
            )
        return GgufHeader(self._path, metadata, tensors)

    def _tensor(self) -> TensorPlace:
        name = self._string()
        num_dimensions = self._numbers("<I")[0]
        if num_dimensions > _MOST_DIMENSIONS:
            raise struct.error(f"{name} has {num_dimensions} dimensions")
        shape = self._numbers(f"<{num_dimensions}Q")
        number, offset = self._numbers("<IQ")
        if number not in _KINDS:
            raise TrainingError(
                f"{self._path}: {name} is stored in a way that is not known (ggml type {number}); "
                "take a file in another quantisation, such as Q8_0"
            )
        return TensorPlace(name, tuple(reversed(shape)), number, offset)

    def _value(self, kind: int) -> MetaValue:
        if kind == _STRING:
            return self._string()
        if kind == _ARRAY:
            of_kind, length = self._numbers("<IQ")
            if of_kind == _STRING:
                return [self._string() for _ in range(length)]
            number = self._format(of_kind)
            return list(self._numbers(f"<{length}{number[1]}"))
        value: MetaValue = self._numbers(self._format(kind))[0]
        return value

    def _format(self, kind: int) -> str:
        if kind not in _FORMATS:
            raise struct.error(f"a value of type {kind}")
        return _FORMATS[kind]

    def _numbers(self, form: str) -> tuple[int, ...]:
        size = struct.calcsize(form)
        found = struct.unpack_from(form, self._content, self._at)
        self._at += size
        return found

    def _string(self) -> str:
        length = self._numbers("<Q")[0]
        text = self._content[self._at : self._at + length]
        if len(text) < length:
            raise struct.error("a text goes past the end")
        self._at += length
        return text.decode("utf-8")
