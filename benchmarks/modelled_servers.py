"""Modelled servers and their nodes, on a clock that jumps: what a transport reaches, and what a
fleet starts, watches and loses."""

from __future__ import annotations

import asyncio
import math
import random
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from virtual_time import Clock

from feldspar.endpoint.calls import Json
from feldspar.endpoint.endpoint import STAGE_HEADER
from feldspar.endpoint.faults import Fault
from feldspar.endpoint.transport import CONNECT_SECONDS, HttpReply, Transport
from feldspar.models.server import Start

LOST = -1
FULL = 0.95
"""Part of the slots that are busy when servers are counted as full."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Service:
    """Seconds of a call in a slot of a server, by stage: lognormal."""

    medians: Mapping[str, float]
    sigma: float = 0.4

    def draw(self, stage: str, rng: random.Random) -> float:
        return self.medians[stage] * math.exp(self.sigma * rng.gauss(0.0, 1.0))


@dataclass(slots=True)
class Account:
    """What the servers have done, and could have."""

    clock: Clock
    answered_seconds: float = 0.0
    """Service time of calls whose answers arrived, at a sound server's speed."""
    num_answered: int = 0
    num_lost: int = 0
    """Calls that were in flight on a server that was lost."""
    num_busy: int = 0
    num_slots: int = 0
    """Of servers that are up."""
    capacity: float = 0.0
    """The same, each slot times the speed of its server."""
    idle: float = 0.0
    """Slot-seconds of servers that are up, without a call."""
    offered: float = 0.0
    """All of their slot-seconds."""
    idle_before_full: float = 0.0
    idle_at_last_full: float = 0.0
    first_full: float = math.inf
    last_full: float = 0.0
    _counted_to: float = 0.0
    changes: list[tuple[float, float]] = field(default_factory=lambda: [(0.0, 0.0)])

    def change_slots(self, by: int, slowness: float) -> None:
        self._count_idle()
        self.num_slots += by
        self.capacity += by / slowness
        self.changes.append((self.clock.now, self.capacity))

    def change_busy(self, by: int) -> None:
        self._count_idle()
        self.num_busy += by
        if self.num_busy >= FULL * self.num_slots:
            if self.first_full == math.inf:
                self.first_full, self.idle_before_full = self.clock.now, self.idle
            self.last_full, self.idle_at_last_full = self.clock.now, self.idle

    def idle_shares(self) -> tuple[float, float, float]:
        """Of all slot-seconds: idle until the servers were first full, from then until they were
        last full, and from then to the end."""
        self._count_idle()
        return (
            self.idle_before_full / self.offered,
            (self.idle_at_last_full - self.idle_before_full) / self.offered,
            (self.idle - self.idle_at_last_full) / self.offered,
        )

    def _count_idle(self) -> None:
        seconds = self.clock.now - self._counted_to
        self.idle += (self.num_slots - self.num_busy) * seconds
        self.offered += self.num_slots * seconds
        self._counted_to = self.clock.now

    def ideal_seconds(self) -> float:
        """When servers that were never without work would have given the same answers."""
        left, ends = self.answered_seconds, [*self.changes[1:], (math.inf, 0.0)]
        for (begin, capacity), (end, _) in zip(self.changes, ends, strict=True):
            if capacity > 0 and left <= capacity * (end - begin):
                return begin + left / capacity
            left -= capacity * (end - begin) if capacity else 0.0
        return math.inf


class ModelledServer:
    """So many slots, and a queue in front of them. The `Server` of a fleet, too."""

    is_draining = False

    def __init__(self, world: World, number: int, slowness: float) -> None:
        self.url: str | None = None
        self.placed_at: float | None = None
        self.status: int | None = None
        self.log_path = Path("none")
        self.node: int | None = None
        self.is_up = False
        self._world, self._number, self._slowness = world, number, slowness
        self._num_active = 0
        self._queue: deque[tuple[asyncio.Future[Fault | None], float]] = deque()
        self._held: set[asyncio.Future[Fault | None]] = set()

    def fill(self, word: str) -> str:
        return word

    def look(self) -> None:
        if self.placed_at is None and self.status is None:
            self._world.place(self)

    def let_go(self) -> None:
        self._world.leave(self)

    def wait(self) -> None:
        pass

    def place(self, node: int) -> None:
        self.node, self.placed_at = node, self._world.clock.now
        self.url = f"http://server-{self._number}-{len(self._world.by_url)}/v1"
        self._world.by_url[self.url] = self

    def come_up(self) -> None:
        if not self.is_up:
            self.is_up = True
            self._world.account.change_slots(self._world.slots, self._slowness)

    async def serve(self, seconds: float) -> Fault | None:
        """Returns when the answer is there, or with what came instead."""
        if self.status is not None or self.node is None:
            return await self._world.unreachable()
        answer: asyncio.Future[Fault | None] = asyncio.get_running_loop().create_future()
        self._held.add(answer)
        if self._num_active < self._world.slots:
            self._begin(answer, seconds)
        else:
            self._queue.append((answer, seconds))
        try:
            return await answer
        finally:
            self._held.discard(answer)

    def die(self) -> None:
        """With its node: nothing more comes from it, and to be told so may take a while."""
        self.node = None
        if self.is_up:
            self._world.account.change_slots(-self._world.slots, self._slowness)
        self._world.account.num_lost += len(self._held)
        self._world.account.change_busy(-self._num_active)
        loop = asyncio.get_running_loop()
        loop.call_later(self._world.notice_seconds, setattr, self, "status", LOST)
        fault, wait = self._world.hang_up()
        for answer in self._held:
            loop.call_later(wait, _settle, answer, fault)
        self._queue.clear()

    def _begin(self, answer: asyncio.Future[Fault | None], seconds: float) -> None:
        self._num_active += 1
        self._world.account.change_busy(1)
        asyncio.get_running_loop().call_later(seconds * self._slowness, self._end, answer, seconds)

    def _end(self, answer: asyncio.Future[Fault | None], seconds: float) -> None:
        if self.node is None:
            return
        self._num_active -= 1
        account = self._world.account
        account.change_busy(-1)
        if not answer.done():
            account.answered_seconds += seconds
            account.num_answered += 1
            answer.set_result(None)
        while self._queue and self._num_active < self._world.slots:
            waiting, needed = self._queue.popleft()
            if not waiting.done():
                self._begin(waiting, needed)


