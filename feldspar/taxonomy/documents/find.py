"""Find and read the documents a leaf names, in a mirror of git repositories or beside the leaf.

A mirror is laid out `OWNER+REPO/COMMIT/FILE`; folder and leaf may each shorten the commit.
"""

from __future__ import annotations

import os
import re
import unicodedata
from collections.abc import Iterable
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from feldspar.files import walk
from feldspar.runs import cache_folder
from feldspar.taxonomy.codes import Severity
from feldspar.taxonomy.documents.addresses import without_credentials
from feldspar.taxonomy.documents.fetching import Fetcher
from feldspar.taxonomy.documents.html_text import text_of_html
from feldspar.taxonomy.documents.office import FETCH_MODELS, DocumentText, text_of_office
from feldspar.taxonomy.documents.pictures import without_pictures
from feldspar.taxonomy.findings import Findings, quoted
from feldspar.taxonomy.qna import DocumentSource
from feldspar.taxonomy.text_files import (
    HTML_SUFFIXES,
    MAX_DOCUMENT_BYTES,
    OFFICE_SUFFIXES,
    READ_SUFFIXES,
    TEXT_SUFFIXES,
    ReadFault,
    is_inside,
    read_text,
)
from feldspar.text import printable

QNA = "qna.yaml"
ATTRIBUTION = "attribution.txt"
NO_DOCUMENTS = (QNA, ATTRIBUTION)
MIN_COMMIT_PREFIX = 7


class Document(NamedTuple):
    """A document's text in Unicode's form NFC, without markup that only a browser needs."""

    name: str
    """`OWNER/REPO@COMMIT/FILE`, or the path below the taxonomy."""
    path: Path
    text: str


class _Place(NamedTuple):
    folder: Path
    prefix: str
    """What a document's name begins with."""
    only: str = ""
    """The one file meant, where a path or a URL names a file."""
    name: str = ""
    """The document's whole name, where it is not `prefix` and file."""


