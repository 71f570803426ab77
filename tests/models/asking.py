"""Many calls at once to a model of these tests, and waiting for what comes when it comes."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from feldspar.endpoint.calls import ChatCall, Completions

Complete = Callable[[ChatCall], Awaitable[Completions]]


async def answers(
    complete: Complete, num: int, meanwhile: Callable[[], Awaitable[None]] | None = None
) -> list[str]:
    """What is said to `call 0`, `call 1`, ..., while something happens once they are begun."""
    calls = [
        ChatCall(
            messages=[{"role": "user", "content": f"call {number}"}],
            temperature=0,
            max_tokens=5,
            seed=0,
        )
        for number in range(num)
    ]
    asking = [asyncio.ensure_future(complete(call)) for call in calls]
    if meanwhile is not None:
        await meanwhile()
    return [one.choices[0].text for one in await asyncio.gather(*asking)]


def until(condition: Callable[[], object], seconds: float = 20.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)
