"""A teacher within the process, for studies of everything but the network.

Journal, scheduler, retries and budget are the product's; only the request to a server is not made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

from feldspar.config import TeacherConfig
from feldspar.records import Message
from feldspar.serve.protocol import ChatRequest
from feldspar.teacher import Journal, Teacher
from feldspar.teacher.journal import Stored
from feldspar.world.brain import Brain

Answer = Callable[[str, Mapping[str, Any]], Stored]


class LocalTeacher(Teacher):
    """Answers by a function of (stage, what a server would be sent)."""

    def __init__(self, name: str, answer: Answer, journal: Journal, concurrency: int = 64) -> None:
        super().__init__(TeacherConfig(concurrency=concurrency), "local", journal, name, "")
        self._answer = answer

    async def _post(self, call: Any) -> Stored:
        # A server's answer comes later than the call, and so may others between them.
        await asyncio.sleep(0)
        sent = {"messages": call.messages, "seed": call.draw, "max_tokens": call.max_tokens}
        return self._answer(call.stage, sent)


def answer_by(brain: Brain) -> Answer:
    """The embedded teacher's mind, asked directly."""

    def answer(stage: str, sent: Mapping[str, Any]) -> Stored:
        messages = tuple(Message(**message) for message in sent["messages"])
        request = ChatRequest(
            model="",
            messages=messages,
            stage=stage,
            seed=sent["seed"],
            max_tokens=sent["max_tokens"],
        )
        reply = brain.complete(request)
        choice = reply.choices[0]
        return Stored(
            choice.text, choice.finish_reason, reply.prompt_tokens, reply.completion_tokens
        )

    return answer
