"""A qna.yaml read into seeds and sources, whatever its version, with a finding for each fault.

Versions 1, 2 and none hold flat seeds; version 3 knowledge holds a context with several pairs:

    seed_examples:
      - context: The Phoenix is a minor constellation in the southern sky.
        questions_and_answers:
          - {question: Where is the Phoenix?, answer: In the southern sky.}
"""

from __future__ import annotations

import difflib
import hashlib
import json
import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from feldspar.records import Seed
from feldspar.taxonomy.findings import Findings, quoted
from feldspar.taxonomy.invisible import has_invisible
from feldspar.taxonomy.nodes import At, ListNode, MapNode, Node, TextNode

MAX_SEEDS = 10_000
MAX_SEED_CHARACTERS = 32_000_000

NEWEST_VERSION = 3
_LEAF_KEYS = (
    "version",
    "created_by",
    "task_description",
    "domain",
    "seed_examples",
    "document",
    "document_outline",
)
_SEED_KEYS = ("question", "answer", "context", "attribution")
_EXAMPLE_KEYS = ("context", "questions_and_answers")
_PAIR_KEYS = ("question", "answer")
_TAUGHT_KEYS = ("question", "answer", "context", "task_description", "document_outline")
"""Keys whose text the teacher is shown; a comment behind another value is harmless."""
_WHERE_KEYS = ("repo", "commit", "path", "url")
_DOCUMENT_KEYS = (*_WHERE_KEYS, "patterns")
KEYS = frozenset((*_LEAF_KEYS, *_SEED_KEYS, *_EXAMPLE_KEYS, *_DOCUMENT_KEYS))
"""Every key that means something anywhere in a leaf."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DocumentSource:
    """Where a leaf's documents are: a git repository at a commit, a local path, or a URL."""

    repo: str = ""
    commit: str = ""
    path: str = ""
    url: str = ""
    patterns: tuple[str, ...]
    at: At


class SeedPlace(NamedTuple):
    """Where the parts of a seed stand."""

    question: At
    answer: At
    context: At


@dataclass(frozen=True, slots=True, kw_only=True)
class Qna:
    """What one qna.yaml says."""

    version: int
    task_description: str
    created_by: str
    domain: str
    seeds: tuple[Seed, ...]
    places: dict[str, SeedPlace]
    """Of each seed, by its id."""
    attribution: str
    sources: tuple[DocumentSource, ...]
    document_at: At | None
    """Where `document` stands; None where there is none."""


def read_qna(root: Node | None, findings: Findings) -> Qna | None:
    """Read a composed file; None, with a finding, where it is not a leaf at all."""
    if not isinstance(root, MapNode):
        found = "a list" if isinstance(root, ListNode) else "a text" if root else "nothing"
        findings.add(
            "FT004",
            f"the file holds {found}, not keys and values",
            "put the seeds under `seed_examples:`, beside `task_description:` and `created_by:`",
            root.at if root else (1, 1),
        )
        return None
    fields = _fields(root, _LEAF_KEYS, findings)
    places: dict[str, SeedPlace] = {}
    seeds = _seeds(root, fields.get("seed_examples"), places, findings)
    document = fields.get("document")
    if document is not None and _is_null(document):
        document = None
    return Qna(
        version=_version(fields.get("version"), seeds, findings),
        task_description=_text(fields, "task_description", findings)
        or _text(fields, "document_outline", findings),
        created_by=_text(fields, "created_by", findings),
        domain=_text(fields, "domain", findings),
        seeds=seeds,
        places=places,
        attribution=_seed_attribution(fields.get("seed_examples")),
        sources=tuple(_sources(document, findings)) if document is not None else (),
        document_at=document.at if document is not None else None,
    )


def _fields(node: MapNode, known: tuple[str, ...], findings: Findings) -> dict[str, Node]:
    """The known keys of a mapping; the others and repeated ones become findings."""
    fields: dict[str, Node] = {}
    for key, value in node.entries:
        name = key.text if isinstance(key, TextNode) else None
        if name in fields:
            findings.add("FT005", f"key `{name}` stands twice", "remove one of them", key.at)
        if name in known:
            fields[name] = value
        elif not findings.is_full and not (name and has_invisible(name)):
            _tell_of_unknown_key(name, key.at, known, findings)
    return fields


