"""Progress on a terminal as bars; elsewhere as a plain line every few seconds."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as RichProgress

from feldspar.progress import Progress, Task

PLAIN_LINE_SECONDS = 5.0


def make_progress() -> Progress:
    """Bars where standard error is a terminal, plain lines where it is not."""
    return Bars() if sys.stderr.isatty() else PlainLines()


def _figure_text(figures: dict[str, float | str]) -> str:
    return "  ".join(
        f"{name} {value:.4g}" if isinstance(value, float) else f"{name} {value}"
        for name, value in figures.items()
    )


class _Bar:
    def __init__(self, bars: RichProgress, task_id: int, unit: str, done: float) -> None:
        self.bars, self.task_id, self.unit = bars, task_id, unit
        self.count = 0.0
        self.started = time.monotonic()

    def advance(self, by: float = 1, **figures: float | str) -> None:
        self.count += by
        rate = self.count / max(time.monotonic() - self.started, 1e-9)
        text = f"{rate:.3g} {self.unit}/s  {_figure_text(figures)}"
        self.bars.update(self.task_id, advance=by, figures=text)  # type: ignore[arg-type]


class Bars:
    """One live display for all tasks that run at the same time."""

    def __init__(self) -> None:
        self._bars: RichProgress | None = None
        self._num_open = 0

    @contextmanager
    def task(self, name: str, total: float | None, unit: str, done: float = 0) -> Iterator[Task]:
        if self._bars is None:
            self._bars = RichProgress(
                SpinnerColumn(),
                TextColumn("{task.description}"),
                BarColumn(bar_width=24),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
                TextColumn("eta"),
                TimeRemainingColumn(),
                TextColumn("[dim]{task.fields[figures]}"),
                console=Console(stderr=True),
            )
            self._bars.start()
        task_id = self._bars.add_task(name, total=total, completed=done, figures="")  # type: ignore[arg-type]
        self._num_open += 1
        try:
            yield _Bar(self._bars, task_id, unit, done)
        finally:
            self._num_open -= 1
            self._bars.stop_task(task_id)
            if self._num_open == 0:
                self._bars.stop()
                self._bars = None
            else:
                # Work within other work, such as scoring a candidate, leaves no line behind.
                self._bars.remove_task(task_id)


class _PlainTask:
    def __init__(self, name: str, total: float | None, unit: str, done: float) -> None:
        self.name, self.total, self.unit, self.done = name, total, unit, done
        self.count = 0.0
        self.figures: dict[str, float | str] = {}
        self.started = self.last_shown = time.monotonic()

    def advance(self, by: float = 1, **figures: float | str) -> None:
        self.count += by
        self.figures = figures
        now = time.monotonic()
        if now - self.last_shown >= PLAIN_LINE_SECONDS:
            self.last_shown = now
            self.show(now)

    def show(self, now: float, *, is_end: bool = False) -> None:
        elapsed = max(now - self.started, 1e-9)
        rate = self.count / elapsed
        place = self.done + self.count
        parts = [f"{self.name}: {place:g}"]
        if self.total is not None:
            parts[0] += f"/{self.total:g}"
        parts[0] += f" {self.unit}"
        if rate > 0:
            parts.append(f"{rate:.3g}/s")
        if is_end:
            parts.append(f"took {elapsed:.1f} s")
        elif self.total is not None and rate > 0:
            parts.append(f"eta {max(self.total - place, 0) / rate:.0f} s")
        if self.figures:
            parts.append(_figure_text(self.figures))
        print(", ".join(parts), file=sys.stderr, flush=True)


class PlainLines:
    """A line every few seconds for each task, and one at its end: for logs.

    Short work within other work, such as scoring a candidate, leaves no line.
    """

    def __init__(self) -> None:
        self._num_open = 0

    @contextmanager
    def task(self, name: str, total: float | None, unit: str, done: float = 0) -> Iterator[Task]:
        task = _PlainTask(name, total, unit, done)
        self._num_open += 1
        try:
            yield task
        finally:
            self._num_open -= 1
        now = time.monotonic()
        if self._num_open == 0 or now - task.started >= PLAIN_LINE_SECONDS:
            task.show(now, is_end=True)
