"""Reading a server's completion, of which any field may be missing or of another kind."""

from __future__ import annotations

from feldspar.teacher.faults import Fault
from feldspar.teacher.journal import Stored


def read_completion(reply: object) -> Stored | Fault:
    """The first choice of a chat completion, or what is wrong with it."""
    choices = _field(reply, "choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = _field(choice, "message")
    if not isinstance(message, dict):
        return Fault("retry", "an answer without choices")
    # Null where a server keeps the reasoning apart and had room for nothing else.
    text = message.get("content")
    reason = _field(choice, "finish_reason")
    if reason == "content_filter":
        return Fault("refused", "by the content filter", is_about_content=True)
    usage = _field(reply, "usage")
    return Stored(
        text=text if isinstance(text, str) else "",
        finish_reason="length" if reason == "length" else "stop",
        prompt_tokens=_count(usage, "prompt_tokens"),
        completion_tokens=_count(usage, "completion_tokens"),
    )


def without_reasoning(text: str) -> str:
    """The answer alone: `<think>2 and 2</think>4` is `4`, and a trace without end is nothing."""
    _, mark, answer = text.rpartition("</think>")
    if mark:
        return answer.strip()
    return "" if text.lstrip().startswith("<think>") else text.strip()


def _field(record: object, name: str) -> object:
    return record.get(name) if isinstance(record, dict) else None


def _count(usage: object, name: str) -> int:
    value = _field(usage, name)
    return value if isinstance(value, int) else 0
