"""The general-knowledge exam: what a base knows and can do, and must keep. Two wordings an item.

The items lie beside this file, one JSON object a line, and are part of the package:

    {"id": "capitals/france", "kind": "capitals", "match": "holds", "accepted": ["Paris"],
     "ask": ["What is the capital of France?", "Which city is the capital of France?"],
     "wrong": ["Berlin", "Rome"]}
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Literal

from pydantic import TypeAdapter

from feldspar.records import ExamItem, Form

EXAM = "general knowledge"
"""Its name among the scores."""
NUM_WORDINGS = 2
Use = Literal["select", "report"]


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralItem:
    """One thing that is asked for in two wordings, and what makes an answer right."""

    id: str
    """`KIND/NAME`."""
    kind: str
    """`capitals`, `sums`, ...: each is a row of the details."""
    ask: tuple[str, str]
    match: Form
    accepted: tuple[str, ...] = ()
    wrong: tuple[str, ...] = ()
    """What must not be said first, with `match = "holds"`."""

    def posed(self) -> tuple[ExamItem, ExamItem]:
        """The item in each of its wordings, as the matcher takes it."""
        first, second = (
            ExamItem(
                id=f"{self.id}#{number}",
                exam=EXAM,
                question=question,
                reference=self.accepted[0] if self.accepted else "",
                accepted=self.accepted,
                match=self.match,
                choices=self.wrong,
                is_retention=True,
            )
            for number, question in enumerate(self.ask, start=1)
        )
        return first, second


@cache
def general_items() -> tuple[GeneralItem, ...]:
    """All items, in the file's order."""
    lines = _file_bytes("questions.jsonl").splitlines()
    adapter = TypeAdapter(GeneralItem)
    return tuple(adapter.validate_json(line) for line in lines)


@cache
def general_text() -> tuple[str, ...]:
    """Passages of general text of our own, for a perplexity."""
    text = _file_bytes("text.txt").decode()
    return tuple(passage.strip() for passage in text.split("\n\n") if passage.strip())


def content_digest() -> str:
    """sha256 of the items: the exam's version."""
    return hashlib.sha256(_file_bytes("questions.jsonl")).hexdigest()


def halves(items: Sequence[GeneralItem]) -> dict[Use, list[GeneralItem]]:
    """Which items may choose checkpoints, and which are reported: every other one of a kind, in an
    order that only their ids decide (docs/decisions/005)."""
    chosen = {
        item.id
        for of_kind in kinds(items).values()
        for item in sorted(of_kind, key=lambda item: _shuffled(item.id))[1::2]
    }
    found: dict[Use, list[GeneralItem]] = {"select": [], "report": []}
    for item in items:
        found["select" if item.id in chosen else "report"].append(item)
    return found


def kinds(items: Sequence[GeneralItem]) -> dict[str, list[GeneralItem]]:
    """Items by kind, in the file's order."""
    found: dict[str, list[GeneralItem]] = {}
    for item in items:
        found.setdefault(item.kind, []).append(item)
    return found


def _shuffled(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def _file_bytes(name: str) -> bytes:
    return files(__package__).joinpath(name).read_bytes()
