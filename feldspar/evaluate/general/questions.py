"""The general-knowledge exam: what a base knows and can do, and must keep. Two wordings an item.

The items lie beside this file, one JSON object a line, and are part of the package:

    {"id": "capitals/france", "kind": "capitals", "match": "holds", "accepted": ["Paris"],
     "ask": ["What is the capital of France?", "Which city is the capital of France?"],
     "wrong": ["Berlin", "Rome"]}
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal

from pydantic import TypeAdapter

from feldspar.errors import RecipeError
from feldspar.records import ExamItem, Form
from feldspar.tokens.count import TokenCounter

EXAM = "general knowledge"
"""Its name among the scores."""
NUM_WORDINGS = 2
_EMPTY_LINE = re.compile(r"\n\s*\n")
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


def item_of(posed_id: str) -> str:
    """The id of the item of which this is one wording."""
    return posed_id.rpartition("#")[0]


@cache
def general_items() -> tuple[GeneralItem, ...]:
    """All items, in the file's order."""
    lines = _file_bytes("questions.jsonl").splitlines()
    adapter = TypeAdapter(GeneralItem)
    return tuple(adapter.validate_json(line) for line in lines)


def general_text(path: Path | None = None) -> list[str]:
    """Passages of general text, for a perplexity: of a file, or our own.

    Raises RecipeError for a file that holds no text.
    """
    try:
        content = _file_bytes("text.txt") if path is None else path.read_bytes()
        text = content.decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: evaluate.general.text cannot be read: {error}") from error
    passages = [" ".join(passage.split()) for passage in _EMPTY_LINE.split(text)]
    found = [passage for passage in passages if passage]
    if not found:
        raise RecipeError(f"{path}: evaluate.general.text holds no text")
    return found


def cannot_be_asked(counter: TokenCounter) -> str:
    """Why a model is not asked: what its tokenizer cannot write of the exam. Empty where it can."""
    texts = [question for item in general_items() for question in item.ask]
    lost = counter.cannot_write(texts)
    if not lost:
        return ""
    return (
        f"the student's tokenizer cannot write {len(lost)} of the {len(texts)} questions of the "
        f"general-knowledge exam, such as {lost[0]!r}: it is left out"
    )


def content_digest() -> str:
    """sha256 of the items and the text: the exam's version."""
    content = _file_bytes("questions.jsonl") + _file_bytes("text.txt")
    return hashlib.sha256(content).hexdigest()


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


def asked_half(use: Use, items_per_kind: int | None) -> list[GeneralItem]:
    """The items of one half that are asked: all, or the first of each kind in the halves' order."""
    half = halves(general_items())[use]
    if items_per_kind is None:
        return half
    chosen = {
        item.id
        for of_kind in kinds(half).values()
        for item in sorted(of_kind, key=lambda item: _shuffled(item.id))[:items_per_kind]
    }
    return [item for item in half if item.id in chosen]


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
