"""A folder read into leaves, with seeds split and documents cut, and into findings."""

from __future__ import annotations

import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from feldspar.config import TaxonomyConfig
from feldspar.errors import TaxonomyError
from feldspar.progress import SILENT, Progress
from feldspar.records import Branch, Chunk, Leaf
from feldspar.steps import Step, Workspace
from feldspar.taxonomy.check.secrets import consider_secrets
from feldspar.taxonomy.check.seed_lint import consider_meaning
from feldspar.taxonomy.documents.chunks import CountTokens, cut_chunks
from feldspar.taxonomy.documents.fetching import Fetcher
from feldspar.taxonomy.documents.find import ATTRIBUTION, QNA, Document, DocumentFinder
from feldspar.taxonomy.exam_split import MIN_SEEDS, split_seeds
from feldspar.taxonomy.findings import Finding, Findings
from feldspar.taxonomy.invisible import UNSEEN_CURE, find_in_texts, in_structure
from feldspar.taxonomy.nodes import MAX_FILE_BYTES, YamlFault, compose, lines_inside_quotes
from feldspar.taxonomy.places import BRANCH_FOLDERS, Place, find_places, place_of
from feldspar.taxonomy.qna import KEYS, Qna, read_qna
from feldspar.taxonomy.text_files import ReadFault, is_inside, read_text
from feldspar.text import on_one_line
from feldspar.tokens.count import TokenCounter

_LICENCE = re.compile(r"^\s*licen[cs]e[^:\n]*:[ \t]*(.+)$", re.IGNORECASE | re.MULTILINE)

MAX_NAMED = 4
"""Bad leaves that an error names, for `taxonomy.skip`."""

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafFile:
    """One qna.yaml: the leaf, where it can be read, its documents, and what was found."""

    file: Path
    path: str
    """The leaf's path; empty where the file lies under no branch."""
    branch: Branch | None
    leaf: Leaf | None
    """Without chunks, and with all seeds in `seeds`."""
    documents: tuple[Document, ...]
    findings: tuple[Finding, ...]

    @property
    def errors(self) -> list[Finding]:
        return [finding for finding in self.findings if finding.severity == "error"]


def read_taxonomy(config: TaxonomyConfig, *, progress: Progress = SILENT) -> Iterator[Leaf]:
    """Every leaf that the filters keep, in path order, with seeds split and documents cut.

    Personal data in them is logged. Raises TaxonomyError when one has an error finding, and when
    there is none.
    """
    count_tokens = TokenCounter(config.tokenizer)
    bad: list[LeafFile] = []
    personal: list[Finding] = []
    for read in _read_wanted(config, progress):
        bad += [read] if read.errors else []
        personal += [finding for finding in read.findings if finding.code == "FT048"]
        if not bad:
            assert read.leaf is not None, read.file
            yield _complete(read.leaf, read.documents, config, count_tokens)
    if bad:
        raise TaxonomyError(_explain_bad(bad, config.path))
    if personal:
        num_leaves = len({finding.path for finding in personal})
        told = (
            f"personal data goes to the teacher from {num_leaves} leaves; the first: {personal[0]}"
        )
        log.warning("%s; `feldspar taxonomy check %s` shows all", told, on_one_line(config.path))


class Readable(NamedTuple):
    """The leaves that can be read, and a line about each that cannot."""

    leaves: list[Leaf]
    left_out: list[str]


def read_readable(config: TaxonomyConfig, *, progress: Progress = SILENT) -> Readable:
    """As `read_taxonomy`, but a leaf with an error is named and left out: for `feldspar plan`.

    Raises TaxonomyError when no leaf can be read.
    """
    count_tokens = TokenCounter(config.tokenizer)
    leaves: list[Leaf] = []
    bad: list[LeafFile] = []
    for read in _read_wanted(config, progress):
        if read.errors or read.leaf is None:
            bad.append(read)
        else:
            leaves.append(_complete(read.leaf, read.documents, config, count_tokens))
    if not leaves:
        raise TaxonomyError(_explain_bad(bad, config.path))
    return Readable(
        leaves, [f"left out: {on_one_line(read.path)}: {read.errors[0]}" for read in bad]
    )


def _read_wanted(config: TaxonomyConfig, progress: Progress) -> Iterator[LeafFile]:
    places = find_leaves(config)
    reader = _reader(config)
    with progress.task("read taxonomy", len(places), "leaves") as task:
        for place in places:
            yield reader.read(place)
            task.advance()


