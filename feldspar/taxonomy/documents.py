"""Find and read the documents a leaf names, in a mirror of git repositories or beside the leaf.

A mirror is laid out `OWNER+REPO/COMMIT/FILE`; folder and leaf may each shorten the commit.
"""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from feldspar.taxonomy.findings import Findings, printable, quoted
from feldspar.taxonomy.html_text import text_of_html
from feldspar.taxonomy.qna import DocumentSource

QNA = "qna.yaml"
ATTRIBUTION = "attribution.txt"
NO_DOCUMENTS = (QNA, ATTRIBUTION)
MAX_DOCUMENT_BYTES = 20_000_000
MIN_COMMIT_PREFIX = 7
TEXT_SUFFIXES = (".md", ".markdown", ".txt")
HTML_SUFFIXES = (".html", ".htm")
DEFAULT_PATTERNS = tuple(f"*{suffix}" for suffix in TEXT_SUFFIXES + HTML_SUFFIXES)


class Document(NamedTuple):
    """A document's text, without markup that only a browser needs."""

    name: str
    """`OWNER/REPO@COMMIT/FILE`, or the path below the taxonomy."""
    path: Path
    text: str


class ReadFault(Exception):
    """Why a file cannot be read, in words for its reader."""


class _Place(NamedTuple):
    folder: Path
    prefix: str
    """What a document's name begins with."""
    only: str = ""
    """The one file meant, where a path names a file."""


@dataclass(frozen=True, slots=True)
class DocumentFinder:
    """Looks documents up; remembers the folders that it has listed."""

    root: Path
    """The folder that was given as the taxonomy: local paths do not leave it or the taxonomy."""
    mirror: Path | None
    is_needed: bool
    """Whether documents that cannot be looked for are an error, not a warning."""
    _listed: dict[Path, _Listing] = field(default_factory=dict)

    def find(
        self, leaf: Path, taxonomy: Path, sources: Iterable[DocumentSource], findings: Findings
    ) -> tuple[Document, ...]:
        """Read the documents of the leaf folder `leaf`, in the order of their names per source."""
        documents: dict[Path, Document] = {}
        for source in sources:
            place = (
                self._local(leaf, taxonomy, source, findings)
                if source.path
                else self._mirrored(source, findings)
            )
            if place is None:
                continue
            for file in self._matching(place, source, findings):
                document = _read(place, file, source, findings)
                if document is not None:
                    documents.setdefault(document.path, document)
        return tuple(documents.values())

    def _mirrored(self, source: DocumentSource, findings: Findings) -> _Place | None:
        owner, name = repository(source.repo)
        wanted = f"{owner}+{name}"
        if self.mirror is None:
            findings.add(
                "FT033",
                f"the documents are in {quoted(f'{owner}/{name}')} and no mirror is given",
                "clone it and give the mirror's folder: `taxonomy.mirror` in the recipe, "
                "or `--mirror`",
                source.at,
                severity="error" if self.is_needed else None,
            )
            return None
        repo = next((d for d in _subfolders(self.mirror) if d.lower() == wanted.lower()), None)
        commits = _subfolders(self.mirror / repo) if repo is not None else []
        found = [commit for commit in commits if is_same_commit(commit, source.commit)]
        if repo is None or not found:
            there = f"; it holds {', '.join(commits[:3])}" if commits else ""
            findings.add(
                "FT032",
                f"no folder {quoted(f'{wanted}/{source.commit}', 120)} in the mirror "
                f"{self.mirror}{there}",
                "clone the repository there at that commit, or set `taxonomy.mirror` (`--mirror`) "
                "to the folder that holds OWNER+REPO/COMMIT",
                source.at,
            )
            return None
        return _Place(self.mirror / repo / max(found, key=len), f"{owner}/{name}@{source.commit}/")

    def _local(
        self, leaf: Path, taxonomy: Path, source: DocumentSource, findings: Findings
    ) -> _Place | None:
        candidates = [base / source.path for base in (leaf, taxonomy, self.root)]
        there = [path for path in candidates if "\0" not in source.path and os.path.exists(path)]
        inside = [p for p in there if is_inside(p, taxonomy) or is_inside(p, self.root)]
        if not inside:
            code, message = "FT032", f"no file or folder {quoted(source.path, 120)}"
            if there or PurePosixPath(source.path).is_absolute():
                code, message = (
                    "FT035",
                    f"path {quoted(source.path, 120)} leads out of the taxonomy",
                )
            cure = f"put the documents below {leaf} or {taxonomy} and name them from there"
            findings.add(code, message, cure, source.at)
            return None
        path = inside[0]
        folder = path if path.is_dir() else path.parent
        shown = os.path.relpath(os.path.realpath(folder), os.path.realpath(taxonomy))
        prefix = "" if shown == "." else f"{PurePosixPath(shown)}/"
        return _Place(folder, prefix, "" if path.is_dir() else path.name)

    def _matching(self, place: _Place, source: DocumentSource, findings: Findings) -> list[str]:
        if place.only:
            if source.patterns:
                message = "`patterns` counts where `path` is a folder, ignored"
                findings.add("FT008", message, "remove it, or name the folder", source.at)
            return [place.only]
        if place.folder not in self._listed:
            self._listed[place.folder] = _list_files(place.folder)
        listing = self._listed[place.folder]
        matching: set[str] = set()
        patterns = source.patterns or DEFAULT_PATTERNS
        for pattern in patterns:
            if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
                cure = "name files below the folder of documents"
                message = f"pattern {quoted(pattern)} leads out of its folder"
                findings.add("FT035", message, cure, source.at)
                continue
            for escaped in listing.escaping:
                if matches(escaped, pattern):
                    message = f"document {quoted(escaped, 120)} is a link out of its folder"
                    findings.add("FT035", message, "put a copy in its place", source.at)
            found = {file for file in listing.files if matches(file, pattern)}
            if not found and source.patterns:
                message = f"pattern {quoted(pattern)} matches no file in {place.folder}"
                cure = f"there are: {_some(listing.files)}"
                findings.add("FT034", message, cure, source.at)
            matching |= found
        if not matching and not source.patterns:
            message = f"no Markdown, text or HTML file in {place.folder}"
            findings.add("FT034", message, "add one, or name others in `patterns:`", source.at)
        return sorted(matching)


