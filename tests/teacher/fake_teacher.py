"""A teacher for tests: a real OpenAI-compatible server in a thread, that can add and look up.

Its answers are functions of the call's content; faults and latencies are functions a test gives.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import random
import re
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from aiohttp import web


@dataclass
class Call:
    """A request as the server saw it; `attempt` counts from 1 for the same body."""

    body: dict[str, Any]
    stage: str
    attempt: int

    @property
    def prompt(self) -> str:
        return self.body["messages"][0]["content"]

    @property
    def rng(self) -> random.Random:
        return random.Random(json.dumps(self.body, sort_keys=True))

    def section(self, name: str) -> str:
        match = re.search(rf"^### {name}\n(.*?)(?=^### |\Z)", self.prompt, re.S | re.M)
        return match[1].strip() if match else ""


@dataclass
class Fault:
    """`status` 0 resets the connection."""

    status: int
    headers: dict[str, str] = field(default_factory=dict)
    text: str = json.dumps({"error": {"message": "as the test asked"}})
    body: bytes | None = None
    """Sent as it is, in place of `text`."""
    num_promised: int = 0
    """Bytes that the reply promises beyond those that come."""
    pause_seconds: float = 0.0
    """Between its bytes."""


Reply = dict[str, Any]


def answer_as_expert(call: Call) -> str:
    """Right answers to sums and to `The home of X is Y.`; judges say yes to all but bombs."""
    if call.stage.startswith("judge"):
        bad = "bomb" in call.section("Question")
        if call.stage == "judge-answer":
            return f"Explanation: seen.\nRating: {1 if bad else 3}"
        return f"Explanation: seen.\nVerdict: {'NO' if bad else 'YES'}"
    if call.stage == "skill-answer":
        numbers = [int(n) for n in re.findall(r"\d+", call.section("Question"))]
        return f"{' + '.join(map(str, numbers))} = {sum(numbers)}."
    count, rng = int(call.section("How many")), call.rng
    if call.stage == "knowledge-pairs":
        homes = re.findall(r"The home of (\w+) is (\w+)\.", call.section("Document"))
        chosen = [rng.choice(homes) for _ in range(count)]
        return "\n".join(
            f"[Question]\nWhere does {name} live?\n[Answer]\n{name} lives in {town}.\n[End]"
            for name, town in chosen
        )
    if call.stage == "skill-context":
        return "\n".join(f"[Context]\nBasket {rng.randrange(10**6)}\n[End]" for _ in range(count))
    sums = [(rng.randrange(100), rng.randrange(100)) for _ in range(count)]
    return "\n".join(f"[Question]\nWhat is {a} + {b}?\n[End]" for a, b in sums)


class FakeTeacher:
    """`with FakeTeacher(...) as server:` serves at `server.url` until the end of the block."""

    def __init__(
        self,
        answer: Callable[[Call], str] = answer_as_expert,
        *,
        fault: Callable[[Call], Fault | None] = lambda call: None,
        seconds: Callable[[Call], float] = lambda call: 0.0,
        finish: Callable[[Call], str] = lambda call: "stop",
        odd: Callable[[Call, Reply], Reply | Fault] = lambda call, reply: reply,
        card: dict[str, Any] | None = None,
    ) -> None:
        """`odd` makes something else of a right reply."""
        self.answer, self.fault, self.seconds, self.finish = answer, fault, seconds, finish
        self.odd = odd
        self.card = card or {"id": "expert"}
        self.calls: list[Call] = []
        self.served: Counter[str] = Counter()
        """Answers given in full, by body."""
        self.num_in_flight = self.peak_in_flight = 0
        self.authorizations: set[str] = set()
        self._attempts: Counter[str] = Counter()

    @property
    def num_served(self) -> int:
        return self.served.total()

    def stages(self) -> Counter[str]:
        return Counter(call.stage for call in self.calls)

    def __enter__(self) -> FakeTeacher:
        started = threading.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._run, args=(started,))
        self._thread.start()
        started.wait()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join()
        self._loop.close()

    def _run(self, started: threading.Event) -> None:
        self._loop.run_until_complete(self._serve(started))

    async def _serve(self, started: threading.Event) -> None:
        self._stop = asyncio.Event()
        app = web.Application()
        app.router.add_get("/v1/models", self._models)
        app.router.add_post("/v1/chat/completions", self._complete)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        port = runner.addresses[0][1]
        self.url = f"http://127.0.0.1:{port}/v1"
        started.set()
        await self._stop.wait()
        await runner.cleanup()

    async def _models(self, request: web.Request) -> web.Response:
        self.authorizations.add(request.headers.get("Authorization", ""))
        return web.json_response({"object": "list", "data": [{"object": "model", **self.card}]})

    async def _complete(self, request: web.Request) -> web.StreamResponse:
        self.num_in_flight += 1
        self.peak_in_flight = max(self.peak_in_flight, self.num_in_flight)
        try:
            return await self._answer(request)
        finally:
            self.num_in_flight -= 1

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        raw = await request.read()
        key = hashlib.sha256(raw).hexdigest()
        self._attempts[key] += 1
        stage = request.headers.get("X-Feldspar-Stage", "")
        call = Call(json.loads(raw), stage, self._attempts[key])
        self.calls.append(call)
        fault = self.fault(call)
        if fault is not None:
            return await send_fault(request, fault)
        await asyncio.sleep(self.seconds(call))
        reply = self.odd(call, self._reply(call))
        if isinstance(reply, Fault):
            return await send_fault(request, reply)
        self.served[key] += 1
        return web.json_response(reply)

    def _reply(self, call: Call) -> Reply:
        message = {"role": "assistant", "content": self.answer(call)}
        return {
            "id": "x",
            "object": "chat.completion",
            "created": 0,
            "model": call.body["model"],
            "choices": [{"index": 0, "message": message, "finish_reason": self.finish(call)}],
            "usage": {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15},
        }


async def send_fault(request: web.Request, fault: Fault) -> web.StreamResponse:
    # None where the client has gone meanwhile.
    connection = request.transport
    if fault.status == 0 and connection is not None:
        connection.abort()
    if fault.status == 0 or connection is None:
        return web.Response()
    body = fault.text.encode() if fault.body is None else fault.body
    headers = {"Content-Type": "application/json", **fault.headers}
    if not fault.num_promised and not fault.pause_seconds:
        return web.Response(status=fault.status, headers=headers, body=body)
    response = web.StreamResponse(status=fault.status, headers=headers)
    response.content_length = len(body) + fault.num_promised
    await response.prepare(request)
    step = 1 if fault.pause_seconds else len(body)
    with contextlib.suppress(ConnectionError):
        for start in range(0, len(body), step):
            await response.write(body[start : start + step])
            await asyncio.sleep(fault.pause_seconds)
    connection.close()
    return response
