"""How servers answer in the wild, each by name: what is tolerated, what passes, what refuses.

An oddity makes of a right reply another one, or a fault. `REFUSING` ones are about the call itself;
`PASSING` ones are gone with the next try; `TOLERATED` ones say the same in another form.
"""

from __future__ import annotations

import gzip
import json
import zlib
from collections.abc import Callable
from typing import Any

from fake_teacher import Call, Fault, Reply

Oddity = Callable[[Call, Reply], Reply | Fault]


def message(**changes: Any) -> Oddity:
    def change(call: Call, reply: Reply) -> Reply:
        (choice,) = reply["choices"]
        choice["message"] |= changes
        return reply

    return change


def finish(reason: object, **changes: Any) -> Oddity:
    def change(call: Call, reply: Reply) -> Reply:
        (choice,) = reply["choices"]
        choice["finish_reason"] = reason
        choice["message"] |= changes
        return reply

    return change


def usage(value: object) -> Oddity:
    return lambda call, reply: {**reply, "usage": value}


def sent(**fault: Any) -> Oddity:
    """A fault in place of the reply."""
    return lambda call, reply: Fault(**{"status": 200, **fault})


def error(status: int, message: str = "as the test asked", **more: Any) -> Oddity:
    headers = more.pop("headers", {})
    text = json.dumps({"error": {"message": message, **more}})
    return lambda call, reply: Fault(status, headers, text)


def packed(call: Call, reply: Reply) -> Fault:
    body = gzip.compress(json.dumps(reply).encode())
    return Fault(200, {"Content-Encoding": "gzip"}, body=body)


def more_than_can_be_held() -> bytes:
    """128 MB of spaces in gzip, without its end; made of one block, so that it takes no time."""
    packer = zlib.compressobj(wbits=31)
    first, block = (
        packer.compress(b" " * (1 << 20)) + packer.flush(zlib.Z_FULL_FLUSH) for _ in range(2)
    )
    return first + 127 * block


def as_parts(call: Call, reply: Reply) -> Reply:
    (choice,) = reply["choices"]
    text = choice["message"]["content"]
    half = len(text) // 2
    choice["message"]["content"] = [
        {"type": "thinking", "thinking": [{"type": "text", "text": "hm"}]},
        {"type": "text", "text": text[:half]},
        {"type": "text", "text": text[half:]},
    ]
    return reply


def reasoning_alone(call: Call, reply: Reply) -> Reply:
    (choice,) = reply["choices"]
    text = choice["message"]["content"]
    choice["message"] |= {"content": "", "reasoning_content": text}
    return reply


TOLERATED: dict[str, Oddity] = {
    "content as parts": as_parts,
    "reasoning beside the answer": message(reasoning_content="[Question]\nnot this\n[End]"),
    "reasoning within the answer": lambda call, reply: message(
        content="<think>\nhm\n</think>\n" + reply["choices"][0]["message"]["content"]
    )(call, reply),
    "no usage": usage(None),
    "usage as text": usage("10 tokens"),
    "usage beyond belief": usage({"prompt_tokens": 10**30, "completion_tokens": 10**30}),
    "usage below nothing": usage({"prompt_tokens": -(10**9), "completion_tokens": -1}),
    "usage in fractions": usage({"prompt_tokens": 10.5, "completion_tokens": 4.5}),
    "usage is not a number": usage({"prompt_tokens": float("nan"), "completion_tokens": 5}),
    "finish reason null": finish(None),
    "finish reason unheard of": finish("eos_token"),
    "a mark before the JSON": lambda call, reply: Fault(
        200, body=b"\xef\xbb\xbf" + json.dumps(reply).encode()
    ),
    "as plain text": lambda call, reply: Fault(
        200, {"Content-Type": "text/plain"}, body=json.dumps(reply).encode()
    ),
    "packed, though not asked for": packed,
    "half a character in a field": lambda call, reply: {**reply, "id": "\ud83d"},
    "error: null beside the answer": lambda call, reply: {**reply, "error": None},
}

PASSING: dict[str, Oddity] = {
    "busy": error(429, headers={"Retry-After": "0"}),
    "busy without a word": sent(status=503, text=""),
    "overloaded": error(529, "Overloaded", type="overloaded_error"),
    "broken": error(500),
    "bad gateway in HTML": sent(status=502, body=b"<html>nginx</html>"),
    "timed out at the proxy": error(408),
    "reset": sent(status=0),
    "half a body": sent(body=b'{"id": "x", "choi'),
    "less than was promised": sent(body=b'{"id": "x"', num_promised=99),
    "a byte now and then": sent(body=b" " * 999, pause_seconds=0.05),
    "HTML under 200": sent(body=b"<html>502</html>", headers={"Content-Type": "text/html"}),
    "not UTF-8": sent(body=b'{"choices": "\xff\xfe"}'),
    "deep": sent(body=b"[" * 100_000),
    "a number of 10,000 digits": sent(body=b'{"choices": ' + b"9" * 10_000 + b"}"),
    "more than can be held": sent(
        headers={"Content-Encoding": "gzip"}, body=more_than_can_be_held()
    ),
    "no JSON object": sent(body=b'"ok"'),
    "no choices": lambda call, reply: {**reply, "choices": []},
    "choices null": lambda call, reply: {**reply, "choices": None},
    "choice is a text": lambda call, reply: {**reply, "choices": ["hi"]},
    "empty": message(content=""),
    "blank": message(content=" \n"),
    "null": message(content=None),
    "a number": message(content=4),
    "parts without text": message(content=[{"type": "image_url"}, None, 4]),
    "in the reasoning field alone": reasoning_alone,
    "finish reason error": finish("error"),
    "finish reason abort": finish("abort"),
    "an error under 200": lambda call, reply: {"error": {"message": "upstream", "code": 502}},
    "an error in words under 200": lambda call, reply: {"error": "upstream is overloaded"},
    "an error object under 200": lambda call, reply: {"object": "error", "message": "no worker"},
}

REFUSING: dict[str, Oddity] = {
    "filtered": finish("content_filter"),
    "filtered with 400": error(400, "filtered by the content management policy"),
    "flagged with 403": error(403, "your input was flagged by moderation"),
    "says no": message(content=None, refusal="I cannot help with that."),
    "calls a tool": finish("tool_calls", content=None, tool_calls=[{"id": "c"}]),
    "context": error(
        400, "This model's maximum context length is 512 tokens; max_tokens is too large"
    ),
    "too large": sent(status=413, body=b"<html>413</html>"),
    "unprocessable": error(422),
}
REMEMBERED = {"filtered", "filtered with 400", "flagged with 403", "says no"}
"""Refusals of what the call says: no later run asks again."""
