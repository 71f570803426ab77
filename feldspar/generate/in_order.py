"""Many jobs at once, their results in the order they were begun."""

from __future__ import annotations

import asyncio
import signal
import threading
from collections import deque
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Iterable, Iterator
from typing import Any, TypeVar

J = TypeVar("J")
T = TypeVar("T")

WAITING_PER_ACTIVE = 4
"""Finished results held back behind a slow one, for each job that may be active."""


async def in_order(
    jobs: Iterable[J], do: Callable[[J], Coroutine[Any, Any, T]], max_active: Callable[[], int]
) -> AsyncGenerator[T, None]:
    """What `do` gives for each job, `max_active()` at a time; jobs are drawn as there is room.

    The first job that fails ends all of them with its exception, wherever it stands in the order.
    """
    num_active = 0
    has_room = asyncio.Event()
    failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    pending: deque[asyncio.Task[T]] = deque()

    def settle(task: asyncio.Task[T]) -> None:
        nonlocal num_active
        num_active -= 1
        has_room.set()
        if not task.cancelled() and (error := task.exception()) and not failed.done():
            failed.set_exception(error)

    try:
        for job in jobs:
            while num_active >= max_active():
                has_room.clear()
                await _unless(failed, has_room.wait())
            num_active += 1
            pending.append(asyncio.create_task(do(job)))
            pending[-1].add_done_callback(settle)
            most = WAITING_PER_ACTIVE * max_active()
            while pending and (pending[0].done() or len(pending) > most):
                yield await _unless(failed, pending[0])
                pending.popleft()
        while pending:
            yield await _unless(failed, pending[0])
            pending.popleft()
    finally:
        for task in pending:
            task.cancel()
        await asyncio.gather(*pending, return_exceptions=True)
        # Retrieved, or asyncio warns that it never was.
        if not failed.cancel():
            failed.exception()


def run_stream(stream: AsyncGenerator[T, None]) -> Iterator[T]:
    """Iterate an asynchronous stream from plain code; its loop rests between the items.

    Ctrl-C cancels what is in flight and is raised from this call.
    """
    with asyncio.Runner() as runner:
        try:
            while True:
                try:
                    item = _run(runner, _next(stream))
                except StopAsyncIteration:
                    return
                yield item
        finally:
            _forget_stop(runner.get_loop())
            _run(runner, _close(stream))


def _run(runner: asyncio.Runner, work: Coroutine[Any, Any, T]) -> T:
    """`runner.run`, with Ctrl-C raised when the loop rests: the runner itself raises it inside
    whatever the loop is doing where it comes just as its task has ended."""
    number = signal.SIGINT
    is_main = threading.current_thread() is threading.main_thread()
    if not is_main or signal.getsignal(number) is not signal.default_int_handler:
        return runner.run(work)
    task: asyncio.Task[T] | None = None
    is_interrupted = False

    def cancel() -> None:
        if task is not None:
            task.cancel()

    def take(*_: object) -> None:
        nonlocal is_interrupted
        if is_interrupted:
            raise KeyboardInterrupt
        is_interrupted = True
        runner.get_loop().call_soon_threadsafe(cancel)

    async def watched() -> T:
        nonlocal task
        task = asyncio.current_task()
        return await work

    signal.signal(number, take)
    try:
        result = runner.run(watched())
    except asyncio.CancelledError:
        if is_interrupted:
            raise KeyboardInterrupt from None
        raise
    finally:
        signal.signal(number, signal.default_int_handler)
    if is_interrupted:
        raise KeyboardInterrupt
    return result


def _forget_stop(loop: asyncio.AbstractEventLoop) -> None:
    """A Ctrl-C that comes just as a task has ended leaves behind what stops the loop for it, and
    would stop it for the next."""
    loop.call_soon(loop.stop)
    loop.run_forever()


async def _next(stream: AsyncGenerator[T, None]) -> T:
    return await anext(stream)


async def _close(stream: AsyncGenerator[T, None]) -> None:
    await stream.aclose()


async def _unless(failed: asyncio.Future[None], awaited: Awaitable[T]) -> T:
    """The result of `awaited`, or the exception of `failed` if that comes first."""
    future = asyncio.ensure_future(awaited)
    if not future.done() and not failed.done():
        either: set[asyncio.Future[Any]] = {future, failed}
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
    if failed.done():
        future.cancel()
        failed.result()
    return future.result()
