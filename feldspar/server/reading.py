"""A request body read strictly: what is not supported is refused, never ignored in silence."""

import json
from collections.abc import Mapping

from feldspar.records import Message, Role
from feldspar.server.protocol import ChatRequest, RequestError

MAX_CHOICES = 128
"""Largest `n`."""

_ROLES: Mapping[object, Role] = {
    "system": "system",
    "developer": "system",
    "user": "user",
    "assistant": "assistant",
}
_SUPPORTED = frozenset(
    ["model", "messages", "n", "seed", "temperature", "max_tokens", "max_completion_tokens", "stop"]
)
_ANY_VALUE = frozenset(["user", "metadata", "store", "service_tier"])
_WITHOUT_EFFECT: Mapping[str, object] = {
    "stream": False,
    "top_p": 1,
    "presence_penalty": 0,
    "frequency_penalty": 0,
    "logprobs": False,
    "logit_bias": {},
    "tools": [],
    "response_format": {"type": "text"},
}


def read_request(body: bytes, stage: str = "") -> ChatRequest:
    """Read a body of /v1/chat/completions.

    Raises RequestError: 400 where it is not a JSON object, 422 where a value is wrong or not
    supported.
    """
    try:
        fields = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise RequestError(400, f"the body is not JSON: {error}") from None
    if not isinstance(fields, dict):
        raise RequestError(400, "the body must be a JSON object")
    _refuse_unsupported(fields)
    name = "max_completion_tokens"
    if fields.get(name) is None:
        name = "max_tokens"
    temperature = fields.get("temperature")
    choices = _integer(fields, "n", 1, MAX_CHOICES)
    return ChatRequest(
        model=_text(fields, "model"),
        messages=_messages(fields.get("messages")),
        n=1 if choices is None else choices,
        seed=_integer(fields, "seed", -(2**63), 2**63 - 1),
        temperature=1.0 if temperature is None else _temperature(temperature),
        max_tokens=_integer(fields, name, 1, 2**31),
        stop=_stop(fields.get("stop")),
        stage=stage,
    )


def _refuse_unsupported(fields: Mapping[str, object]) -> None:
    for name, value in fields.items():
        if value is None or name in _SUPPORTED or name in _ANY_VALUE:
            continue
        if name not in _WITHOUT_EFFECT or value != _WITHOUT_EFFECT[name]:
            supported = ", ".join(sorted(_SUPPORTED))
            message = f"{name} is not supported here: leave it out; supported are {supported}"
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


def _temperature(value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool) or not 0 <= value <= 2:
        raise _wrong("temperature", "a number from 0 to 2", value)
    return float(value)


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
    return tuple(_message(row, f"messages[{index}]") for index, row in enumerate(value))


def _message(row: object, place: str) -> Message:
    if not isinstance(row, dict):
        raise _wrong(place, "an object with role and content", row)
    role = row.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise _wrong(f"{place}.role", f"one of {', '.join(map(str, _ROLES))}", role)
    return Message(role=_ROLES[role], content=_content(row.get("content"), f"{place}.content"))


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