def _settle(answer: asyncio.Future[Fault | None], fault: Fault) -> None:
    if not answer.done():
        answer.set_result(fault)


class World:
    """Nodes with places for servers; the engine of a fleet, and what a transport reaches."""

    is_replaced = True

    def __init__(
        self,
        clock: Clock,
        *,
        slots: int,
        num_nodes: int,
        per_node: int,
        slow: Mapping[int, float] | None = None,
        boot_seconds: float = 0.0,
        is_silent: bool = False,
        timeout_seconds: float = 300.0,
    ) -> None:
        self.clock, self.slots = clock, slots
        self.boot_seconds = boot_seconds
        self.notice_seconds = 30.0 if is_silent else 1.0
        self.account = Account(clock)
        self.by_url: dict[str, ModelledServer] = {}
        self.num_nodes_lost = 0
        self._is_silent, self._timeout_seconds = is_silent, timeout_seconds
        self._slow = slow or {}
        self._room = dict.fromkeys(range(num_nodes), per_node)
        self._per_node = per_node

    def launch(self, start: Start, number: int) -> ModelledServer:
        # What is started in place of a slow one is sound: the fault is of the node that it had.
        slowness = self._slow.get(number, 1.0) if not self.num_nodes_lost else 1.0
        server = ModelledServer(self, number, slowness)
        self.place(server)
        return server

    def room(self) -> str:
        return f"{sum(self._room.values())} places"

    def place(self, server: ModelledServer) -> None:
        node = next((node for node, room in self._room.items() if room), None)
        if node is not None:
            self._room[node] -= 1
            server.place(node)

    def leave(self, server: ModelledServer) -> None:
        if server.node in self._room:
            self._room[server.node] += 1
        server.node = None

    def lose_nodes(self, every_seconds: float, back_seconds: float) -> None:
        """From now on the fullest node is lost at each interval; another comes in its place."""
        loop = asyncio.get_running_loop()

        def lose() -> None:
            node = next(iter(self._room))
            del self._room[node]
            self.num_nodes_lost += 1
            for server in self.by_url.values():
                if server.node == node:
                    server.die()
            new = node + 1000
            loop.call_later(back_seconds, self._room.__setitem__, new, self._per_node)
            loop.call_later(every_seconds, lose)

        loop.call_later(every_seconds, lose)

    def hang_up(self) -> tuple[Fault, float]:
        """What calls to a node that is lost end in, and after how many seconds."""
        if self._is_silent:
            late = Fault("push back", "no answer in time", is_connection=True)
            return late, self._timeout_seconds / 2
        return Fault("retry", "connection lost", is_connection=True), 0.0

    async def unreachable(self) -> Fault:
        if self._is_silent:
            await asyncio.sleep(CONNECT_SECONDS)
            return Fault("push back", "no answer in time", is_connection=True)
        return Fault("retry", "connection refused", is_connection=True)

    def find(self, url: str) -> ModelledServer:
        base, _, _ = url.partition("/v1")
        return self.by_url[f"{base}/v1"]


class ModelledTransport(Transport):
    """Calls to the servers of a world. `answer` gives the text to a stage's call."""

    def __init__(
        self, world: World, service: Service, answer: Callable[[str, Json], str], seed: int = 1
    ) -> None:
        super().__init__(300.0)
        self._world, self._service, self._answer = world, service, answer
        self._rng = random.Random(seed)

    async def __aenter__(self) -> ModelledTransport:
        return self

    async def __aexit__(self, *_: object) -> None:
        pass

    async def post(self, url: str, body: Json, headers: Mapping[str, str]) -> HttpReply | Fault:
        stage = headers.get(STAGE_HEADER, "")
        server = self._world.find(url)
        fault = await server.serve(self._service.draw(stage, self._rng))
        if fault is not None:
            return fault
        return HttpReply(reply_to(self._answer(stage, body)))

    async def get(self, url: str, headers: Mapping[str, str]) -> HttpReply | Fault:
        server, now = self._world.find(url), self._world.clock.now
        is_up = server.placed_at is not None and now >= server.placed_at + self._world.boot_seconds
        if server.node is None or not is_up:
            return Fault("retry", "connection refused", is_connection=True)
        server.come_up()
        return HttpReply({"data": [{"id": "modelled"}]})


def reply_to(text: str) -> Json:
    """A chat completion that says this."""
    message = {"role": "assistant", "content": text}
    usage = {"prompt_tokens": 500, "completion_tokens": 100}
    return {"choices": [{"message": message, "finish_reason": "stop"}], "usage": usage}
