"""OpenAI's chat completions, as their many servers speak it."""

from __future__ import annotations

from feldspar.endpoint.calls import ChatCall, Completion, Completions, Json, read_usage, sound_text
from feldspar.endpoint.faults import NO_SECRET, Fault, one_line
from feldspar.endpoint.protocol import BROKEN_OFF, ChatProtocol, field, joined_parts

_REASONING = ("reasoning_content", "reasoning")
"""Where servers put a reasoning trace that they keep apart."""

_STOP_TOKENS = (
    *("<|im_end|>", "<|eot_id|>", "<|end|>", "<|endoftext|>", "<|end_of_text|>"),
    *("</s>", "<end_of_turn>"),
)


def bearer(secret: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {secret}"}


def chat_body(model: str, call: ChatCall) -> Json:
    body: Json = {
        "model": model,
        "messages": call.messages,
        "temperature": call.temperature,
        "max_tokens": call.max_tokens,
        "seed": call.seed,
    }
    if call.stop:
        body["stop"] = list(call.stop)
    return body


def read_chat(call: ChatCall, reply: object) -> Completions | Fault:
    """The first choice of a chat completion, or what is wrong with it."""
    choices = field(reply, "choices")
    choice = choices[0] if isinstance(choices, list) and choices else None
    message = field(choice, "message")
    if not isinstance(message, dict):
        return Fault("retry", "an answer without choices")
    text = sound_text(joined_parts(message.get("content")))
    apart = next((t for name in _REASONING if isinstance(t := message.get(name), str)), "")
    usage = field(reply, "usage")
    used = read_usage(
        call,
        field(usage, "prompt_tokens"),
        field(usage, "completion_tokens"),
        len(text) + len(apart),
    )
    reason = field(choice, "finish_reason")
    said_no = message.get("refusal")
    if reason in ("content_filter", "refusal"):
        return Fault("refused", "by the content filter", is_about_content=True, usage=used)
    if isinstance(said_no, str) and said_no and not text.strip():
        return Fault("refused", one_line(said_no), is_about_content=True, usage=used)
    if reason in BROKEN_OFF:
        return Fault("retry", f"an answer that was broken off ({reason})", usage=used)
    if reason in ("length", "max_tokens", "MAX_TOKENS"):
        # Nothing but reasoning may have had room: more room is what mends that.
        return Completions((Completion(text, "length"),), used)
    if not text.strip():
        is_all = reason == "stop" and not apart.strip() and not message.get("tool_calls")
        if not (call.may_be_empty and is_all):
            return _nothing_said(message, reason, bool(apart.strip()))._replace(usage=used)
    return Completions((Completion(text, "stop"),), used)


def _nothing_said(message: Json, reason: object, has_reasoning: bool) -> Fault:
    if reason in ("tool_calls", "function_call") or message.get("tool_calls"):
        return Fault("refused", "it called a tool instead of answering")
    if has_reasoning:
        return Fault(
            "retry",
            "empty answer; the text is in its reasoning field: mend the server's reasoning parser",
        )
    return Fault("retry", "empty answer")


def without_reasoning(text: str) -> str:
    """The answer alone: `<think>2 and 2</think>4` is `4`, and a trace without end is nothing.

    A stop token that a server lets through as text is no part of it either.
    """
    text = text.rstrip()
    while text.endswith(_STOP_TOKENS):
        text = text[: text.rindex("<")].rstrip()
    _, mark, answer = text.rpartition("</think>")
    if mark:
        return answer.strip()
    return "" if text.lstrip().startswith("<think>") else text.strip()


def _headers(secret: str) -> dict[str, str]:
    # Servers that want no key may still want the header.
    return bearer(secret or NO_SECRET)


PROTOCOL = ChatProtocol(path="/chat/completions", headers=_headers, body=chat_body, read=read_chat)
