"""Reading what an earlier run wrote: damage is one line with the file and the cure.

A file that was cut off, emptied, changed or deleted is never read as a shorter or older result.

    with reading(path):
        rows = json.loads(path.read_text(encoding="utf-8"))
    marks = read_stored(path, dict[str, str])
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from feldspar.errors import RunError
from feldspar.files import is_part, is_utf8

T = TypeVar("T")
_ADAPTERS: dict[type[Any], TypeAdapter[Any]] = {}

MALFORMED: tuple[type[Exception], ...] = (
    ValueError,
    TypeError,
    AttributeError,
    ArithmeticError,
    LookupError,
    RecursionError,
    EOFError,
)
"""What reading raises where a file holds something other than what was written."""
HASHED_BYTES = 64 << 20
"""Larger files are known by their size: checkpoints have a digest of their own."""


class FileMark(NamedTuple):
    """What a finished step's file is known by."""

    size: int
    """In bytes."""
    sha256: str
    """Empty where the file is larger than `HASHED_BYTES`."""


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Done:
    """What a finished step wrote down last: its done.json."""

    key: str
    record: str | None
    """The type of its rows; None where it gave none."""
    num_rows: int
    seconds: float
    run_path: str
    """Where the run was then."""
    files: dict[str, FileMark] = dataclasses.field(default_factory=dict)
    """What it wrote, by paths within its folder."""
    checksum: str = ""
    """Of all the rest; empty in a run of an earlier version."""

    @property
    def is_whole(self) -> bool:
        """Whether nothing was changed since."""
        return not self.checksum or self == self.sealed()

    def sealed(self) -> Done:
        """The same with its checksum."""
        rest = dataclasses.asdict(dataclasses.replace(self, checksum=""))
        text = json.dumps(rest, sort_keys=True)
        return dataclasses.replace(self, checksum=hashlib.sha256(text.encode()).hexdigest())


def check_name(path: Path) -> None:
    """Raises RunError where a run lies below a name that is no text: its files say where it is."""
    if not is_utf8(path.resolve()):
        raise RunError(
            f"{path.resolve()}: a name in it is not UTF-8, so no file could say where the run is; "
            "rename that folder, or keep the run elsewhere with --runs"
        )


def damaged(path: Path, why: str, cure: str = "") -> RunError:
    """The error for a damaged file, with what to do: by where it lies, unless a `cure` is given."""
    return RunError(f"{path}: damaged ({why}); {cure or _cure(path)}")


@contextmanager
def reading(
    path: Path, cure: str = "", *, also: tuple[type[Exception], ...] = ()
) -> Iterator[None]:
    """Read `path` in the block. Raises RunError where it is gone, or is not what was written.

    `also`: what the reader's own format raises besides.
    """
    malformed = (*MALFORMED, *also)
    try:
        yield
    except FileNotFoundError as error:
        raise damaged(path, "it is gone", cure) from error
    except (IsADirectoryError, NotADirectoryError) as error:
        raise damaged(path, "it is no file", cure) from error
    except malformed as error:
        raise damaged(path, what_is_wrong(error), cure) from error


def what_is_wrong(error: Exception) -> str:
    """What a reader found, on one line: pydantic's own text begins with a count of its errors."""
    if isinstance(error, ValidationError):
        first = error.errors(include_url=False)[0]
        place = ".".join(map(str, first["loc"]))
        message = first["msg"].removeprefix("Value error, ")
        return f"{place}: {message}" if place else message
    return (str(error).splitlines() or [""])[0] or type(error).__name__


def adapter_of(kind: type[T]) -> TypeAdapter[T]:
    """Made once: it takes longer than reading a small file does."""
    adapter = _ADAPTERS.get(kind)
    if adapter is None:
        adapter = _ADAPTERS[kind] = TypeAdapter(kind)
    return adapter


def read_stored(path: Path, kind: type[T], cure: str = "") -> T:
    """A JSON file as the type that was written. Raises RunError where it is damaged."""
    with reading(path, cure):
        return adapter_of(kind).validate_json(path.read_bytes())


def read_whole_lines(path: Path, record: type[T]) -> list[T]:
    """Records of a JSON-lines file; none where there is no file.

    A last line without its end was being written when its writer died, and is left out. Raises
    RunError where any other line is damaged.
    """
    if not path.exists():
        return []
    adapter = adapter_of(record)
    with reading(path):
        lines = path.read_bytes().split(b"\n")[:-1]
        return [adapter.validate_json(line) for line in lines]


def mark_files(folder: Path, skipped: tuple[str, ...] = ()) -> dict[str, FileMark]:
    """The files of a folder by their paths within it, but for what is being written."""
    marks = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        name = path.relative_to(folder)
        if path.name not in skipped and not any(map(is_part, name.parts)):
            marks[name.as_posix()] = _mark(path)
    return marks


def check_file(folder: Path, name: str, marks: Mapping[str, FileMark]) -> None:
    """Raises RunError where a marked file is not as it was marked; one without a mark passes."""
    mark, path = marks.get(name), folder / name
    if mark is None:
        return
    if not path.is_file():
        raise damaged(path, "it is gone")
    now = _mark(path, is_hashed=bool(mark.sha256))
    if now.size != mark.size:
        raise damaged(path, f"it has {now.size} bytes, not {mark.size}")
    if now != mark:
        raise damaged(path, "its content was changed")


def _mark(path: Path, *, is_hashed: bool | None = None) -> FileMark:
    size = path.stat().st_size
    if not (size <= HASHED_BYTES if is_hashed is None else is_hashed):
        return FileMark(size, "")
    with path.open("rb") as file:
        return FileMark(size, hashlib.file_digest(file, "sha256").hexdigest())


def _cure(path: Path) -> str:
    """Delete the step that the file is of, or else the file: what is there still is found again."""
    parents = [path, *path.parents]
    for step, above in zip(parents, parents[2:], strict=False):
        if above.name == "steps":
            return f"delete {step} and run again: everything else is found again"
    return "delete it and run again: it is made anew"