def _tell_of_unknown_key(
    name: str | None, at: At, known: tuple[str, ...], findings: Findings
) -> None:
    shown = quoted(name) if name is not None else "that is not a text"
    near = difflib.get_close_matches(name[:40], known, 1) if name else []
    cure = f"did you mean `{near[0]}`?" if near else f"known here: {', '.join(known)}"
    findings.add("FT008", f"unknown key {shown}, ignored", cure, at)


def _is_null(node: Node) -> bool:
    return isinstance(node, TextNode) and node.is_null


def _text(fields: dict[str, Node], key: str, findings: Findings) -> str:
    """The text of a key without blank lines around it; "" where there is none."""
    node = fields.get(key)
    if node is None or _is_null(node):
        return ""
    if not isinstance(node, TextNode):
        kind = "a list" if isinstance(node, ListNode) else "a mapping"
        cure = "write one text; put it between quotes if it holds `: `, `[` or `{`, or after `|`"
        findings.add("FT009", f"`{key}` is {kind}, not a text; ignored", cure, node.at)
        return ""
    if node.comment_at is not None and key in _TAUGHT_KEYS:
        message = f"` #` ends the text of `{key}`: what follows is a comment, and is not taught"
        cure = "put the text between quotes or after `|`; a comment of yours, on a line of its own"
        findings.add("FT027", message, cure, node.comment_at)
    return node.text.strip("\r\n").rstrip() if node.text.strip() else ""


def _version(node: Node | None, seeds: tuple[Seed, ...], findings: Findings) -> int:
    if node is None or _is_null(node):
        return 1
    text = node.text if isinstance(node, TextNode) else ""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if number in (1, 2, 3):
        return int(number)
    is_number = not math.isnan(number)
    nearest = round(min(max(number, 1), NEWEST_VERSION)) if is_number else NEWEST_VERSION
    findings.add(
        "FT007",
        f"version {quoted(text)} is unknown, read as {nearest}",
        f"write `version: {NEWEST_VERSION}`",
        node.at,
    )
    return nearest


def _seeds(
    leaf: MapNode, node: Node | None, places: dict[str, SeedPlace], findings: Findings
) -> tuple[Seed, ...]:
    if node is None or not isinstance(node, ListNode) or not node.items:
        findings.add(
            "FT020",
            "the leaf has no seeds"
            if node is None or _is_null(node)
            else "`seed_examples` is no list",
            "add `seed_examples:`, a list of at least five with `question:` and `answer:`",
            node.at if node else leaf.at,
        )
        return ()
    seeds: dict[str, Seed] = {}
    num_characters = 0
    for num_seen, candidate in enumerate(_candidates(node, findings)):
        if num_seen == MAX_SEEDS or num_characters > MAX_SEED_CHARACTERS:
            message = f"more than {MAX_SEEDS} seeds, or {MAX_SEED_CHARACTERS} characters in them"
            findings.add("FT003", message, "split the leaf", candidate.node.at)
            break
        seed = _seed(candidate, findings)
        if seed is None:
            continue
        num_characters += len(seed.question) + len(seed.answer) + len(seed.context or "")
        if seed.id in seeds:
            message = f"the seed of line {seeds[seed.id].line} stands here again; skipped"
            findings.add("FT022", message, "remove one of them", candidate.node.at)
            continue
        seeds[seed.id] = seed
        places[seed.id] = _seed_place(candidate)
    if not seeds:
        message = "no seed has both a question and an answer"
        findings.add("FT020", message, "complete at least one; five make a good leaf", node.at)
    return tuple(seeds.values())


class _Candidate(NamedTuple):
    """What may be a seed: a pair under a shared context, or an item with its own."""

    name: str
    node: Node
    shared_context: str | None = None
    shared_context_at: At | None = None


def _candidates(examples: ListNode, findings: Findings) -> Iterator[_Candidate]:
    for number, item in enumerate(examples.items, start=1):
        if not _is_example(item):
            yield _Candidate(f"seed {number}", item)
            continue
        assert isinstance(item, MapNode)
        fields = _fields(item, _EXAMPLE_KEYS, findings)
        context = _text(fields, "context", findings)
        at = fields["context"].at if "context" in fields else item.at
        pairs = fields["questions_and_answers"]
        if not isinstance(pairs, ListNode) or not pairs.items:
            cure = "list at least one `question:` with its `answer:`"
            message = f"example {number} has no questions and answers; skipped"
            findings.add("FT021", message, cure, pairs.at)
            continue
        for pair_number, pair in enumerate(pairs.items, start=1):
            name = f"pair {pair_number} of example {number}"
            yield _Candidate(name, pair, context, at)


