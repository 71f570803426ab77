"""The one loop that asks again: growing pauses, a server's own wish within reason, a line that says
what is waited for."""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

from feldspar.endpoint.faults import Fault

log = logging.getLogger(__name__)
T = TypeVar("T")

FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Of our own choice; a server may ask for more."""
LONGEST_ASKED_SECONDS = 600.0
"""A server that asks for a longer pause ends the run instead, which goes on later."""
SAID_FROM_SECONDS = 5.0
_SAID_EVERY_SECONDS = 30.0


class Retry:
    """Asks up to `1 + max_retries` times at one place: `Retry(8, "at http://...").persist(ask)`."""

    def __init__(self, max_retries: int, place: str) -> None:
        self._max_retries, self._place = max_retries, place
        self._jitter = random.Random()
        self._said_at = float("-inf")

    async def persist(self, try_once: Callable[[], Awaitable[T | Fault]]) -> T | Fault:
        """The first answer; else the last fault, or the first that no pause will mend."""
        attempt = 0
        while True:
            found = await try_once()
            if not isinstance(found, Fault) or found.kind in ("refused", "stop"):
                return found
            if found.retry_after_seconds > LONGEST_ASKED_SECONDS:
                again = f"asks to come again in {duration(found.retry_after_seconds)}"
                return found._replace(kind="stop", why="wait", reason=f"{again} ({found.reason})")
            if attempt == self._max_retries:
                return found
            pause = self._pause_seconds(attempt, found)
            self._say(pause, found, attempt)
            await asyncio.sleep(pause)
            attempt += 1

    def _pause_seconds(self, attempt: int, fault: Fault) -> float:
        longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(attempt, 30))
        return max(fault.retry_after_seconds, longest * self._jitter.uniform(0.5, 1.0))

    def _say(self, pause: float, fault: Fault, attempt: int) -> None:
        """Once in a while: hundreds of calls may wait for the same thing."""
        now = time.monotonic()
        if pause < SAID_FROM_SECONDS or now - self._said_at < _SAID_EVERY_SECONDS:
            return
        self._said_at = now
        whose = "as it asks" if fault.retry_after_seconds == pause else "before the next try"
        log.warning(
            "the server %s: %s; waiting %s %s (try %d of %d)",
            self._place, fault.reason, duration(pause), whose, attempt + 1, self._max_retries + 1,
        )  # fmt: skip


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `23 h 59 min`."""
    if not math.isfinite(seconds) or seconds > 365 * 86400:
        return "more than a year"
    if seconds < 120:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"
