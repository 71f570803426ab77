"""Anthropic's Messages API: the system prompt apart, content in parts, and no seed."""

from __future__ import annotations

from feldspar.endpoint.calls import ChatCall, Completion, Completions, Json, read_usage, sound_text
from feldspar.endpoint.faults import Fault
from feldspar.endpoint.openai_chat import bearer
from feldspar.endpoint.protocol import ChatProtocol, field, joined_parts

VERSION = "2023-06-01"
"""The last one that takes a temperature, which a teacher's draws and a judge need. Models that take
none refuse it by name, and it is given up aloud."""
_SHOWN_TO_CACHE = ("cache_creation_input_tokens", "cache_read_input_tokens")
"""Counted apart from `input_tokens`, and paid for."""


def _headers(secret: str) -> dict[str, str]:
    # Anthropic goes by the first; vLLM, which speaks this protocol too, by the second.
    return {"x-api-key": secret, "anthropic-version": VERSION, **bearer(secret)}


def messages_body(model: str, call: ChatCall) -> Json:
    system = "\n\n".join(m["content"] for m in call.messages if m["role"] == "system")
    body: Json = {
        "model": model,
        "max_tokens": call.max_tokens,
        "messages": [m for m in call.messages if m["role"] != "system"],
        "temperature": call.temperature,
    }
    if system:
        body["system"] = system
    if call.stop:
        body["stop_sequences"] = list(call.stop)
    return body


def read_message(call: ChatCall, reply: object) -> Completions | Fault:
    """The text of a message, or what is wrong with it.

    {"type": "message", "content": [{"type": "text", "text": "4"}], "stop_reason": "end_turn",
    "usage": {"input_tokens": 9, "output_tokens": 1}}
    """
    content = field(reply, "content")
    if not isinstance(content, list):
        return Fault("retry", "an answer without content")
    text = sound_text(joined_parts(content))
    thoughts = [t for part in content if isinstance(t := field(part, "thinking"), str)]
    usage = field(reply, "usage")
    used = read_usage(
        call, _read(usage), field(usage, "output_tokens"), len(text) + sum(map(len, thoughts))
    )
    reason = field(reply, "stop_reason")
    if reason == "refusal":
        return Fault("refused", "by the model's own rules", is_about_content=True, usage=used)
    if reason in ("max_tokens", "model_context_window_exceeded"):
        return Completions((Completion(text, "length"),), used)
    if reason == "tool_use" and not text.strip():
        return Fault("refused", "it called a tool instead of answering", usage=used)
    if not text.strip() and not (call.may_be_empty and reason == "end_turn" and not thoughts):
        return Fault("retry", "empty answer", usage=used)
    return Completions((Completion(text, "stop"),), used)


def _read(usage: object) -> object:
    """All tokens of the prompt, those of the cache included; the bare field where odd."""
    prompt = field(usage, "input_tokens")
    cached = [field(usage, name) for name in _SHOWN_TO_CACHE]
    if not isinstance(prompt, int):
        return prompt
    return prompt + sum(n for n in cached if isinstance(n, int))


PROTOCOL = ChatProtocol(path="/messages", headers=_headers, body=messages_body, read=read_message)