def read_in_run(workspace: Workspace, config: TaxonomyConfig) -> Iterator[Leaf]:
    """`read_taxonomy` as a step."""
    return read_taxonomy(config, progress=workspace.progress)


LEAVES_STEP = Step("leaves", read_in_run, version=3)


def files_read(config: TaxonomyConfig) -> dict[str, Path]:
    """Every file that `read_taxonomy` depends on, by what the leaves know it as: a leaf's files by
    its path, a document by the leaf that names it and the name that it has there."""
    files: dict[str, Path] = {}
    reader = _reader(config)
    for place in find_leaves(config):
        files[f"{place.path}/{place.file.name}"] = place.file
        attribution = place.file.with_name(ATTRIBUTION)
        if attribution.is_file():
            files[f"{place.path}/{ATTRIBUTION}"] = attribution
        for document in reader.read(place).documents:
            files[f"{place.path}: {document.name}"] = document.path
    if config.tokenizer is not None:
        tokenizer = Path(config.tokenizer)
        files["tokenizer"] = tokenizer / "tokenizer.json" if tokenizer.is_dir() else tokenizer
    return files


def inspect_taxonomy(
    path: Path, mirror: Path | None = None, fetcher: Fetcher | None = None
) -> Iterator[LeafFile]:
    """Every qna.yaml under `path`, in path order, readable or not.

    Documents that are neither local nor in the mirror are left out without a `fetcher`.
    Raises TaxonomyError when `path` or `mirror` is not there.
    """
    reader = _Reader(path, _mirror(mirror), fetcher, is_needed=False)
    for place in find_places(path):
        yield reader.read(place)


def inspect_text(root: Path, file: Path, text: str, attribution: str | None = None) -> LeafFile:
    """As `inspect_taxonomy`, of one leaf as if its file said `text`, and its attribution.txt
    `attribution` where that is given; nothing is fetched."""
    reader = _Reader(root, None, None, is_needed=False)
    return reader.read(place_of(file, root), text, attribution)


def check_taxonomy(path: Path, mirror: Path | None = None) -> Iterator[Finding]:
    """Everything to mend in a taxonomy, in path order; without `mirror`, git documents are not
    looked for, and nothing is fetched."""
    for read in inspect_taxonomy(path, mirror):
        yield from read.findings


def cut_documents(
    documents: tuple[Document, ...], max_tokens: int, count_tokens: CountTokens
) -> tuple[Chunk, ...]:
    """The chunks of a leaf's documents, each passage once."""
    chunks: dict[str, Chunk] = {}
    for document in documents:
        for chunk in cut_chunks(document.text, document.name, max_tokens, count_tokens):
            chunks.setdefault(chunk.id, chunk)
    return tuple(chunks.values())


def find_leaves(config: TaxonomyConfig) -> list[Place]:
    """Where the leaves are that the recipe wants, unread. Raises TaxonomyError for none."""
    places = [place for place in find_places(Path(config.path)) if place.file.name == QNA]
    if not places:
        raise TaxonomyError(
            f"{config.path}: no {QNA} in any folder; `taxonomy.path` must hold "
            f"{', '.join(BRANCH_FOLDERS)}"
        )
    for skipped in config.skip:
        if not any(_is_below(place.path, skipped) for place in places):
            raise TaxonomyError(
                f"{config.path}: `taxonomy.skip` names {skipped!r}, where no leaf is; "
                f"`feldspar taxonomy tree {config.path}` shows their paths"
            )
    wanted = [
        place
        for place in places
        if (not config.branches or place.branch in config.branches)
        and (not config.leaves or any(_is_below(place.path, path) for path in config.leaves))
        and not any(_is_below(place.path, path) for path in config.skip)
    ]
    if not wanted:
        raise TaxonomyError(
            f"{config.path}: `taxonomy.leaves`, `taxonomy.branches` and `taxonomy.skip` keep none "
            f"of {len(places)} leaves; `feldspar taxonomy tree {config.path}` shows their paths"
        )
    return wanted


def _is_below(leaf: str, path: str) -> bool:
    """Whether a leaf is at a path or below it; the spellings of an accent are one."""
    plain = [PurePosixPath(unicodedata.normalize("NFC", name)) for name in (leaf, path)]
    return plain[0].is_relative_to(plain[1])


def _reader(config: TaxonomyConfig) -> _Reader:
    fetcher = Fetcher() if config.fetch else None
    return _Reader(
        Path(config.path),
        _mirror(config.mirror),
        fetcher,
        is_needed=True,
        allows_secrets=config.allow_secrets,
    )


