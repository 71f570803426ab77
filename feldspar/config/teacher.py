"""What a recipe may say about the model that writes or judges, and how it is asked."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from feldspar.config.base import Count, Part, Positive, Rate
from feldspar.keys import Place, Speed


class ErrorRates(Part):
    """How often the embedded teacher errs, each drawn independently per call."""

    wrong_fact: Rate = 0.0
    """An answer whose fact or result is wrong."""
    unfaithful: Rate = 0.0
    """An answer that adds a claim the document does not make."""
    off_format: Rate = 0.0
    """A reply the parser cannot read."""
    duplicate: Rate = 0.0
    """A question asked before."""
    unsafe: Rate = 0.0
    """An instruction that asks for harm."""
    wrong_judgment: Rate = 0.0
    """A judgment that is turned around, either way."""


class TeacherConfig(Part):
    """The big model that writes, or judges, over an OpenAI-compatible protocol."""

    endpoint: Place[str] = "embedded"
    """`embedded` starts the micro-world's teacher; else a URL such as `http://localhost:8000/v1`."""
    endpoints: Place[tuple[str, ...]] = ()
    """More servers of the same model: each call goes to the one with the fewest under way, and one
    that fails call after call is left alone for a while."""
    model: str | None = None
    """None takes the first model that the server lists."""
    revision: str = ""
    """Part of the key that answers are kept under: change it when the weights behind a name do."""
    key_variable: Place[str] = "OPENAI_API_KEY"
    """Environment variable that holds the key. Keys never stand in a recipe."""
    errors: ErrorRates = ErrorRates()
    """Rates of the embedded teacher's faults; ignored by any other endpoint."""
    concurrency: Speed[Annotated[int, Field(ge=0)]] = 0
    """Calls in flight. 0 finds the server's limit."""
    max_concurrency: Speed[Count] = 256
    """Upper bound when the limit is found."""
    requests_per_minute: Speed[Count | None] = None
    """Never more, over all servers."""
    tokens_per_minute: Speed[Count | None] = None
    """Prompt and completion tokens; a call counts as the most it can take until it is answered."""
    timeout_seconds: Speed[Positive] = 300.0
    """Longest wait for one answer."""
    max_retries: Speed[Annotated[int, Field(ge=0)]] = 8
    """Attempts after the first, with growing pauses, at a server that is busy or gone."""
    prompt_price: Speed[Annotated[float, Field(ge=0)]] = 0.0
    """Price of a million prompt tokens, in any currency."""
    completion_price: Speed[Annotated[float, Field(ge=0)]] = 0.0
    """Price of a million tokens written."""
    failure_budget: Speed[Rate] = 0.2
    """The run stops when more than this part of the last 200 calls failed for good."""
