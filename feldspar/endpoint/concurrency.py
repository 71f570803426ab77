"""How many calls are in flight: as many as a recipe says, or as many as the servers bear.

Found in rounds. At first every answer raises the limit by one, which doubles it in the time that
one call takes. A round whose calls took longer by nearly as much as there were more of them shows
that they only waited in the server's queue: the limit goes back to what was answered without
waiting, by a third a round at the most, and from then on grows by a step a round. A server that
turns calls away or lets them time out shrinks it as much. Where servers join or leave, each keeps
its share.
"""

from __future__ import annotations

import asyncio
import heapq
import time
from collections import Counter, defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

FIRST_LIMIT = 16
"""Of each server."""
FIRST_ROUND_CALLS = 16
ROUND_CALLS = 32
PUSHED_BACK_SHARE = 0.1
"""Lone refusals of a server with faults are no push-back; a tenth of a round is."""
RISING = 1.7
"""Twice the calls at 1.7 times the latency is hardly more work done."""
CALM = 1.25
"""Latency that grew less than this is still that of a server with room."""
WAITED = 1.4
"""While the limit doubles: the last calls took so many times as long as those of a calm server."""
LAST_CALLS = 16
LEAST_CALLS = 8
"""Fewer calls of a stage tell nothing about its latency."""
SHRINKING = 0.7
"""The most that a round takes away."""
ROOM = 1.2
"""Calls beyond those that a full server works on, so that it never waits for us."""

Outcome = Literal["answered", "pushed back", "failed"]


class Ticket(NamedTuple):
    """The right to one call; hand it back with `release`."""

    round: int
    """0 for a call that its round does not watch."""
    stage: str
    started: float
    load: int
    """Calls in flight when it began, itself among them."""


class Latency(NamedTuple):
    """Median over so many calls."""

    seconds: float
    num_calls: int


