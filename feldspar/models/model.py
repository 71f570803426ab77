"""What a role of a recipe needs of a model, wherever it is computed.

ServedModel speaks to an endpoint, LaunchedModel to a command that it starts, LocalModel to our own
engine. Whoever asks does not know which.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import NamedTuple, Protocol

from feldspar.endpoint.calls import ChatCall, Completions, PromptCall
from feldspar.endpoint.endpoint import UNHURRIED, Turn
from feldspar.endpoint.openai_completions import PromptToken
from feldspar.endpoint.replicas import ServersHealth
from feldspar.progress import SILENT, Progress


class Continuations(NamedTuple):
    """Token ids of a prompt, and of what may follow it: each continues the prompt."""

    prompt: Sequence[int]
    continuations: Sequence[Sequence[int]]


class LogProb(NamedTuple):
    """Sum of the log-probabilities of a continuation's tokens, in nats, and how many there are."""

    total: float
    num_tokens: int


Heard = Callable[[int, int, LogProb], None]
"""Told of each log-probability as it comes: its row, which of its continuations, and what it is."""


def unheard(row: int, place: int, found: LogProb) -> None:
    """For whoever waits for all of them."""


class CannotScore(Exception):
    """This model tells no log-probabilities of given token ids. The message says why."""


class Model(Protocol):
    """Enter it in the loop that asks it; it may be entered again, and more than once at a time.

    Calls raise Refused where there is no answer to one, NoAnswers where there is none to any.
    """

    @property
    def name(self) -> str: ...

    @property
    def revision(self) -> str:
        """Of the weights behind the name; empty where nobody says."""
        ...

    @property
    def key(self) -> str:
        """What answers, by content: name and revision, or digest; never an address. Steps that are
        made of its answers are known by it."""
        ...

    @property
    def answers_key(self) -> str:
        """As `key`, with what was found out since about the parameters that it takes."""
        ...

    @property
    def place(self) -> str:
        """For messages: `at http://localhost:8000/v1`, `in models/qwen`."""
        ...

    @property
    def concurrency(self) -> int:
        """Calls allowed in flight just now."""
        ...

    @property
    def health(self) -> ServersHealth:
        """Of the servers behind it just now."""
        ...

    async def __aenter__(self) -> Model: ...

    async def __aexit__(self, *_: object) -> None: ...

    def drain(self) -> None:
        """Nothing new is to begin: the least urgent calls come first until the model is left."""
        ...

    async def complete(
        self, call: ChatCall | PromptCall, turn: Turn = UNHURRIED
    ) -> Completions: ...

    async def prompt_tokens(
        self, prompt: str | Sequence[int], turn: Turn = UNHURRIED
    ) -> list[PromptToken]:
        """How likely the model finds each token of a prompt from the second on. A text is encoded
        by the model's own tokenizer. Raises CannotScore."""
        ...

    async def score(
        self,
        rows: Sequence[Continuations],
        progress: Progress = SILENT,
        heard: Heard = unheard,
    ) -> list[list[LogProb]]:
        """Of every continuation, in order; an empty one scores 0. Raises CannotScore."""
        ...
