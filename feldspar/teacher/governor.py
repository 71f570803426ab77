"""How many calls are in flight: as many as a recipe says, or as many as the server bears.

Found in rounds of at least 32 calls. A full round without push-back doubles the limit; after the
first push-back it grows by a step a round. Push-back is a share of calls that the server turned
away or left to time out (the limit shrinks by 0.7), or latency that rose nearly as fast as the
limit did, which means that calls only wait in the server's queue (back to the limit before).
"""

from __future__ import annotations

import asyncio
import heapq
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

FIRST_LIMIT = 8
ROUND_CALLS = 32
PUSHED_BACK_SHARE = 0.1
"""Lone refusals of a server with faults are no push-back; a tenth of a round is."""
RISING = 1.7
"""Twice the calls at 1.7 times the latency is hardly more work done."""

Outcome = Literal["answered", "pushed back", "failed"]


class Ticket(NamedTuple):
    """The right to one call; hand it back with `release`."""

    round: int
    stage: str
    started: float


class Governor:
    """Admits the most urgent calls first, and else in the order they come.

    `fixed` calls at once or, where that is 0, up to `maximum`.
    """

    def __init__(
        self, fixed: int, maximum: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = fixed or min(FIRST_LIMIT, maximum)
        self.num_in_flight = 0
        self._is_fixed = bool(fixed)
        self._maximum = maximum
        self._clock = clock
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._num_queued = 0
        self._is_doubling = True
        self._calm: dict[str, list[float]] = {}
        self._round = 0
        self._start_round()

    async def acquire(self, stage: str, urgency: int = 0) -> Ticket:
        if self.num_in_flight >= self.limit or self._waiting:
            self._was_full = True
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._num_queued += 1
            heapq.heappush(self._waiting, (-urgency, self._num_queued, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.num_in_flight -= 1
                    self._admit()
                raise
        else:
            self.num_in_flight += 1
        return Ticket(self._round, stage, self._clock())

    def release(self, ticket: Ticket, outcome: Outcome) -> None:
        self.num_in_flight -= 1
        # A call that began before the limit changed says nothing about the new one.
        if not self._is_fixed and ticket.round == self._round:
            self._observe(ticket, outcome)
        self._admit()

    def _admit(self) -> None:
        while self._waiting and self.num_in_flight < self.limit:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self.num_in_flight += 1
                turn.set_result(None)

    def _observe(self, ticket: Ticket, outcome: Outcome) -> None:
        self._num_observed += 1
        self._num_pushed_back += outcome == "pushed back"
        if outcome == "answered":
            self._seconds[ticket.stage].append(self._clock() - ticket.started)
        if self._num_observed >= max(ROUND_CALLS, self.limit):
            self.limit = max(1, min(self._maximum, self._next_limit()))
            self._start_round()

    def _next_limit(self) -> int:
        if self._num_pushed_back > PUSHED_BACK_SHARE * self._num_observed:
            self._is_doubling = False
            return int(self.limit * 0.7)
        if latency_growth(self._calm, self._seconds) > RISING:
            was_doubling, self._is_doubling = self._is_doubling, False
            return self.limit // 2 if was_doubling else int(self.limit * 0.9)
        if not self._was_full:
            return self.limit
        if self._is_doubling:
            self._calm = dict(self._seconds)
            return self.limit * 2
        return self.limit + max(1, self.limit // 32)

    def _start_round(self) -> None:
        self._round += 1
        self._num_observed = 0
        self._num_pushed_back = 0
        self._was_full = bool(self._waiting)
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)


def latency_growth(
    before: Mapping[str, Sequence[float]], now: Mapping[str, Sequence[float]]
) -> float:
    """How many times longer calls take, stage by stage, weighted by calls; 1 where not known."""
    growths = [
        (len(now[stage]), statistics.median(now[stage]) / max(statistics.median(seconds), 1e-9))
        for stage, seconds in before.items()
        if min(len(seconds), len(now.get(stage, ()))) >= 8
    ]
    num_calls = sum(weight for weight, _ in growths)
    return sum(weight * growth for weight, growth in growths) / num_calls if num_calls else 1.0