def _is_example(item: Node) -> bool:
    return isinstance(item, MapNode) and any(
        isinstance(key, TextNode) and key.text == "questions_and_answers" for key, _ in item.entries
    )


def _seed(candidate: _Candidate, findings: Findings) -> Seed | None:
    """The seed, or None with a finding where it is not complete."""
    name, node, context, _ = candidate
    if not isinstance(node, MapNode):
        cure = "write `question:` and `answer:` under one `-`"
        findings.add("FT021", f"{name} is not a mapping; skipped", cure, node.at)
        return None
    fields = _fields(node, _SEED_KEYS if context is None else _PAIR_KEYS, findings)
    if context is None:
        context = _text(fields, "context", findings)
    question = _text(fields, "question", findings)
    answer = _text(fields, "answer", findings)
    missing = [key for key, text in (("question", question), ("answer", answer)) if not text]
    if missing:
        findings.add(
            "FT021",
            f"{name} has no {' and no '.join(missing)}; skipped",
            f"add {' and '.join(f'`{key}:`' for key in missing)} with a text, or remove the seed",
            node.at,
        )
        return None
    return Seed(
        id=_seed_id(question, answer, context),
        question=question,
        answer=answer,
        context=context or None,
        line=node.at[0],
    )


def _seed_place(candidate: _Candidate) -> SeedPlace:
    assert isinstance(candidate.node, MapNode)
    at = {key.text: value.at for key, value in candidate.node.entries if isinstance(key, TextNode)}
    context = candidate.shared_context_at or at.get("context", candidate.node.at)
    return SeedPlace(at["question"], at["answer"], context)


def _seed_id(question: str, answer: str, context: str) -> str:
    content = json.dumps([question, answer, context], ensure_ascii=False)
    return hashlib.sha256(content.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def _seed_attribution(examples: Node | None) -> str:
    """The sources that old leaves name seed by seed, a line for each."""
    lines: dict[str, None] = {}
    for item in examples.items if isinstance(examples, ListNode) else ():
        for key, value in item.entries if isinstance(item, MapNode) else ():
            if isinstance(key, TextNode) and key.text == "attribution":
                lines |= dict.fromkeys(_attribution_lines(value))
    return "\n".join(lines)


def _attribution_lines(value: Node) -> Iterator[str]:
    for entry in value.items if isinstance(value, ListNode) else [value]:
        if isinstance(entry, TextNode) and entry.text.strip():
            yield entry.text.strip()
        elif isinstance(entry, MapNode):
            parts = [
                f"{key.text}: {text.text.strip()}"
                for key, text in entry.entries
                if isinstance(key, TextNode) and isinstance(text, TextNode) and not text.is_null
            ]
            if parts:
                yield "; ".join(parts)


def _sources(document: Node, findings: Findings) -> Iterator[DocumentSource]:
    """The sources of `document`: one mapping, or a list of them."""
    for node in document.items if isinstance(document, ListNode) else [document]:
        if not isinstance(node, MapNode):
            _bad_document(findings, "`document` is no mapping", node.at)
            continue
        fields = _fields(node, _DOCUMENT_KEYS, findings)
        repo, commit, path, url = (_text(fields, key, findings) for key in _WHERE_KEYS)
        named = [key for key, text in (("repo", repo), ("path", path), ("url", url)) if text]
        if len(named) != 1:
            why = " and ".join(f"`{key}`" for key in named) or "no `repo`, `path` or `url`"
            _bad_document(findings, f"`document` has {why}", node.at)
        elif repo and not commit:
            _bad_document(findings, "`document` has no `commit`", node.at)
        else:
            patterns = _patterns(fields.get("patterns"), findings)
            yield DocumentSource(
                repo=repo, commit=commit, path=path, url=url, patterns=patterns, at=node.at
            )


def _bad_document(findings: Findings, message: str, at: At) -> None:
    cure = (
        "write `repo:` and `commit:` of a git repository with `patterns:` such as `*.md`, "
        "or `path:` of a local file or folder, or `url:` of a page"
    )
    findings.add("FT031", message, cure, at)


def _patterns(node: Node | None, findings: Findings) -> tuple[str, ...]:
    """The patterns as written; none stands for every document of the folder."""
    if node is None or _is_null(node):
        return ()
    items = node.items if isinstance(node, ListNode) else [node]
    fields = {f"patterns[{i}]": item for i, item in enumerate(items, start=1)}
    return tuple(text for key in fields if (text := _text(fields, key, findings).strip()))
