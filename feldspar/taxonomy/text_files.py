"""Plain files read as text, and why one cannot be."""

from __future__ import annotations

import os
import stat
from pathlib import Path

MAX_DOCUMENT_BYTES = 20_000_000
TEXT_SUFFIXES = (".md", ".markdown", ".txt")
HTML_SUFFIXES = (".html", ".htm")
OFFICE_SUFFIXES = (".pdf", ".docx", ".pptx")
READ_SUFFIXES = TEXT_SUFFIXES + HTML_SUFFIXES + OFFICE_SUFFIXES


class ReadFault(Exception):
    """Why a file cannot be read, in words for its reader."""


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, its links followed, lies in a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def read_text(path: Path, max_bytes: int) -> str:
    """Read a plain UTF-8 file (UTF-16 with its mark). Raises ReadFault."""
    try:
        check_size(path, max_bytes)
        data = path.read_bytes()
    except OSError as error:
        raise ReadFault(error.strerror or str(error)) from error
    is_wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ReadFault(f"line {line} is not UTF-8") from error


def check_size(path: Path, max_bytes: int) -> None:
    """Raises ReadFault for what is no plain file, or is larger; OSError where there is none."""
    status = os.stat(path)
    if not stat.S_ISREG(status.st_mode):
        raise ReadFault("it is not a plain file")
    if status.st_size > max_bytes:
        raise ReadFault(f"it has {status.st_size} bytes; {max_bytes} are read at most")
