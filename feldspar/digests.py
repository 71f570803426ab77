"""Content digests of files, remembered, so that large ones are read once."""

from __future__ import annotations

import contextlib
import hashlib
from pathlib import Path

from feldspar.errors import RunError
from feldspar.files import files_below, write_json
from feldspar.keys import content_key
from feldspar.stored import read_stored

_SHA256_LETTERS = 64


class Digests:
    """Content digests of files, remembered by size and time of change."""

    def __init__(self, cache_path: Path) -> None:
        self.cache_path = cache_path
        self._known: dict[str, tuple[int, int, str]] = {}
        # Damaged or gone: they are found anew.
        with contextlib.suppress(RunError):
            self._known = read_stored(cache_path, dict[str, tuple[int, int, str]])

    def of(self, path: Path) -> str:
        """sha256 of a file, or of the names and contents of a folder's files."""
        if path.is_dir():
            files = files_below(path)
            return content_key([[p.relative_to(path).as_posix(), self.of(p)] for p in files])
        stat = path.stat()
        stamp = (stat.st_size, stat.st_mtime_ns)
        known = self._known.get(str(path))
        if known is None or known[:2] != stamp or len(known[2]) != _SHA256_LETTERS:
            with path.open("rb") as file:
                known = (*stamp, hashlib.file_digest(file, "sha256").hexdigest())
            self._known[str(path)] = known
            if stat.st_size > 1 << 20:
                write_json(self.cache_path, self._known)
        return known[2]