def repository(url: str) -> tuple[str, str]:
    """Owner and name of a git repository: ("owner", "name") of `https://host/owner/name.git`."""
    below_host = re.sub(r"^(\w+://[^/]*|[^/@]*@[^:/]*:)", "", url.strip())
    parts = [part for part in below_host.split("/") if part]
    owner, name = ["", "", *parts][-2:]
    return owner, name.removesuffix(".git")


def is_same_commit(one: str, other: str) -> bool:
    """Whether two names of a commit agree as far as the shorter goes, at least seven characters."""
    one, other = one.lower(), other.lower()
    length = min(len(one), len(other))
    return one == other or (length >= MIN_COMMIT_PREFIX and one[:length] == other[:length])


def matches(file: str, pattern: str) -> bool:
    """Whether a relative path fits a glob: `*` stays within a folder, `**` crosses folders."""
    parts = PurePosixPath(file).parts
    reached = {0}
    for part in PurePosixPath(pattern).parts:
        if part == "**":
            reached = set(range(min(reached, default=len(parts) + 1), len(parts) + 1))
        else:
            reached = {i + 1 for i in reached if i < len(parts) and fnmatchcase(parts[i], part)}
    return len(parts) in reached


def is_inside(path: Path, folder: Path) -> bool:
    """Whether a path, its links followed, lies in a folder."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def read_text(path: Path, max_bytes: int) -> str:
    """Read a plain UTF-8 file (UTF-16 with its mark). Raises ReadFault."""
    try:
        status = os.stat(path)
        if not stat.S_ISREG(status.st_mode):
            raise ReadFault("it is not a plain file")
        if status.st_size > max_bytes:
            raise ReadFault(f"it has {status.st_size} bytes; {max_bytes} are read at most")
        data = path.read_bytes()
    except OSError as error:
        raise ReadFault(error.strerror or str(error)) from error
    is_wide = data.startswith((b"\xff\xfe", b"\xfe\xff"))
    try:
        return data.decode("utf-16" if is_wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data[: error.start].count(b"\n") + 1
        raise ReadFault(f"line {line} is not UTF-8") from error


class _Listing(NamedTuple):
    files: tuple[str, ...]
    escaping: tuple[str, ...]
    """Links that lead out of the folder."""


def _list_files(folder: Path) -> _Listing:
    files: list[str] = []
    escaping: list[str] = []
    for place, subfolders, names in os.walk(folder):
        subfolders[:] = sorted(d for d in subfolders if not d.startswith("."))
        for name in names:
            path = Path(place, name)
            leads_out = path.is_symlink() and not is_inside(path, folder)
            if name not in NO_DOCUMENTS:
                (escaping if leads_out else files).append(path.relative_to(folder).as_posix())
    return _Listing(tuple(sorted(files)), tuple(sorted(escaping)))


def _subfolders(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []


def _read(place: _Place, file: str, source: DocumentSource, findings: Findings) -> Document | None:
    path = place.folder / file
    suffix = path.suffix.lower()
    try:
        if suffix not in TEXT_SUFFIXES + HTML_SUFFIXES:
            raise ReadFault(f"`{suffix}` is not read")
        text = read_text(path, MAX_DOCUMENT_BYTES)
        if "\0" in text:
            raise ReadFault("it is not text")
    except ReadFault as fault:
        message = f"document {quoted(file, 120)} is left out: {fault}"
        cure = "convert it to Markdown, plain text or HTML in UTF-8, or take it from the patterns"
        findings.add("FT036", message, cure, source.at)
        return None
    name = printable(place.prefix + file)
    return Document(name, path, text_of_html(text) if suffix in HTML_SUFFIXES else text)


def _some(files: tuple[str, ...], limit: int = 5) -> str:
    shown = ", ".join(quoted(file) for file in files[:limit]) or "no files"
    return shown + (f" and {len(files) - limit} more" if len(files) > limit else "")
