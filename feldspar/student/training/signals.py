"""Ctrl-C, SIGTERM and SIGHUP, taken where training may stop: never inside a step."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = tuple(
    getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, name)
)


class Stopped(BaseException):
    """Someone asked for the end; raised by `Stops.check`, and followed by the signal itself."""


class Stops:
    """Remembers the first signal; a second Ctrl-C is not waited with."""

    def __init__(self) -> None:
        self.number: int | None = None

    def check(self) -> None:
        if self.number is not None:
            raise Stopped

    def take(self, number: int, _: FrameType | None) -> None:
        if self.number is not None:
            raise KeyboardInterrupt
        self.number = number


@contextmanager
def stops() -> Iterator[Stops]:
    """Hold signals back inside the block; one that came is sent again behind it."""
    held = Stops()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    # What is ignored stays so: SIGHUP under nohup.
    taken = [n for n in _SIGNALS if signal.getsignal(n) is not signal.SIG_IGN]
    before = {number: signal.signal(number, held.take) for number in taken}
    try:
        yield held
    except Stopped:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if held.number == signal.SIGINT:
        raise KeyboardInterrupt
    if held.number is not None:
        os.kill(os.getpid(), held.number)
