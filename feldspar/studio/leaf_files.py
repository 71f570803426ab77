"""The leaves and documents of a project's taxonomies: found by name, read, and written whole."""

from __future__ import annotations

import base64
import binascii
import difflib
import hashlib
import importlib.util
import os
import re
import unicodedata
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from feldspar.config import TaxonomyConfig, read_recipe
from feldspar.errors import FeldsparError, TaxonomyError
from feldspar.files import write_bytes_whole, write_text_whole
from feldspar.records import Chunk
from feldspar.studio.project import Project
from feldspar.taxonomy import cover, cut_documents, find_leaves, inspect_text
from feldspar.taxonomy.documents.find import ATTRIBUTION, QNA, Document
from feldspar.taxonomy.editing import (
    FieldPlace,
    LeafForm,
    edited,
    empty_leaf,
    field_places,
    read_form,
)
from feldspar.taxonomy.findings import Finding
from feldspar.taxonomy.nodes import MAX_FILE_BYTES
from feldspar.taxonomy.places import BRANCH_FOLDERS, Place
from feldspar.taxonomy.text_files import (
    OFFICE_SUFFIXES,
    READ_SUFFIXES,
    ReadFault,
    is_inside,
    read_text,
)
from feldspar.tokens.count import TokenCounter

DEFAULT_TAXONOMY = "taxonomy"
DOCUMENTS = "documents"
"""Folder of a new leaf that dropped documents go to."""
MAX_UPLOAD_BYTES = 10_000_000
_OF_ATTRIBUTION = ("FT045", "FT046")
"""Findings on the licence."""
MAX_NAME_BYTES = 200
"""Of a folder or a document; file systems take 255, and one that is written has a longer name."""
_NAME = re.compile(r"(?!\.)[^/\\\x00-\x1f\x7f-\x9f]+")


class LeafPlace(NamedTuple):
    """A leaf of a taxonomy, there or to come."""

    taxonomy: str
    """Within the project."""
    path: str
    root: Path
    file: Path

    @property
    def attribution(self) -> Path:
        return self.file.with_name(ATTRIBUTION)

    @property
    def is_knowledge(self) -> bool:
        return self.path.split("/")[0] == "knowledge"


class ListedLeaves(NamedTuple):
    """A taxonomy and the paths of its leaves."""

    taxonomy: str
    paths: tuple[str, ...]


class FieldFinding(NamedTuple):
    """A finding, and the field of the form that it is about; empty for the whole leaf."""

    field: str
    finding: Finding


class ShownPassage(NamedTuple):
    """A passage as the teacher is shown it, and whether a seed stands on it."""

    chunk: Chunk
    is_covered: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckedLeaf:
    """What a form would make of a leaf."""

    text: str
    findings: tuple[FieldFinding, ...]
    diff: str
    documents: tuple[Document, ...]
    passages: tuple[ShownPassage, ...]
    share_covered: float
    """Part of the documents' words that is in passages."""

    @property
    def num_errors(self) -> int:
        return sum(f.finding.severity == "error" for f in self.findings)