@dataclass(frozen=True, slots=True)
class DocumentFinder:
    """Looks documents up; remembers the folders that it has listed."""

    root: Path
    """The folder that was given as the taxonomy: local paths do not leave it or the taxonomy."""
    mirror: Path | None
    is_needed: bool
    """Whether documents that cannot be looked for are an error, not a warning."""
    fetcher: Fetcher | None = None
    """Gets what is not in the mirror; None: nothing is fetched."""
    _listed: dict[Path, _Listing] = field(default_factory=dict)

    def find(
        self, leaf: Path, taxonomy: Path, sources: Iterable[DocumentSource], findings: Findings
    ) -> tuple[Document, ...]:
        """Read the documents of the leaf folder `leaf`, in the order of their names per source."""
        documents: dict[Path, Document] = {}
        for source in sources:
            place = self._place(leaf, taxonomy, source, findings)
            if place is None:
                continue
            for file in self._matching(place, source, findings):
                document = _read(place, file, source, findings, self.fetcher is not None)
                if document is not None:
                    documents.setdefault(document.path, document)
        return tuple(documents.values())

    def _place(
        self, leaf: Path, taxonomy: Path, source: DocumentSource, findings: Findings
    ) -> _Place | None:
        if source.path:
            return self._local(leaf, taxonomy, source, findings)
        mirrored = self._mirrored(source) if source.repo else None
        if mirrored is not None:
            return mirrored
        if self.fetcher is None:
            self._tell_of_absence(source, findings)
            return None
        try:
            return _fetched(self.fetcher, source)
        except ReadFault as fault:
            message = f"{quoted(_shown(source), 120)} is not fetched: {fault}"
            cure = "mend the address, or put the documents beside the leaf and name them in `path:`"
            findings.add("FT038", message, cure, source.at)
            return None

    def _mirrored(self, source: DocumentSource) -> _Place | None:
        """The mirror's folder of a commit: of several that shorten its name otherwise, the one with
        most of the patterns' files, then the one that is named as the leaf names it."""
        if self.mirror is None:
            return None
        owner, name = repository(source.repo)
        wanted = f"{owner}+{name}".lower()
        repo = next((d for d in _subfolders(self.mirror) if d.lower() == wanted), None)
        commits = _subfolders(self.mirror / repo) if repo is not None else []
        found = [commit for commit in commits if is_same_commit(commit, source.commit)]
        if repo is None or not found:
            return None

        def fitness(commit: str) -> tuple[int, bool, int]:
            files = self._list(Path(self.mirror or "", repo, commit)).files
            patterns = source.patterns or ("**",)
            num_found = sum(any(matches(file, pattern) for file in files) for pattern in patterns)
            return num_found, commit.lower() == source.commit.lower(), len(commit)

        best = max(found, key=fitness) if len(found) > 1 else found[0]
        return _Place(self.mirror / repo / best, f"{owner}/{name}@{source.commit}/")

    def _list(self, folder: Path) -> _Listing:
        if folder not in self._listed:
            self._listed[folder] = _list_files(folder)
        return self._listed[folder]

    def _tell_of_absence(self, source: DocumentSource, findings: Findings) -> None:
        shown = quoted(_shown(source), 120)
        if source.repo and self.mirror is not None:
            message = f"{shown} is not in the mirror {self.mirror}"
            cure = "put it there as OWNER+REPO/COMMIT, or have it fetched: `taxonomy.fetch = true`"
            findings.add("FT032", f"{message} (no folder for it)", cure, source.at)
            return
        cure = (
            "set `taxonomy.fetch = true`, or name a folder that holds them in `taxonomy.mirror`"
            if self.is_needed
            else "fetch them with `--documents`, or give a folder that holds them with `--mirror`"
        )
        severity: Severity | None = "error" if self.is_needed else None
        findings.add("FT033", f"the documents are at {shown}", cure, source.at, severity)

    def _local(
        self, leaf: Path, taxonomy: Path, source: DocumentSource, findings: Findings
    ) -> _Place | None:
        # A name with accents has two spellings in Unicode, and file systems differ in theirs.
        spellings = dict.fromkeys(
            (source.path, *(unicodedata.normalize(form, source.path) for form in ("NFC", "NFD")))
        )
        bases = (leaf, taxonomy, self.root)
        candidates = [base / spelling for base in bases for spelling in spellings]
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
        listing = self._list(place.folder)
        if not source.patterns:
            return self._default(place, listing, source, findings)
        matching: set[str] = set()
        for pattern in source.patterns:
            if PurePosixPath(pattern).is_absolute() or ".." in PurePosixPath(pattern).parts:
                cure = "name files below the folder of documents"
                message = f"pattern {quoted(pattern)} leads out of its folder"
                findings.add("FT035", message, cure, source.at)
                continue
            for escaped in listing.escaping:
                if matches(escaped, pattern):
                    _tell_of_escape(escaped, source, findings)
            found = {file for file in listing.files if matches(file, pattern)}
            if not found:
                message = f"pattern {quoted(pattern)} matches no file in {place.folder}"
                cure = f"there are: {_some(listing.files)}"
                findings.add("FT034", message, cure, source.at)
            matching |= found
        return sorted(matching)

    def _default(
        self, place: _Place, listing: _Listing, source: DocumentSource, findings: Findings
    ) -> list[str]:
        """Without patterns: the Markdown, text and HTML files at the top of the folder."""
        top = [file for file in listing.files if "/" not in file]
        for escaped in listing.escaping:
            if "/" not in escaped and _suffix(escaped) in TEXT_SUFFIXES + HTML_SUFFIXES:
                _tell_of_escape(escaped, source, findings)
        found = [file for file in top if _suffix(file) in TEXT_SUFFIXES + HTML_SUFFIXES]
        office = [file for file in top if _suffix(file) in OFFICE_SUFFIXES]
        if not found:
            message = f"no Markdown, text or HTML file in {place.folder}"
            findings.add("FT034", message, "add one, or name others in `patterns:`", source.at)
        if office:
            kinds = ", ".join(f'"*{kind}"' for kind in sorted({Path(f).suffix for f in office}))
            message = (
                f"{_some(tuple(office))} left out: without `patterns:` Markdown, text and HTML"
            )
            cure = f"name them: `patterns: [{kinds}]` (read with docling), or save them as Markdown"
            findings.add("FT036", f"{message} are read", cure, source.at)
        return found


