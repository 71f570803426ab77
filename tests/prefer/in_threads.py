"""A server of a test's own, in a loop in a thread."""

import asyncio
import contextlib
import threading


@contextlib.contextmanager
def in_a_thread(open_server):
    """Enter an async context of a loop in a thread; gives what it gives."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    stack = contextlib.AsyncExitStack()
    call = lambda what: asyncio.run_coroutine_threadsafe(what, loop).result()  # noqa: E731
    try:
        yield call(stack.enter_async_context(open_server()))
    finally:
        call(stack.aclose())
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
