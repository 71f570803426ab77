"""A clock that jumps, for the product's own code to be driven by.

The event loop tells the time of the clock, and where it would wait for its next timer the clock
jumps there.
"""

from __future__ import annotations

import asyncio
import math
import random
import selectors
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from statistics import NormalDist
from typing import Any

from feldspar.teacher.journal import BATCH_SECONDS, MOST_WAITING, Journal, Stored

COMMIT_SECONDS = 0.005
"""Of a batch of the journal, on a disk like this machine's."""


class Clock:
    """Seconds since the simulation began."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class _Jumping(selectors.DefaultSelector):  # type: ignore[misc, valid-type]
    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self._clock = clock

    def select(self, timeout: float | None = None) -> list[Any]:
        events: list[Any] = super().select(0)
        if not events:
            assert timeout is not None, "everybody waits, and nothing is to happen"
            self._clock.now += max(0.0, timeout)
        return events


class VirtualLoop(asyncio.SelectorEventLoop):
    """Waits for nothing. Work for threads is done at once."""

    def __init__(self, clock: Clock) -> None:
        super().__init__(_Jumping(clock))
        self._virtual = clock

    def time(self) -> float:
        return self._virtual.now

    def run_in_executor(  # type: ignore[override]
        self, executor: object, func: Callable[..., Any], *args: Any
    ) -> asyncio.Future[Any]:
        done = self.create_future()
        done.set_result(func(*args))
        return done


@contextmanager
def virtual_time(clock: Clock) -> Iterator[None]:
    """Loops that are made meanwhile live by the clock."""

    class Policy(asyncio.DefaultEventLoopPolicy):
        def new_event_loop(self) -> asyncio.AbstractEventLoop:
            return VirtualLoop(clock)

    asyncio.set_event_loop_policy(Policy())
    try:
        yield
    finally:
        asyncio.set_event_loop_policy(None)


class TimedJournal(Journal):
    """Commits that take as long as the real ones, of nothing."""

    def __init__(self) -> None:
        self._batch: list[tuple[Stored, asyncio.Future[Stored]]] = []

    def get(self, key: bytes) -> Stored | None:
        return None

    def check(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def room(self) -> None:
        while len(self._batch) >= MOST_WAITING:
            await asyncio.sleep(BATCH_SECONDS)

    async def put(self, key: bytes, stored: Stored, *, model: str, stage: str) -> Stored:
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Stored] = loop.create_future()
        if not self._batch:
            loop.call_later(BATCH_SECONDS + COMMIT_SECONDS, self._commit)
        self._batch.append((stored, done))
        return await done

    def _commit(self) -> None:
        batch, self._batch = self._batch, []
        for stored, done in batch:
            if not done.done():
                done.set_result(stored)


class Trainer:
    """Steps of a training over ranks, each as long as its slowest rank; lognormal in each."""

    def __init__(self, num_ranks: int, mean_seconds: float, spread: float, seed: int = 1) -> None:
        self._num_ranks, self._mean, self._spread = num_ranks, mean_seconds, spread
        self._rng = random.Random(seed)

    def step_seconds(self) -> float:
        # The largest of n uniform numbers has the distribution of the n-th root of one.
        largest = (1.0 - self._rng.random()) ** (1.0 / self._num_ranks)
        return self._mean * math.exp(self._spread * NormalDist().inv_cdf(min(largest, 1 - 1e-12)))

    def hours(
        self, num_steps: int, save_every: int, lost_every_hours: float, again: float
    ) -> float:
        """To the last step, where a rank is lost every so often: the steps since the last state are
        done again after `again` hours. 0: no rank is lost."""
        now, done, saved = 0.0, 0, 0
        next_loss = lost_every_hours or math.inf
        while done < num_steps:
            now += self.step_seconds() / 3600
            if now > next_loss:
                now, done = now + again, saved
                next_loss += lost_every_hours
                continue
            done += 1
            if done % save_every == 0:
                saved = done
        return now
