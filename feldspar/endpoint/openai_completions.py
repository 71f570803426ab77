"""OpenAI's text completions: prompts as text or token ids, several choices, and the
log-probabilities of a prompt's own tokens, which servers tell in one of three ways."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from feldspar.endpoint.calls import (
    Completion,
    Completions,
    Json,
    PromptCall,
    read_usage,
    sound_text,
)
from feldspar.endpoint.faults import Fault
from feldspar.endpoint.protocol import BROKEN_OFF, field

PATH = "/completions"
SCORE_WAYS: tuple[Json, ...] = (
    {"prompt_logprobs": 1, "max_tokens": 1, "temperature": 0},
    {"echo": True, "logprobs": 1, "max_tokens": 0, "temperature": 0},
    {"echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0},
)
"""What a request for its prompt's log-probabilities says besides it: vLLM's way, the protocol's,
and that of servers which always write a token."""


MOST_NATS = 1e6
"""No token is less likely. OpenAI writes -9999 for those of no probability."""
ROUNDED_UP = 0.01
"""Log-probabilities above 0 by no more than this are rounded ones."""


class PromptToken(NamedTuple):
    """A token of a prompt, as a server scored it."""

    log_prob: float
    """In nats, given all tokens before it."""
    text: str | None
    """As the server writes it, where it does."""
    start: int | None
    """Characters of the prompt's text before it, where the server says."""
    is_best: bool | None
    """Whether no token was likelier here, where the server says."""


def completions_body(model: str, call: PromptCall) -> Json:
    is_text = isinstance(call.prompt, str)
    body: Json = {
        "model": model,
        "prompt": call.prompt if is_text else list(call.prompt),
        "n": call.num_choices,
        "temperature": call.temperature,
        "top_p": call.top_p,
        "max_tokens": call.max_tokens,
    }
    if call.seed is not None:
        body["seed"] = call.seed
    if call.stop:
        body["stop"] = list(call.stop)
    return body


def read_completions(call: PromptCall, reply: object) -> Completions | Fault:
    """All choices by their index; a server may give fewer than it was asked for, but not none."""
    choices = field(reply, "choices")
    rows = [row for row in choices if isinstance(row, dict)] if isinstance(choices, list) else []
    broken = [reason for row in rows if (reason := row.get("finish_reason")) in BROKEN_OFF]
    if broken:
        return Fault("retry", f"an answer that was broken off ({broken[0]})")
    found = [
        Completion(
            sound_text(row["text"]), "stop" if row.get("finish_reason") == "stop" else "length"
        )
        for row in sorted(rows, key=_index)
        if isinstance(row.get("text"), str)
    ]
    if not found:
        return Fault("retry", "a reply without an answer")
    usage = field(reply, "usage")
    used = read_usage(
        call,
        field(usage, "prompt_tokens"),
        field(usage, "completion_tokens"),
        sum(len(one.text) for one in found),
    )
    return Completions(tuple(found[: call.num_choices]), used)


def score_body(model: str, prompt: str | Sequence[int], way: Json) -> Json:
    return {"model": model, "prompt": prompt if isinstance(prompt, str) else list(prompt), **way}


def ways_for(prompt: str | Sequence[int]) -> tuple[Json, ...]:
    """The ways that can be tried. vLLM's own does not say where in a text its tokens begin."""
    return SCORE_WAYS[1:] if isinstance(prompt, str) else SCORE_WAYS


def read_scores(reply: object, prompt: str | Sequence[int]) -> list[PromptToken] | None:
    """A prompt's tokens from the second on; None where the reply leaves any of them out.

    Of token ids there is one for each but the first. A token that was written after the prompt is
    left off by its place.
    """
    if isinstance(prompt, str):
        found = _read(reply, None)
        if found is None or any(token.start is None for token in found):
            return None
        starts = [token.start or 0 for token in found]
        within = sum(start < len(prompt) for start in starts)
        # At most one token was written after the prompt; more of them are places in bytes.
        is_sound = starts == sorted(starts) and starts[:1] >= [0] and len(found) - within <= 1
        return found[:within] if is_sound else None
    return _read(reply, prompt)


def _read(reply: object, ids: Sequence[int] | None) -> list[PromptToken] | None:
    choices = field(reply, "choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    by_token = field(choice, "prompt_logprobs")
    if isinstance(by_token, list):
        return _by_token(by_token, ids)
    return _echoed(field(choice, "logprobs"), ids)


def _by_token(entries: list[object], ids: Sequence[int] | None) -> list[PromptToken] | None:
    """vLLM's: [None, {"17": {"logprob": -0.2, "rank": 1, "decoded_token": "a"}}, ...]."""
    if ids is not None and len(entries) != len(ids):
        return None
    found = []
    for place, entry in enumerate(entries[1:], start=1):
        if not isinstance(entry, dict) or not entry:
            return None
        # The prompt's own token stands first; by its id where that is known.
        row = entry.get(str(ids[place])) if ids is not None else next(iter(entry.values()))
        value = _number(field(row, "logprob"))
        if value is None:
            return None
        text, rank = field(row, "decoded_token"), field(row, "rank")
        found.append(
            PromptToken(
                value,
                text if isinstance(text, str) else None,
                None,
                rank == 1 if isinstance(rank, int) else None,
            )
        )
    return found


def _echoed(told: object, ids: Sequence[int] | None) -> list[PromptToken] | None:
    """The protocol's: {"token_logprobs": [None, -0.2, ...], "tokens": [...], ...}."""
    values = field(told, "token_logprobs")
    if not isinstance(values, list) or len(values) < 2:
        return None
    if ids is not None and len(values) - len(ids) not in (0, 1):
        return None
    size = len(values) if ids is None else len(ids)
    texts, starts, likeliest = (
        _as_long(field(told, name), len(values))
        for name in ("tokens", "text_offset", "top_logprobs")
    )
    found = []
    for place in range(1, size):
        value = _number(values[place])
        if value is None:
            return None
        text, start, best = texts[place], starts[place], likeliest[place]
        others = (
            [n for v in best.values() if (n := _number(v)) is not None]
            if isinstance(best, dict)
            else []
        )
        found.append(
            PromptToken(
                value,
                text if isinstance(text, str) else None,
                start if isinstance(start, int) else None,
                value >= max(others) if others else None,
            )
        )
    return found


def _as_long(values: object, size: int) -> list[object]:
    return values if isinstance(values, list) and len(values) == size else [None] * size


def _number(value: object) -> float | None:
    """A log-probability; None for what cannot be one."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if -MOST_NATS <= value <= ROUNDED_UP else None


def _index(row: Json) -> int:
    index = row.get("index")
    return index if isinstance(index, int) else 0