def _mirror(mirror: str | Path | None) -> Path | None:
    if mirror is not None and not Path(mirror).is_dir():
        raise TaxonomyError(f"{mirror}: no such folder; the mirror holds OWNER+REPO/COMMIT/FILE")
    return Path(mirror) if mirror is not None else None


class _Reader:
    """Reads leaf after leaf of one taxonomy."""

    def __init__(
        self,
        root: Path,
        mirror: Path | None,
        fetcher: Fetcher | None,
        *,
        is_needed: bool,
        allows_secrets: bool = False,
    ) -> None:
        self._is_needed = is_needed
        self._allows_secrets = allows_secrets
        self._root = root if root.is_dir() else root.parent
        self._finder = DocumentFinder(self._root, mirror, is_needed, fetcher)
        self._seen: dict[str, Path] = {}
        self._alike: dict[str, Path] = {}

    def read(
        self, place: Place, text: str | None = None, attribution: str | None = None
    ) -> LeafFile:
        """`text` and `attribution`: what the files are to say, in place of what they say."""
        findings = Findings(place.file)
        qna = self._qna(place, findings) if text is None else _compose(text, findings)
        documents: tuple[Document, ...] = ()
        leaf = None
        if qna is not None:
            documents = self._documents(place, qna, findings)
            leaf = self._leaf(place, qna, findings, attribution)
        if qna is not None and leaf is not None:
            if not self._is_needed:
                consider_meaning(leaf, qna.places, documents, findings)
            consider_secrets(leaf, qna.places, documents, findings, self._allows_secrets)
        return LeafFile(
            file=place.file,
            path=place.path,
            branch=place.branch,
            leaf=leaf,
            documents=documents,
            findings=tuple(findings),
        )

    def _qna(self, place: Place, findings: Findings) -> Qna | None:
        if place.file.name != QNA:
            findings.add("FT012", f"only {QNA} is read", f"rename the file to {QNA}")
            return None
        if place.branch is None:
            cure = f"move it below one of {', '.join(BRANCH_FOLDERS)}"
            findings.add("FT010", "the leaf lies under no branch", cure)
            return None
        if any(unicodedata.category(character) in ("Cc", "Cs") for character in place.path):
            cure = "rename the folder with plain letters"
            findings.add("FT014", "the folder's name holds what is not UTF-8 text", cure)
            return None
        first = self._seen.setdefault(place.path, place.file)
        alike = self._alike.setdefault(_without_case(place.path), place.file)
        if alike not in (place.file, first):
            message = f"the path {place.path} differs from that of {alike} in case or form alone"
            findings.add("FT015", message, "rename one of the folders")
        if first != place.file:
            message = f"the path {place.path} is also that of {first}"
            findings.add("FT011", message, "rename one, or check one taxonomy at a time")
            return None
        if not is_inside(place.file, self._root):
            findings.add("FT013", f"{QNA} is a link out of the taxonomy", "put a copy in its place")
            return None
        try:
            text = read_text(place.file, MAX_FILE_BYTES)
        except ReadFault as fault:
            findings.add("FT001", f"cannot be read: {fault}", "save it as a plain UTF-8 file")
            return None
        return _compose(text, findings)

    def _documents(self, place: Place, qna: Qna, findings: Findings) -> tuple[Document, ...]:
        if place.branch != "knowledge":
            if qna.document_at is not None:
                cure = "put what a skill works on into each seed's `context:`"
                message = "`document` counts in knowledge leaves only, ignored"
                findings.add("FT008", message, cure, qna.document_at)
            return ()
        if qna.document_at is None:
            cure = (
                "add `document:` with `path:`, with `url:`, or with `repo:`, `commit:`, `patterns:`"
            )
            findings.add("FT030", "a knowledge leaf without `document`", cure, (1, 1))
            return ()
        num_before = len(findings)
        leaf_folder = place.file.parent
        documents = self._finder.find(leaf_folder, place.taxonomy, qna.sources, findings)
        is_told = any(f.code != "FT036" for f in list(findings)[num_before:])
        if not any(document.text.strip() for document in documents) and not is_told:
            cure = "name documents that hold text in `patterns:`"
            findings.add("FT037", "the documents hold no text", cure, qna.document_at)
        return documents

    def _leaf(
        self, place: Place, qna: Qna, findings: Findings, attribution: str | None
    ) -> Leaf | None:
        if not qna.seeds:
            return None
        assert place.branch is not None
        _consider_seeds(place.branch, qna, findings)
        if attribution is None:
            attribution = self._attribution(place.file.with_name(ATTRIBUTION), findings)
        licence = _LICENCE.search(attribution)
        return Leaf(
            path=place.path,
            branch=place.branch,
            task_description=qna.task_description,
            seeds=qna.seeds,
            domain=qna.domain,
            licence=licence.group(1).strip() if licence is not None else "",
            attribution=attribution or qna.attribution,
            created_by=qna.created_by,
            version=qna.version,
        )

    def _attribution(self, path: Path, findings: Findings) -> str:
        if not os.path.lexists(path):
            return ""
        try:
            if not is_inside(path, self._root):
                raise ReadFault("it is a link out of the taxonomy")
            return read_text(path, MAX_FILE_BYTES).strip()
        except ReadFault as fault:
            cure = "save it as a plain UTF-8 file beside qna.yaml"
            findings.add("FT001", f"{ATTRIBUTION} is left out: {fault}", cure, severity="warning")
        return ""


