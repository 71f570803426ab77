"""Documents from elsewhere, each fetched once and kept in a folder of the user's."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from feldspar.files import first_folder
from feldspar.runs import cache_folder
from feldspar.taxonomy.documents.fetch_git import fetch_commit, web_url
from feldspar.taxonomy.documents.fetch_url import fetch_url
from feldspar.taxonomy.text_files import ReadFault

LAYOUT = "documents-1"
"""Changed when a folder of the cache comes to hold other files than before."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fetcher:
    """Fetches documents, and remembers what it could not get.

    `allows_private` admits servers at private addresses, `allows_file` repositories by `file://`:
    both for a program that chose the leaves itself.
    """

    cache: Path = field(default_factory=cache_folder)
    allows_private: bool = False
    allows_file: bool = False
    _faults: dict[Path, ReadFault] = field(default_factory=dict)

    def repository(self, repo: str, commit: str) -> Path:
        """The folder that holds the documents of a repository at a commit. Raises ReadFault."""
        url = web_url(repo, allows_file=self.allows_file)
        parts = urlsplit(url)
        names = [part for part in parts.path.removesuffix(".git").split("/") if part]
        folder = self.cache / LAYOUT / "git" / quote(parts.netloc or "-", safe="")
        folder = folder / quote("+".join(names) or "-", safe="+") / quote(commit.lower(), safe="")

        def fill(place: Path) -> None:
            private, file = self.allows_private, self.allows_file
            fetch_commit(url, commit, place, allows_private=private, allows_file=file)

        return self._filled(folder, fill)

    def page(self, url: str) -> Path:
        """The file that holds the document at a URL. Raises ReadFault."""
        digest = hashlib.sha256(url.encode("utf-8", "surrogatepass")).hexdigest()[:32]

        def fill(place: Path) -> None:
            fetched = fetch_url(url, allows_private=self.allows_private)
            (place / f"document{fetched.suffix}").write_bytes(fetched.data)

        folder = self._filled(self.cache / LAYOUT / "url" / digest, fill)
        return next(folder.iterdir())

    def _filled(self, folder: Path, fill: Callable[[Path], None]) -> Path:
        """The folder, filled if it is not there; it is filled beside its place: whole or absent."""
        if folder.is_dir():
            return folder
        if folder in self._faults:
            raise self._faults[folder]
        try:
            with first_folder(folder) as place:
                fill(place)
        except ReadFault as fault:
            self._faults[folder] = fault
            raise
        except OSError as error:
            raise ReadFault(f"the cache {self.cache} cannot be written: {error}") from error
        return folder