class LeafFiles:
    """The taxonomies of a project: those that its recipes name, and `taxonomy/`."""

    def __init__(self, project: Project) -> None:
        self._project = project

    def taxonomies(self) -> list[str]:
        """By their paths within the project; what lies elsewhere cannot be edited."""
        found = {DEFAULT_TAXONOMY: None}
        for recipe in self._project.recipes():
            if not recipe.fault and (path := self._named_by(recipe.path)):
                found[path] = None
        return list(found)

    def leaves(self) -> list[ListedLeaves]:
        """Those that are there, however they are spelled and however deep they lie."""
        return [
            ListedLeaves(name, tuple(place.path for place in self._places(name)))
            for name in self.taxonomies()
        ]

    def place(self, taxonomy: str, path: str) -> LeafPlace:
        """Raises TaxonomyError where there is no such taxonomy, or where no leaf may lie."""
        if taxonomy not in self.taxonomies():
            raise TaxonomyError(f"no taxonomy {taxonomy!r} in this project")
        root, path = self._project.folder / taxonomy, path.strip("/")
        parts = path.split("/")
        # A leaf that is there keeps its name; all folders are gone through only where it is not.
        is_there = os.path.isfile(root.joinpath(*parts, QNA)) and all(parts)
        if not is_there or any(part.startswith(".") for part in parts):
            for known in self._places(taxonomy):
                if known.path == path:
                    return LeafPlace(taxonomy, path, known.taxonomy, known.file)
            parts = [_new_name(part.strip(), "a folder") for part in parts]
        if parts[0] not in BRANCH_FOLDERS or len(parts) < 2:
            below = ", ".join(BRANCH_FOLDERS)
            raise TaxonomyError(f"a leaf lies below one of {below}: knowledge/town/bakery")
        file = root.joinpath(*parts, QNA)
        if not is_inside(file, root):
            raise TaxonomyError(f"{path} leads out of the taxonomy")
        return LeafPlace(taxonomy, "/".join(parts), root, file)

    def add_document(self, place: LeafPlace, name: str, content: str) -> Path:
        """Write a document, base64 in `content`, into the leaf's folder.

        Raises TaxonomyError where it cannot be read later, is too large, or would replace another.
        """
        name = _new_name(name, "a document")
        suffix = Path(name).suffix.lower()
        if suffix not in READ_SUFFIXES:
            raise TaxonomyError(f"{name}: only {', '.join(READ_SUFFIXES)} are read")
        if suffix in OFFICE_SUFFIXES and importlib.util.find_spec("docling") is None:
            raise TaxonomyError(
                f"{name}: {suffix} needs docling: pip install 'feldspar[documents]'"
            )
        try:
            data = base64.b64decode(content, validate=True)
        except (binascii.Error, ValueError) as error:
            raise TaxonomyError(f"{name}: it did not arrive whole; drop it again") from error
        if len(data) > MAX_UPLOAD_BYTES:
            raise TaxonomyError(f"{name}: larger than {MAX_UPLOAD_BYTES // 1_000_000} MB; split it")
        path = place.file.parent / DOCUMENTS / name
        if path.exists() and path.read_bytes() != data:
            raise TaxonomyError(f"{name}: another document of that name is there; rename it")
        path.parent.mkdir(parents=True, exist_ok=True)
        write_bytes_whole(path, data)
        return path

    def text(self, place: LeafPlace) -> str | None:
        """What the leaf's file says; None where there is none yet. Raises TaxonomyError."""
        return _text(place.file)

    def attribution(self, place: LeafPlace) -> str | None:
        """What is next to it in attribution.txt; None where there is none. Raises TaxonomyError."""
        return _text(place.attribution)

    def form(self, place: LeafPlace) -> LeafForm:
        """Raises TaxonomyError where the file has no form."""
        return read_form(self.text(place) or empty_leaf(is_knowledge=place.is_knowledge))

    def check(
        self, place: LeafPlace, form: LeafForm, attribution: str | None = None
    ) -> CheckedLeaf:
        """What the form would write, and what there is to mend in it. `attribution`: what
        attribution.txt is to say, where that is not what it says."""
        before = self.text(place)
        text = _edited(place, before, form)
        read = inspect_text(place.root, place.file, text, attribution)
        places = field_places(text)
        config = TaxonomyConfig(path=str(place.root))
        chunks = cut_documents(read.documents, config.chunk_tokens, TokenCounter())
        seeds = read.leaf.seeds if read.leaf else ()
        covered = cover([d.text for d in read.documents], chunks, seeds)
        return CheckedLeaf(
            text=text,
            findings=tuple(
                FieldFinding(_field_of(finding, places), finding) for finding in read.findings
            ),
            diff=_diffs(
                (before or "", text, f"{place.path}/{QNA}"),
                (self.attribution(place) or "", attribution, f"{place.path}/{ATTRIBUTION}"),
            ),
            documents=read.documents,
            passages=tuple(ShownPassage(c, bool(covered.lines_by_chunk[c.id])) for c in chunks),
            share_covered=covered.num_covered / covered.num_words if covered.num_words else 0.0,
        )

    def save(
        self, place: LeafPlace, form: LeafForm, digest: str, attribution: str | None = None
    ) -> str:
        """Write the leaf, and its attribution where that is given; gives its new digest.

        Raises TaxonomyError where the files are not the ones that the form was made from.
        """
        before = self.text(place)
        if self.digest(place) != digest:
            raise TaxonomyError(
                f"{QNA} or {ATTRIBUTION} was changed on disk meanwhile; copy what you wrote and "
                "load the page again"
            )
        text = _edited(place, before, form)
        place.file.parent.mkdir(parents=True, exist_ok=True)
        write_text_whole(place.file, text)
        said = None if attribution is None else attribution.strip()
        if said:
            write_text_whole(place.attribution, said + "\n")
        elif said is not None:
            place.attribution.unlink(missing_ok=True)
        return self.digest(place)

    def digest(self, place: LeafPlace) -> str:
        """What the leaf's two files are known by, as they are on disk."""
        return digest_of(self.text(place)) + digest_of(self.attribution(place))

    def _named_by(self, recipe: str) -> str:
        """The taxonomy of a recipe, if it lies in the project."""
        path = self._project.folder / recipe
        config = read_recipe(path).taxonomy
        if config is None or config.path.startswith("world:"):
            return ""
        root = (path.parent / config.path).resolve()
        folder = self._project.folder.resolve()
        return root.relative_to(folder).as_posix() if root.is_relative_to(folder) else ""

    def _places(self, taxonomy: str) -> list[Place]:
        try:
            places = find_leaves(TaxonomyConfig(path=str(self._project.folder / taxonomy)))
        except FeldsparError:
            return []
        return [place for place in places if place.path]