def _tell_of_escape(file: str, source: DocumentSource, findings: Findings) -> None:
    message = f"document {quoted(file, 120)} is a link out of its folder"
    findings.add("FT035", message, "put a copy in its place", source.at)


def _suffix(file: str) -> str:
    return PurePosixPath(file).suffix.lower()


def _fetched(fetcher: Fetcher, source: DocumentSource) -> _Place:
    if source.url:
        file = fetcher.page(source.url)
        return _Place(file.parent, "", file.name, _shown(source))
    owner, name = repository(source.repo)
    folder = fetcher.repository(source.repo, source.commit)
    return _Place(folder, f"{owner}/{name}@{source.commit}/")


def _shown(source: DocumentSource) -> str:
    """A source's name for people, without what may be secret in it."""
    if source.url:
        return without_credentials(source.url.partition("?")[0].partition("#")[0])
    owner, name = repository(source.repo)
    return f"{owner}/{name}@{source.commit}"


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
    """Whether a relative path fits a glob: `*` stays within a folder, `**` crosses folders.

    Upper and lower case are one, as are the two spellings of an accent; a part of the pattern that
    is the name of a file or folder means that one, `ferry[1].md` for instance.
    """
    parts = [_plain(part) for part in PurePosixPath(file).parts]
    reached = {0}
    for part in map(_plain, PurePosixPath(pattern).parts):
        if part == "**":
            reached = set(range(min(reached, default=len(parts) + 1), len(parts) + 1))
        else:
            reached = {
                i + 1
                for i in reached
                if i < len(parts) and (parts[i] == part or fnmatchcase(parts[i], part))
            }
    return len(parts) in reached


def _plain(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


class _Listing(NamedTuple):
    files: tuple[str, ...]
    escaping: tuple[str, ...]
    """Links that lead out of the folder."""


def _list_files(folder: Path) -> _Listing:
    files: list[str] = []
    escaping: list[str] = []
    for place, subfolders, names in walk(folder):
        subfolders[:] = sorted(d for d in subfolders if not d.startswith("."))
        linked = [path for name in subfolders if (path := Path(place, name)).is_symlink()]
        escaping += [
            path.relative_to(folder).as_posix() for path in linked if not is_inside(path, folder)
        ]
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


def _read(
    place: _Place, file: str, source: DocumentSource, findings: Findings, may_fetch: bool
) -> Document | None:
    path = place.folder / file
    shown = quoted(place.name or file, 120)
    try:
        found = _text(path, may_fetch)
        text, num_pictures = without_pictures(found.text)
    except (ReadFault, OSError) as fault:
        message = f"document {shown} is left out: {fault}"
        cure = "convert it to Markdown, plain text or HTML in UTF-8, or take it from the patterns"
        findings.add("FT036", message, cure, source.at)
        return None
    if num_pictures:
        message = f"document {shown} holds {num_pictures} pictures as text; they are left out"
        findings.add("FT039", message, "say in words what a reader must know of them", source.at)
    if found.why_plain:
        message = (
            f"document {shown} is read line by line, its headings by their size, tables as lines, "
            "columns as the file has them, without page numbers and what repeats at the edges of "
            f"pages: {found.why_plain}"
        )
        cure = f"look at its chunks; to have it read by layout: {FETCH_MODELS}; remove {found.kept}"
        findings.add("FT049", message, cure, source.at)
    name = printable(place.name or place.prefix + file)
    return Document(name, path, unicodedata.normalize("NFC", text))


def _text(path: Path, may_fetch: bool) -> DocumentText:
    suffix = _suffix(path.name)
    if suffix not in READ_SUFFIXES:
        raise ReadFault(f"`{suffix}` is not read")
    if suffix in OFFICE_SUFFIXES:
        return text_of_office(path, cache_folder(), may_fetch=may_fetch)
    text = read_text(path, MAX_DOCUMENT_BYTES)
    if "\0" in text:
        raise ReadFault("it is not text")
    return DocumentText(text_of_html(text) if suffix in HTML_SUFFIXES else text, path)


def _some(files: tuple[str, ...], limit: int = 5) -> str:
    shown = ", ".join(quoted(file) for file in files[:limit]) or "no files"
    return shown + (f" and {len(files) - limit} more" if len(files) > limit else "")
