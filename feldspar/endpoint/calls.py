"""What is asked of a model and what it answers: plain records, whatever protocol carries them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

CHARACTERS_PER_TOKEN = 2
"""Of a text that nobody has counted: fewer than most texts have, so that caps hold."""
_MOST_TOKENS_PER_CHARACTER = 8
_SPARE_TOKENS = 1 << 12
"""For templates and the like: what a server counts beyond all this is not believed."""

Json = dict[str, Any]
"""A decoded JSON object."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatCall:
    """A conversation to be answered once."""

    messages: Sequence[Mapping[str, str]]
    """`{"role": "user", "content": "..."}`, roles `system`, `user` and `assistant`."""
    temperature: float
    max_tokens: int
    seed: int = 0
    stop: tuple[str, ...] = ()
    may_be_empty: bool = False
    """An answer without text is an answer too: of a model that is examined, not of a teacher."""

    @property
    def num_characters(self) -> int:
        return sum(len(message["content"]) for message in self.messages)


@dataclass(frozen=True, slots=True, kw_only=True)
class PromptCall:
    """A text, or token ids, to be continued `num_choices` times."""

    prompt: str | Sequence[int]
    max_tokens: int
    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None
    num_choices: int = 1
    stop: tuple[str, ...] = ()

    @property
    def num_characters(self) -> int:
        size = len(self.prompt)
        return size if isinstance(self.prompt, str) else size * CHARACTERS_PER_TOKEN


class Usage(NamedTuple):
    """Tokens that a call took."""

    prompt_tokens: int = 0
    completion_tokens: int = 0

    @property
    def total(self) -> int:
        return self.prompt_tokens + self.completion_tokens


class Completion(NamedTuple):
    """One answer. `length` where `max_tokens` or the context cut it off."""

    text: str
    finish_reason: Literal["stop", "length"]


class Completions(NamedTuple):
    """All answers to one call, at least one, and what they took together."""

    choices: tuple[Completion, ...]
    usage: Usage


def most_usage(call: ChatCall | PromptCall) -> Usage:
    """The most that a call is taken to cost before it is answered."""
    num_choices = call.num_choices if isinstance(call, PromptCall) else 1
    return Usage(call.num_characters // CHARACTERS_PER_TOKEN + 1, call.max_tokens * num_choices)


def read_usage(
    call: ChatCall | PromptCall, prompt: object, written: object, num_characters: int
) -> Usage:
    """What a server counted, or an estimate from the texts where it counted nothing that can be.

    Missing, negative, fractional or absurd counts would void the caps on tokens and money.
    `num_characters`: of all that was written, reasoning included.
    """
    most = most_usage(call)
    return Usage(
        _count(prompt, call.num_characters, _SPARE_TOKENS),
        _count(written, num_characters, 4 * most.completion_tokens + _SPARE_TOKENS),
    )


def _count(value: object, num_characters: int, spare: int) -> int:
    estimate = math.ceil(num_characters / CHARACTERS_PER_TOKEN)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return estimate
    is_sound = (value == value and value > 0) or (value == 0 and not num_characters)
    if not is_sound or value > _MOST_TOKENS_PER_CHARACTER * num_characters + spare:
        return estimate
    return math.ceil(value)


def sound_text(text: str) -> str:
    """The same text, lone surrogates replaced: they are no characters, and no file takes them."""
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        # By way of UTF-16, so that two halves that belong together become one character.
        return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")
    return text
