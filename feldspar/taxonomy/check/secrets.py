"""Secrets and personal data in what a leaf sends to the teacher: its seeds and its documents."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

from feldspar.records import Leaf
from feldspar.taxonomy.documents.find import Document
from feldspar.taxonomy.findings import Findings, quoted
from feldspar.taxonomy.nodes import At
from feldspar.taxonomy.qna import SeedPlace
from feldspar.text.sensitive import Sensitive, find_sensitive


class _Met(NamedTuple):
    """One place, in a seed or in a document."""

    found: Sensitive
    where: str
    at: At


def consider_secrets(
    leaf: Leaf,
    places: Mapping[str, SeedPlace],
    documents: Sequence[Document],
    findings: Findings,
    allows_secrets: bool,
) -> None:
    """Add a finding for each kind of secret and of personal data that the leaf holds."""
    met: dict[str, list[_Met]] = {}
    for one in (*_in_seeds(leaf, places), *_in_documents(documents)):
        if one.found.kind == "personal" or not allows_secrets:
            met.setdefault(one.found.what, []).append(one)
    for what, of_kind in met.items():
        first = of_kind[0]
        message = f"{first.where} holds what looks like {what} ({quoted(first.found.shown)})"
        if len(of_kind) > 1:
            message += f", and {len(of_kind) - 1} more such places in the leaf"
        if first.found.kind == "secret":
            cure = "take it out, and withdraw it; `taxonomy.allow_secrets = true` lets it through"
            findings.add("FT047", message, cure, first.at)
        else:
            cure = "put an invented one in its place, unless the teacher and all readers may see it"
            findings.add("FT048", message, cure, first.at)


def _in_seeds(leaf: Leaf, places: Mapping[str, SeedPlace]) -> Iterator[_Met]:
    seen: set[str] = set()
    for seed in leaf.seeds:
        place = places[seed.id]
        parts = (("question", seed.question), ("answer", seed.answer), ("context", seed.context))
        for (name, text), at in zip(parts, place, strict=True):
            # Pairs share a context, and a hostile file any text, by aliases.
            if text and text not in seen:
                seen.add(text)
                yield from _met(find_sensitive(text), f"the {name}", at)


def _in_documents(documents: Iterable[Document]) -> Iterator[_Met]:
    for document in documents:
        for found in find_sensitive(document.text):
            yield _Met(found, f"line {found.line} of {quoted(document.name, 120)}", (1, 1))


def _met(found: Iterable[Sensitive], where: str, at: At) -> Iterator[_Met]:
    return (_Met(one, where, at) for one in found)
