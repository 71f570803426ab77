"""Answers to the general-knowledge exam, and which of them are right. Loads no torch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feldspar.evaluate.general.questions import GeneralItem
from feldspar.text.match import is_right


@dataclass(frozen=True, slots=True, kw_only=True)
class GeneralAnswer:
    """What was said to an item in both of its wordings."""

    item: str
    texts: tuple[str, str]


class Marks(NamedTuple):
    """Whether an item is answered right in its first wording, and in its second."""

    first: bool
    second: bool

    @property
    def both(self) -> bool:
        return self.first and self.second


def marks_of(items: Sequence[GeneralItem], answers: Sequence[GeneralAnswer]) -> Mapping[str, Marks]:
    """By item, in the items' order."""
    texts = {answer.item: answer.texts for answer in answers}
    return {
        item.id: Marks(
            *(
                is_right(text, posed)
                for text, posed in zip(texts[item.id], item.posed(), strict=True)
            )
        )
        for item in items
    }
