"""A server's Messages API beside its own chat completions, launched by Feldspar: are they one?

    python benchmarks/messages_server.py MODEL --command 'vllm serve {model} --port {port} ...'

Prints one JSON: how many greedy answers, reasons for ending and token counts are equal by the two
protocols, and what a prompt beyond the context comes to by each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import tempfile
import time
from pathlib import Path
from typing import Literal

from feldspar.config import TeacherConfig
from feldspar.endpoint.calls import ChatCall, Completions
from feldspar.models.opening import unserved_model
from feldspar.records import Message

SYSTEM = Message(role="system", content="Be brief.")
QUESTIONS = [
    *(f"What is {n} + {n + 2}?" for n in range(12)),
    "What is the capital of France?",
    "Name an animal that barks.",
    "Tell a long story.",
    "What is the opposite of hot?",
]
TOO_LONG = "word " * 20_000


def call(question: str) -> ChatCall:
    talk = [SYSTEM, Message(role="user", content=question)]
    return ChatCall(
        messages=[{"role": m.role, "content": m.content} for m in talk],
        max_tokens=24,
        temperature=0.0,
        seed=1,
    )


async def answers(
    command: str, model: str, protocol: Literal["openai", "anthropic"], logs: Path
) -> tuple[list[Completions | BaseException], float]:
    config = TeacherConfig(
        command=command, model=model, protocol=protocol, start_seconds=600, concurrency=1
    )
    launched = unserved_model(config, logs, protocol)
    began = time.monotonic()
    try:
        async with launched:
            await launched.served()
            seconds = time.monotonic() - began
            # One at a time: what else is in a server's batch may change the last bits.
            found: list[Completions | BaseException] = [
                await launched.complete(call(question)) for question in QUESTIONS
            ]
            try:
                found.append(await launched.complete(call(TOO_LONG)))
            except Exception as refused:
                found.append(refused)
            return found, seconds
    finally:
        launched.close()


def told(answer: Completions | BaseException) -> object:
    if isinstance(answer, BaseException):
        return f"{type(answer).__name__}: {str(answer)[:160]}"
    return [answer.choices[0].text, answer.choices[0].finish_reason, *answer.usage]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model")
    parser.add_argument("--command", required=True)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        chat, messages = (
            asyncio.run(answers(asked.command, asked.model, protocol, Path(folder)))
            for protocol in ("openai", "anthropic")
        )
    pairs = [(told(a), told(b)) for a, b in zip(chat[0], messages[0], strict=True)]
    print(
        json.dumps(
            {
                "questions": len(QUESTIONS),
                "equal": sum(a == b for a, b in pairs[:-1]),
                "different": [pair for pair in pairs[:-1] if pair[0] != pair[1]],
                "beyond_context": dict(zip(("chat", "messages"), pairs[-1], strict=True)),
                "ready_after_s": [round(chat[1]), round(messages[1])],
            },
            indent=1,
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