def _new_name(name: str, what: str) -> str:
    """In the composed spelling: a Mac sends letters and their accents apart. Raises TaxonomyError
    where no file should be called so."""
    name = unicodedata.normalize("NFC", name)
    if not _NAME.fullmatch(name) or len(name.encode("utf-8", "replace")) > MAX_NAME_BYTES:
        raise TaxonomyError(
            f"{name[:80]!r} is no name for {what}: it begins with a dot, has / or \\ or a control "
            f"character, or is longer than {MAX_NAME_BYTES} bytes"
        )
    return name


def _edited(place: LeafPlace, before: str | None, form: LeafForm) -> str:
    text = before or empty_leaf(is_knowledge=place.is_knowledge)
    return edited(text, form, is_knowledge=place.is_knowledge)


def digest_of(text: str | None) -> str:
    """What a file is known by; of none, another than of an empty one."""
    return "" if text is None else hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()


def _text(file: Path) -> str | None:
    if not file.exists():
        return None
    try:
        return read_text(file, MAX_FILE_BYTES)
    except ReadFault as fault:
        raise TaxonomyError(f"{file}: {fault}") from fault


def _field_of(finding: Finding, places: list[FieldPlace]) -> str:
    """The smallest field that stands where the finding is."""
    if finding.code in _OF_ATTRIBUTION:
        return "attribution"
    around = [place.field for place in places if place.holds(finding.line, finding.column)]
    return around[-1] if around else ""


def _diffs(*files: tuple[str, str | None, str]) -> str:
    """Of what is on disk, what will be saved (None: the same), and its name."""
    lines: list[str] = []
    for before, after, name in files:
        if after is not None:
            lines += difflib.unified_diff(
                before.strip().splitlines(),
                after.strip().splitlines(),
                f"{name} on disk",
                "as it will be saved",
                lineterm="",
            )
    return "\n".join(lines)
