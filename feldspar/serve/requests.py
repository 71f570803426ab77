"""A request body read strictly: what is not supported is refused, never ignored in silence."""

import json
from collections.abc import Mapping
from typing import Any

from feldspar.records import Message, Role
from feldspar.serve.protocol import ChatRequest, RequestError, TextRequest

MAX_CHOICES = 128
"""Largest `n`, and most prompts of one request."""
MAX_MESSAGES = 1024
"""Of one conversation."""

_ROLES: Mapping[object, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_BASIC = frozenset(["model", "n", "seed", "temperature", "max_tokens", "stop"])
_CHAT = _BASIC | {"messages", "max_completion_tokens"}
_DRAWN = frozenset(["top_p", "stream", "stream_options", "logprobs"])
"""What a model of one's own can do beside, and the embedded teacher cannot."""
_ANY_VALUE = frozenset(["user", "metadata", "store", "service_tier"])
_WITHOUT_EFFECT: Mapping[str, tuple[object, ...]] = {
    "stream": (False,),
    "top_p": (1,),
    "presence_penalty": (0,),
    "frequency_penalty": (0,),
    "repetition_penalty": (1,),
    "length_penalty": (1,),
    "top_k": (0, -1),
    "min_p": (0,),
    "logprobs": (False,),
    "logit_bias": ({},),
    "tools": ([],),
    "functions": ([],),
    "tool_choice": ("none", "auto"),
    "function_call": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "ignore_eos": (False,),
    "skip_special_tokens": (True,),
    "best_of": (1,),
    "suffix": ("",),
}
"""Values that change nothing, as clients send them by default; any other is refused."""
MAX_LIKELIEST = 20
"""Largest `top_logprobs`, or `logprobs` of a text."""


def read_request(body: bytes, stage: str = "", *, is_drawn: bool = False) -> ChatRequest:
    """Read a body of /v1/chat/completions; `is_drawn` where log-probabilities, `top_p` and streams
    are available.

    Raises RequestError: 400 where it is not a JSON object, 422 where a value is wrong or not
    supported.
    """
    fields = _fields(body)
    _refuse_unsupported(fields, _CHAT | _DRAWN | {"top_logprobs"} if is_drawn else _CHAT)
    name = "max_completion_tokens"
    if fields.get(name) is None:
        name = "max_tokens"
    num_log_probs = None
    if is_drawn and _truth(fields, "logprobs"):
        num_log_probs = _integer(fields, "top_logprobs", 0, MAX_LIKELIEST) or 0
    return ChatRequest(
        messages=_messages(fields.get("messages")),
        max_tokens=_integer(fields, name, 1, 2**31),
        num_log_probs=num_log_probs,
        stage=stage,
        **_drawing(fields, is_drawn=is_drawn),
    )


def read_text_request(body: bytes, stage: str = "") -> TextRequest:
    """Read a body of /v1/completions. Raises RequestError as `read_request` does."""
    fields = _fields(body)
    _refuse_unsupported(fields, _BASIC | _DRAWN | {"prompt", "echo"})
    echo = _truth(fields, "echo")
    max_tokens = _integer(fields, "max_tokens", 0 if echo else 1, 2**31)
    return TextRequest(
        prompts=_prompts(fields.get("prompt")),
        echo=echo,
        # The protocol's own default.
        max_tokens=16 if max_tokens is None else max_tokens,
        num_log_probs=_integer(fields, "logprobs", 0, MAX_LIKELIEST),
        stage=stage,
        **_drawing(fields, is_drawn=True),
    )


def _fields(body: bytes) -> dict[str, object]:
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(400, "the body must be a JSON object")
    _refuse_surrogates(body, fields)
    return fields


def _refuse_surrogates(body: bytes, fields: dict[str, object]) -> None:
    """Half of a character, which JSON can spell and no text can hold."""
    if b"\\u" not in body:
        return
    try:
        json.dumps(fields, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        half = f"\\u{ord(error.object[error.start]):04x}"
        message = f"the body holds half of a character ({half}): send whole ones"
        raise RequestError(400, message) from None


def _drawing(fields: Mapping[str, object], *, is_drawn: bool) -> dict[str, Any]:
    """What chat and text requests have in common."""
    choices = _integer(fields, "n", 1, MAX_CHOICES)
    temperature, top_p = (_number(fields, name, high) for name, high in _NUMBERS)
    options = fields.get("stream_options") or {}
    if not isinstance(options, dict):
        raise _wrong("stream_options", "an object", options)
    return {
        "model": _text(fields, "model"),
        "n": 1 if choices is None else choices,
        "seed": _integer(fields, "seed", -(2**63), 2**63 - 1),
        "temperature": 1.0 if temperature is None else temperature,
        "top_p": 1.0 if top_p is None else top_p,
        "stop": _stop(fields.get("stop")),
        "stream": is_drawn and _truth(fields, "stream"),
        "include_usage": _truth(options, "include_usage"),
    }


_NUMBERS = (("temperature", 2), ("top_p", 1))


def _refuse_unsupported(fields: Mapping[str, object], supported: frozenset[str]) -> None:
    for name, value in fields.items():
        if value is None or name in supported or name in _ANY_VALUE:
            continue
        if value not in _WITHOUT_EFFECT.get(name, ()):
            shown = ", ".join(sorted(supported))
            message = f"{name[:60]} is not supported here: leave it out; supported are {shown}"
            raise RequestError(422, message, name, "unsupported_parameter")


def _text(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not value:
        raise _wrong(name, "a text", value)
    return value


def _integer(fields: Mapping[str, object], name: str, low: int, high: int) -> int | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not low <= value <= high:
        raise _wrong(name, f"an integer from {low} to {high}", value)
    return value


def _number(fields: Mapping[str, object], name: str, high: int) -> float | None:
    value = fields.get(name)
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= high:
        raise _wrong(name, f"a number from 0 to {high}", value)
    return float(value)


def _truth(fields: Mapping[str, object], name: str) -> bool:
    value = fields.get(name)
    if value is not None and not isinstance(value, bool):
        raise _wrong(name, "true or false", value)
    return bool(value)


def _prompts(value: object) -> tuple[str | tuple[int, ...], ...]:
    """A text, a list of texts, token ids, or a list of lists of them."""
    rows = value if isinstance(value, list) and not _are_ids(value) else [value]
    prompts = [tuple(row) if _are_ids(row) else row for row in rows if isinstance(row, list | str)]
    if not rows or len(prompts) < len(rows) or any(isinstance(p, list) for p in prompts):
        raise _wrong("prompt", "a text, token ids, or a list of either", value)
    if len(rows) > MAX_CHOICES:
        raise RequestError(422, f"prompt must be at most {MAX_CHOICES} prompts", "prompt")
    return tuple(p for p in prompts if isinstance(p, str | tuple))


def _are_ids(value: object) -> bool:
    return (
        isinstance(value, list)
        and bool(value)
        and all(isinstance(i, int) and not isinstance(i, bool) and i >= 0 for i in value)
    )


def _stop(value: object) -> tuple[str, ...]:
    texts = [value] if isinstance(value, str) else value
    if texts is None:
        return ()
    if not isinstance(texts, list) or not all(isinstance(text, str) and text for text in texts):
        raise _wrong("stop", "a text or a list of texts", value)
    return tuple(texts)


def _messages(value: object) -> tuple[Message, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong("messages", "a list with at least one message", value)
    if len(value) > MAX_MESSAGES:
        raise RequestError(422, f"messages must be at most {MAX_MESSAGES} messages", "messages")
    return tuple(_message(row, f"messages[{index}]") for index, row in enumerate(value))


def _message(row: object, place: str) -> Message:
    if not isinstance(row, dict):
        raise _wrong(place, "an object with role and content", row)
    role = row.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise _wrong(f"{place}.role", f"one of {', '.join(map(str, _ROLES))}", role)
    content = row.get("content")
    if content is None and role == "assistant":
        # What clients keep of an answer without text.
        content = ""
    return Message(role=_ROLES[role], content=_content(content, f"{place}.content"))


def _content(value: object, place: str) -> str:
    """A text, or a list of text parts: [{"type": "text", "text": "..."}]."""
    if isinstance(value, str):
        return value
    texts = [_part(part) for part in value] if isinstance(value, list) else [None]
    if any(text is None for text in texts):
        raise _wrong(place, "a text, or a list of text parts", value)
    return "".join(text for text in texts if text is not None)


def _part(part: object) -> str | None:
    if not isinstance(part, dict) or part.get("type") != "text":
        return None
    text = part.get("text")
    return text if isinstance(text, str) else None


def _wrong(name: str, wanted: str, value: object) -> RequestError:
    shown = json.dumps(value)
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    return RequestError(422, f"{name} must be {wanted}, got {shown}", name)