def _compose(text: str, findings: Findings) -> Qna | None:
    """The leaf that a file's text says, and what reads otherwise than it looks."""
    unseen = list(in_structure(text, lines_inside_quotes(text), KEYS)) if not text.isascii() else []
    try:
        composed = compose(text)
    except YamlFault as fault:
        cause = next((found for found in unseen if found.at[0] <= fault.at[0]), None)
        if cause is None:
            findings.add(fault.code, fault.message, fault.cure, fault.at)
        else:
            message = f"{cause.name} where YAML expects a key or a space"
            findings.add(fault.code, message, UNSEEN_CURE, cause.at)
        return None
    for found in unseen:
        message = f"{found.name} where YAML expects a key or a space"
        findings.add("FT028", message, UNSEEN_CURE, found.at)
    if not text.isascii():
        find_in_texts(text, unseen, findings)
    if composed.second_at is not None:
        message = "a second YAML document begins here; it is ignored"
        cure = "remove `---`, or make it a leaf of its own"
        findings.add("FT006", message, cure, composed.second_at)
    return read_qna(composed.root, findings)


def _without_case(path: str) -> str:
    """Equal for paths that are one path on a file system that ignores case or Unicode form."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFKC", path).casefold())


def _consider_seeds(branch: Branch, qna: Qna, findings: Findings) -> None:
    """What is worth a word about a leaf that can be read."""
    if len(qna.seeds) < MIN_SEEDS:
        message = f"{len(qna.seeds)} seeds: none is held out as an exam"
        cure = f"write {MIN_SEEDS} or more, so that learning can be measured on a question of yours"
        findings.add("FT023", message, cure, (qna.seeds[0].line, 1))
    bare = [seed for seed in qna.seeds if seed.context is None]
    if branch != "knowledge" and 0 < len(bare) < len(qna.seeds):
        grounded = next(seed for seed in qna.seeds if seed.context is not None)
        message = f"this seed has no context, but that of line {grounded.line} has one"
        cure = "give every seed of the leaf a `context:`, or none"
        findings.add("FT024", message, cure, (bare[0].line, 1))
    if branch != "knowledge" and not qna.task_description:
        cure = "say in `task_description:` what is asked for: the teacher is shown it"
        findings.add("FT025", "no task description", cure, (1, 1))


def _complete(
    leaf: Leaf, documents: tuple[Document, ...], config: TaxonomyConfig, count_tokens: CountTokens
) -> Leaf:
    split = split_seeds(leaf.seeds, config.exam_fraction)
    chunks = cut_documents(documents, config.chunk_tokens, count_tokens)
    return replace(leaf, seeds=split.taught, exam_seeds=split.held_out, chunks=chunks)


def _explain_bad(bad: list[LeafFile], path: str) -> str:
    """The first error, where all are shown, and how to go on without these leaves."""
    errors = [finding for read in bad for finding in read.errors]
    rest = f"{len(errors) - 1} more; " if len(errors) > 1 else ""
    command = f"{rest}`feldspar taxonomy check {path}` shows all"
    paths = [f'"{read.path}"' for read in bad if read.path][:MAX_NAMED]
    if len(bad) <= MAX_NAMED and len(paths) == len(bad):
        command += f"; `taxonomy.skip = [{', '.join(paths)}]` goes on without"
    return on_one_line(f"{errors[0]} ({command})")
