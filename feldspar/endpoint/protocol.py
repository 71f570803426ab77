"""A chat protocol: a request's body, and what a reply of it says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from feldspar.endpoint.calls import ChatCall, Completions, Json
from feldspar.endpoint.faults import Fault

BROKEN_OFF = ("error", "abort", "aborted", "cancelled", "canceled")
"""Finish reasons of an answer that the server itself gave up."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ChatProtocol:
    """One way to ask a chat model over HTTP."""

    path: str
    """Behind the endpoint's URL: `/chat/completions`."""
    headers: Callable[[str], dict[str, str]]
    """Of every request, from the key; `faults.NO_SECRET` where there is none."""
    body: Callable[[str, ChatCall], Json]
    """From the model's name and the call."""
    read: Callable[[ChatCall, object], Completions | Fault]
    """The answer in a decoded reply, or why it is none."""


def field(record: object, name: str) -> object:
    """A field of a decoded reply, of which any part may be missing or of another kind."""
    return record.get(name) if isinstance(record, dict) else None


def joined_parts(content: object) -> str:
    """The text of a message: a string, or the text parts of a list, joined.

    [{"type": "thinking", "thinking": "..."}, {"type": "text", "text": "4"}] is "4".
    """
    if isinstance(content, str):
        return content
    if not isinstance(content, list):
        return ""
    texts = [
        part if isinstance(part, str) else field(part, "text")
        for part in content
        if isinstance(part, str) or field(part, "type") in ("text", "output_text", None)
    ]
    return "".join(text for text in texts if isinstance(text, str))
