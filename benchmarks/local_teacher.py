"""A teacher within the process, for studies of everything but the network.

Journal and budget are the product's; only the model is a function.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from feldspar.config import TeacherConfig
from feldspar.endpoint.calls import ChatCall, Completion, Completions, PromptCall, Usage
from feldspar.endpoint.concurrency import Governor
from feldspar.endpoint.endpoint import UNHURRIED, Turn
from feldspar.endpoint.replicas import ServersHealth
from feldspar.models.model import CannotScore, Continuations, LogProb
from feldspar.progress import SILENT, Progress
from feldspar.records import Message
from feldspar.serve.protocol import ChatRequest
from feldspar.teacher import Journal, Teacher
from feldspar.world.brain import Brain

Answer = Callable[[str, Mapping[str, Any]], Completions]


class FunctionModel:
    """Answers by a function of (stage, what a server would be sent)."""

    revision = ""
    place = "within the process"

    def __init__(self, name: str, answer: Answer, concurrency: int) -> None:
        self.name = self.key = self.answers_key = name
        self._answer = answer
        self._governor = Governor(concurrency, concurrency)

    @property
    def concurrency(self) -> int:
        return self._governor.limit

    @property
    def health(self) -> ServersHealth:
        return ServersHealth()

    async def __aenter__(self) -> FunctionModel:
        self._governor.drain(False)
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    def drain(self) -> None:
        self._governor.drain()

    async def complete(self, call: ChatCall | PromptCall, turn: Turn = UNHURRIED) -> Completions:
        assert isinstance(call, ChatCall)
        ticket = await self._governor.acquire(turn.stage, turn.urgency)
        try:
            await turn.admit()
            # A server's answer comes later than the call, and so may others between them.
            await asyncio.sleep(0)
            sent = {"messages": call.messages, "seed": call.seed, "max_tokens": call.max_tokens}
            return self._answer(turn.stage, sent)
        finally:
            self._governor.release(ticket, "answered")

    async def score(
        self, rows: Sequence[Continuations], progress: Progress = SILENT
    ) -> list[list[LogProb]]:
        raise CannotScore("is a function")


class LocalTeacher(Teacher):
    """A durable teacher over a function."""

    def __init__(self, name: str, answer: Answer, journal: Journal, concurrency: int = 64) -> None:
        super().__init__(FunctionModel(name, answer, concurrency), TeacherConfig(), journal)


def answer_by(brain: Brain) -> Answer:
    """The embedded teacher's mind, asked directly."""

    def answer(stage: str, sent: Mapping[str, Any]) -> Completions:
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
        reason = "length" if choice.finish_reason == "length" else "stop"
        usage = Usage(reply.prompt_tokens, reply.completion_tokens)
        return Completions((Completion(choice.text, reason),), usage)

    return answer
