"""What is asked and said, for whoever wants to show it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass

from feldspar.records import Message


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """One call to a model and its reply."""

    stage: str
    messages: tuple[Message, ...]
    reply: str
    """Its reasoning trace taken off."""
    prompt_tokens: int
    completion_tokens: int
    cached: bool
    """Whether the journal had it: it cost nothing this time."""


_HEARD: ContextVar[list[Exchange] | None] = ContextVar("heard", default=None)


@contextmanager
def listening() -> Iterator[list[Exchange]]:
    """The calls made within the block, in the order of their replies; by this task and those that
    it begins. An inner block takes its calls for itself."""
    heard: list[Exchange] = []
    token = _HEARD.set(heard)
    try:
        yield heard
    finally:
        _HEARD.reset(token)


def tell(exchange: Exchange) -> None:
    """Give it to who listens, if anyone does."""
    heard = _HEARD.get()
    if heard is not None:
        heard.append(exchange)
