"""A server's model, for benchmarks: what it is, what it can do, and calls to it.

Log-likelihoods need the log-probabilities of a prompt: `/v1/completions` with `echo` and
`logprobs`, which vLLM has and many others ignore in silence. So a server is tried first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import openai

from feldspar.config import TeacherConfig
from feldspar.endpoint.faults import secret_in
from feldspar.errors import RecipeError, TeacherError

_TRIAL = "One two three"


@dataclass(frozen=True, slots=True, kw_only=True)
class Served:
    """A model behind a URL; `echoes` where it tells the log-probabilities of a prompt."""

    client: openai.OpenAI
    model: str
    key: str
    completes: bool
    echoes: bool

    @property
    def settings(self) -> str:
        # A chat alone puts the server's template around every prompt; completions change nothing.
        return "; served, completions" if self.completes else ", served, chat alone"


class Token(NamedTuple):
    """A token of a prompt as a server tells it; None for the first, which nothing stands before."""

    start: int
    log_prob: float | None
    is_best: bool


def find_served(config: TeacherConfig) -> Served:
    """Find a server's model and try what it can do. Raises TeacherError where nobody answers."""
    client = openai.OpenAI(
        base_url=config.endpoint,
        api_key=secret_in(config.key_variable),
        max_retries=config.max_retries,
        timeout=config.timeout_seconds,
    )
    try:
        model = config.model or client.models.list().data[0].id
    except (openai.OpenAIError, IndexError) as error:
        raise TeacherError(
            f"no model is served at {config.endpoint} ({_first_line(error)}); start the server, or "
            "mend evaluate.server.endpoint"
        ) from error
    completes = echoes = False
    try:
        tokens = echo(client, model, _TRIAL)
        completes, echoes = True, len(tokens) > 1 and tokens[-1].start < len(_TRIAL)
    except (openai.OpenAIError, RecipeError):
        completes = _completes(client, model)
    return Served(
        client=client,
        model=model,
        key=f"{model}@{config.revision} at {config.endpoint}",
        completes=completes,
        echoes=echoes,
    )


def echo(client: openai.OpenAI, model: str, text: str) -> list[Token]:
    """Log-probabilities of a text's own tokens. Raises RecipeError where a server tells none."""
    reply = client.completions.create(
        model=model, prompt=text, echo=True, logprobs=1, max_tokens=1, temperature=0.0
    )
    told: Any = reply.choices[0].logprobs if reply.choices else None
    if told is None or not told.token_logprobs or not told.text_offset:
        raise RecipeError(
            f"the server of {model} tells no log-probabilities of prompts (`echo` and `logprobs`), "
            "which multiple-choice benchmarks need; vLLM's completions do, or score a local folder"
        )
    best = told.top_logprobs or [None] * len(told.token_logprobs)
    return [
        Token(start, log_prob, log_prob is not None and _is_best(log_prob, likeliest))
        for start, log_prob, likeliest in zip(
            told.text_offset, told.token_logprobs, best, strict=True
        )
        if start < len(text)
    ]


def _is_best(log_prob: float, likeliest: dict[str, float] | None) -> bool:
    return likeliest is not None and log_prob >= max(likeliest.values(), default=log_prob)


def _completes(client: openai.OpenAI, model: str) -> bool:
    try:
        reply = client.completions.create(model=model, prompt=_TRIAL, max_tokens=1)
    except openai.OpenAIError:
        return False
    return bool(reply.choices)


def _first_line(error: Exception) -> str:
    return str(error).strip().split("\n")[0]
