"""How long work says how far it is: rooms report to a `Progress`, the command line draws it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Protocol


class Task(Protocol):
    """One bar: `advance(3, loss=0.7)` moves it and replaces the figures shown beside it."""

    def advance(self, by: float = 1, **figures: float | str) -> None: ...


class Progress(Protocol):
    """Where tasks are shown. `total=None` is unknown; `done` is what an earlier try finished."""

    def task(
        self, name: str, total: float | None, unit: str, done: float = 0
    ) -> AbstractContextManager[Task]: ...


class _SilentTask:
    def advance(self, by: float = 1, **figures: float | str) -> None:
        pass


class _Silent:
    @contextmanager
    def task(self, name: str, total: float | None, unit: str, done: float = 0) -> Iterator[Task]:
        yield _SilentTask()


SILENT: Progress = _Silent()
"""Shows nothing: for tests and for library use."""
