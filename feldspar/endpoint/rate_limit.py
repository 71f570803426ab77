"""No more than so many of something a minute: requests, or tokens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable

BURST_SECONDS = 5.0
"""What a rate gives in this time may be taken at once."""


class Pace:
    """Takes are spread evenly once the first burst is over; None sets no limit."""

    def __init__(self, per_minute: int | None, clock: Callable[[], float] = time.monotonic) -> None:
        self._seconds_each = 60.0 / per_minute if per_minute else 0.0
        self._clock = clock
        self._taken_up_to = float("-inf")
        """When all that was taken would have been given out evenly."""

    async def take(self, amount: int) -> None:
        """Wait until so many more are within the rate."""
        wait = self.take_at(self._clock(), amount)
        if wait > 0:
            await asyncio.sleep(wait)

    def take_at(self, now: float, amount: int) -> float:
        """Take, and tell the seconds to wait before it is used."""
        if not self._seconds_each:
            return 0.0
        start = max(self._taken_up_to, now)
        self._taken_up_to = start + amount * self._seconds_each
        return max(0.0, self._taken_up_to - now - max(BURST_SECONDS, amount * self._seconds_each))

    def give_back(self, amount: int) -> None:
        """Of what was taken, so many were not used."""
        self._taken_up_to -= amount * self._seconds_each