class Governor:
    """Admits the most urgent calls first, and else in the order they come.

    `fixed` calls at once or, where that is 0, up to `maximum` for each server.
    """

    def __init__(
        self, fixed: int, maximum: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self.limit = fixed or min(FIRST_LIMIT, maximum)
        self.num_in_flight = 0
        self._is_fixed = bool(fixed)
        self._maximum = maximum
        self._num_servers = 1
        self._clock = clock
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._num_queued = 0
        self._is_doubling = True
        self._was_pushed_back = False
        self._is_draining = False
        self._calm: dict[str, Latency] = {}
        self._recent: deque[float] = deque(maxlen=LAST_CALLS)
        self._round = 0
        self._start_round()

    def drain(self, is_draining: bool = True) -> None:
        """From now on the least urgent first: with nothing new to begin, the samples that have the
        longest way to go would else be left for the end, one slow call after another."""
        if is_draining != self._is_draining:
            self._is_draining = is_draining
            self._waiting = [(-rank, place, turn) for rank, place, turn in self._waiting]
            heapq.heapify(self._waiting)

    def fit(self, num_servers: int) -> None:
        """There are so many servers now, and what each bears is as before: 64 new ones need not be
        found out from the start. Where there is none, nothing changes until there is one."""
        if self._is_fixed or num_servers in (0, self._num_servers):
            return
        self._maximum = self._maximum // self._num_servers * num_servers
        scaled = round(self.limit * num_servers / self._num_servers)
        self.limit = max(1, min(self._maximum, scaled))
        self._num_servers = num_servers
        self._start_round()
        self._admit()

    async def acquire(self, stage: str, urgency: int = 0) -> Ticket:
        if self.num_in_flight >= self.limit or self._waiting:
            self._was_full = True
            turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._num_queued += 1
            rank = urgency if self._is_draining else -urgency
            heapq.heappush(self._waiting, (rank, self._num_queued, turn))
            try:
                await turn
            except asyncio.CancelledError:
                if turn.done() and not turn.cancelled():
                    self.num_in_flight -= 1
                    self._admit()
                raise
        else:
            self.num_in_flight += 1
        is_watched = self._begun.total() < self._num_watched
        if is_watched:
            self._begun[stage] += 1
            self._loads += self.num_in_flight
        place = self._round if is_watched else 0
        return Ticket(place, stage, self._clock(), self.num_in_flight)

    def begin(self, ticket: Ticket) -> Ticket:
        """The same ticket, for a call that waited until now for something else than the server."""
        return ticket._replace(started=self._clock())

    def release(self, ticket: Ticket, outcome: Outcome) -> None:
        self.num_in_flight -= 1
        if not self._is_fixed:
            if self._is_doubling and outcome == "answered" and self._waiting:
                self._grow(ticket)
            # A call that began before the limit changed says nothing about the new one.
            if ticket.round == self._round:
                self._observe(ticket, outcome)
        self._admit()

    def _grow(self, ticket: Ticket) -> None:
        """One call more for each answer, unless the last ones took so long that they waited: the
        round's verdict comes too late to keep a queue from building up at the server."""
        calm = self._calm.get(ticket.stage)
        if calm is not None and calm.num_calls >= LEAST_CALLS:
            self._recent.append((self._clock() - ticket.started) / max(calm.seconds, 1e-9))
        is_waiting = (
            len(self._recent) == LAST_CALLS and sorted(self._recent)[LAST_CALLS // 2] > WAITED
        )
        if not is_waiting:
            self.limit = min(self._maximum, 2 * self._limit_before, self.limit + 1)

    def _admit(self) -> None:
        while self._waiting and self.num_in_flight < self.limit:
            *_, turn = heapq.heappop(self._waiting)
            if not turn.done():
                self.num_in_flight += 1
                turn.set_result(None)

    def _observe(self, ticket: Ticket, outcome: Outcome) -> None:
        self._num_ended += 1
        self._num_ended_of[ticket.stage] += 1
        self._num_pushed_back += outcome == "pushed back"
        if outcome == "answered":
            self._seconds[ticket.stage].append(self._clock() - ticket.started)
        # The slowest quarter is not waited for: a median can be told without them.
        if self._num_ended >= 0.75 * self._num_watched and self._is_told:
            self.limit = max(1, min(self._maximum, self._next_limit()))
            self._start_round()

    @property
    def _is_told(self) -> bool:
        """Whether there is a median of each stage, or too many were turned away. Short calls would
        else speak for long ones, whose queue they wait in."""
        return self._num_pushed_back > PUSHED_BACK_SHARE * self._num_ended or all(
            self._num_ended_of[stage] > num / 2
            for stage, num in self._begun.items()
            if num >= LEAST_CALLS
        )

    def _next_limit(self) -> int:
        if self._num_pushed_back > PUSHED_BACK_SHARE * self._num_ended:
            self._is_doubling, self._was_pushed_back = False, True
            return int(min(self.limit, self._limit_before) * SHRINKING)
        now = {
            stage: Latency(_median_of_begun(seconds, self._begun[stage]), self._begun[stage])
            for stage, seconds in self._seconds.items()
            if len(seconds) > self._begun[stage] / 2
        }
        growth = latency_growth(self._calm, now)
        if growth > RISING:
            self._is_doubling = False
            found = round(ROOM * self._loads / self._begun.total() / growth)
            # A round may have had short calls alone, behind long ones of the round before.
            return min(self.limit, max(found, int(SHRINKING * self.limit)))
        if self._is_doubling:
            if growth < CALM:
                self._calm = {**self._calm, **pooled(self._calm, now)}
            return self.limit
        if not self._was_full:
            return self.limit
        # One slow round may have been chance: while calls do not wait, the way back is short.
        is_easy = growth < CALM and not self._was_pushed_back
        return self.limit + max(1, self.limit // (4 if is_easy else 32))

    def _start_round(self) -> None:
        self._round += 1
        self._limit_before = self.limit
        enough = FIRST_ROUND_CALLS if self._is_doubling else ROUND_CALLS
        self._num_watched = max(enough, self.limit)
        self._num_ended = self._num_pushed_back = self._loads = 0
        self._was_full = bool(self._waiting)
        self._begun: Counter[str] = Counter()
        self._num_ended_of: Counter[str] = Counter()
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)


def latency_growth(before: Mapping[str, Latency], now: Mapping[str, Latency]) -> float:
    """How many times longer calls take, of the stages that are known in both; 1 where none is.

    Over the calls together, and not as a mean of the stages' growths: by Little's law calls in
    flight are to calls that are worked on as the seconds that they take are to those of the work.
    A short call that waits behind long ones takes many times as long in a queue that is short.
    """
    both = [
        (calm.seconds, now[stage])
        for stage, calm in before.items()
        if stage in now and min(calm.num_calls, now[stage].num_calls) >= LEAST_CALLS
    ]
    calm_seconds = sum(one.num_calls * seconds for seconds, one in both)
    now_seconds = sum(one.num_calls * one.seconds for _, one in both)
    return now_seconds / calm_seconds if calm_seconds > 0 else 1.0


def pooled(one: Mapping[str, Latency], other: Mapping[str, Latency]) -> dict[str, Latency]:
    """The stages of `other`, together with what `one` knows of them."""
    result = {}
    for stage, (seconds, num_calls) in other.items():
        known = one.get(stage, Latency(0.0, 0))
        total = known.num_calls + num_calls
        mean = (known.seconds * known.num_calls + seconds * num_calls) / total
        result[stage] = Latency(mean, total)
    return result


def _median_of_begun(seconds: Sequence[float], num_begun: int) -> float:
    """The median over all that began, of which only the fastest have ended: those alone would
    make a server look faster than it is."""
    return sorted(seconds)[num_begun // 2]
