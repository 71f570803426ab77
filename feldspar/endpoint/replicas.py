"""Several servers of one model: each call goes to the one with the fewest under way for its pace.

A server that takes longer for its calls than the others do gets fewer: else the last calls of a
run would stand in its queue when all others are idle. A server that fails call after call is left
alone for a while, then tried with a single call; the others take its share meanwhile. Servers may
join, leave and be lost at any time, from another thread too.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import NamedTuple, TypeVar

from feldspar.endpoint.faults import Fault

FAILURES_IN_A_ROW = 5
"""Failed calls, with none answered between them, after which a server is left alone."""
FIRST_REST_SECONDS = 5.0
LONGEST_REST_SECONDS = 120.0
_LEAST_TIMED = 16
"""Calls that a server has answered when its pace is told; by four times as many it is forgotten
by half."""
_MUCH_SLOWER = 1.5
"""Below this many times the usual seconds a call, a server is one like the others."""
T = TypeVar("T")


class ServersHealth(NamedTuple):
    """How many servers may be asked now, of all; none of none where no server is needed."""

    num_well: int = 0
    num_all: int = 0


class Replica:
    """One address, and how it has done."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.num_in_flight = 0
        self.rests_until = 0.0
        """While this is ahead the server is left alone; 0 when it is well."""
        self.has_answered = False
        self.slowness = 1.0
        """Its seconds a call by those of the others; 1 where they are much alike."""
        self._call_seconds = 0.0
        """Of all its calls together, those under way included."""
        self._num_timed = 0.0
        self._counted_at = 0.0
        self._num_failed = 0
        self._rest_seconds = FIRST_REST_SECONDS
        self._is_lost = False
        self._loop: asyncio.AbstractEventLoop | None = None
        self._scopes: set[asyncio.Timeout] = set()

    async def unless_lost(self, reply: Awaitable[T]) -> T | Fault:
        """What comes back from it; a fault at once when it is lost meanwhile. A node that is gone
        closes no connections, and its calls would hang until they time out."""
        self._loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(0 if self._is_lost else None) as scope:
                self._scopes.add(scope)
                try:
                    return await reply
                finally:
                    self._scopes.discard(scope)
        except TimeoutError:
            if not scope.expired():
                raise
            return Fault("retry", "its server was lost", is_connection=True)

    def lose(self) -> None:
        """Calls on it are given up. From any thread."""
        self._is_lost = True
        if self._loop is not None:
            # A loop that was closed meanwhile has no calls.
            with suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._give_up)

    def _give_up(self) -> None:
        for scope in self._scopes:
            scope.reschedule(0)

    def is_ready(self, now: float) -> bool:
        """Whether it may be asked: once after a rest, until that call has come back."""
        return now >= self.rests_until and not (self.rests_until and self.num_in_flight)

    @property
    def pace(self) -> float | None:
        """Seconds a call: by Little's law, calls under way over calls that come back. None while
        there are too few."""
        return self._call_seconds / self._num_timed if self._num_timed >= _LEAST_TIMED else None

    def begin(self, now: float) -> None:
        """A call goes to it."""
        self._count(now)
        self.num_in_flight += 1

    def _count(self, now: float) -> None:
        self._call_seconds += self.num_in_flight * (now - self._counted_at)
        self._counted_at = now

    def end(self, fault: Fault | None, now: float) -> None:
        """A call has come back. Refusals, and calls turned away as too many, are no failures."""
        self._count(now)
        self.num_in_flight -= 1
        if fault is None:
            self._num_timed += 1
        if self._num_timed >= 4 * _LEAST_TIMED:
            self._num_timed, self._call_seconds = self._num_timed / 2, self._call_seconds / 2
        has_failed = fault is not None and (
            fault.kind == "retry" or fault.is_connection or fault.status == 503
        )
        if not has_failed:
            self.has_answered = True
            self._num_failed, self.rests_until = 0, 0.0
            self._rest_seconds = FIRST_REST_SECONDS
            return
        self._num_failed += 1
        if self._num_failed < FAILURES_IN_A_ROW:
            return
        # Rests are for what fails; with its timeouts in its pace it would not be tried after them.
        self._num_timed, self._call_seconds, self.slowness = 0, 0.0, 1.0
        if now >= self.rests_until:
            self.rests_until = now + self._rest_seconds
            self._rest_seconds = min(LONGEST_REST_SECONDS, 2 * self._rest_seconds)


class Replicas:
    """Who is asked next."""

    def __init__(self, urls: Sequence[str], clock: Callable[[], float] = time.monotonic) -> None:
        self.all = [Replica(url) for url in urls]
        self._clock = clock
        self._num_ended = 0

    def add(self, url: str) -> Replica:
        """One more to be asked from now on."""
        replica = Replica(url)
        # A new list: whoever goes through the old one is not disturbed.
        self.all = [*self.all, replica]
        return replica

    def remove(self, replica: Replica) -> None:
        """It gets no more calls; those in flight on it come back as they may."""
        self.all = [other for other in self.all if other is not replica]

    def lose(self, replica: Replica) -> None:
        """It is gone, and calls in flight on it with it: they are told so at once."""
        self.remove(replica)
        replica.lose()

    def health(self) -> ServersHealth:
        """Those that failed call after call are not well until one came back."""
        return ServersHealth(sum(not server.rests_until for server in self.all), len(self.all))

    def begin(self) -> Replica | None:
        """The server that has the fewest calls for its pace; where all rest, the one that has
        rested longest. None where there is none."""
        if not self.all:
            return None
        now = self._clock()
        ready = [server for server in self.all if server.is_ready(now)]
        if ready:
            server = min(ready, key=lambda server: (server.num_in_flight + 1) * server.slowness)
        else:
            server = min(self.all, key=lambda server: (server.rests_until, server.num_in_flight))
        server.begin(now)
        return server

    def end(self, server: Replica, fault: Fault | None) -> None:
        server.end(fault, self._clock())
        self._num_ended += 1
        if self._num_ended % _LEAST_TIMED == 0:
            self._compare()

    def _compare(self) -> None:
        """Tell the slow from the others, by the median of all paces."""
        paces = sorted(pace for server in self.all if (pace := server.pace) is not None)
        usual = paces[(len(paces) - 1) // 2] if paces else 0.0
        for server in self.all:
            times = (server.pace or 0.0) / usual if usual > 0 else 1.0
            server.slowness = times if times >= _MUCH_SLOWER else 1.0
