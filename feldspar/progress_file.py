"""How far a run is, as a file in it: for whoever looks on from another process.

The process that holds the run writes `progress.json` about once a second, whole at every moment; it
decides no result, and a run goes on where it cannot be written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Literal

from feldspar.errors import RunError
from feldspar.files import write_json
from feldspar.progress import Progress, Task
from feldspar.stored import read_stored

PROGRESS_FILE = "progress.json"
SECONDS_BETWEEN = 1.0
MAX_WARNINGS = 50
State = Literal["running", "ended", "interrupted", "failed"]


@dataclass(slots=True, kw_only=True, eq=False)
class TaskState:
    """One bar. Times are seconds since 1970."""

    name: str
    unit: str
    total: float | None
    """None: unknown."""
    done: float
    """What an earlier try finished, and what was done since."""
    began_done: float
    began_at: float
    figures: dict[str, float | str] = field(default_factory=dict)

    def rate(self, now: float) -> float:
        """Units a second, of this try."""
        return (self.done - self.began_done) / max(now - self.began_at, 1e-9)

    def seconds_left(self, now: float) -> float | None:
        """None where nothing is known to go by."""
        rate = self.rate(now)
        if self.total is None or rate <= 0:
            return None
        return max(self.total - self.done, 0) / rate


@dataclass(slots=True, kw_only=True)
class RunState:
    """What the process that holds a run said last."""

    pid: int
    began_at: float
    told_at: float
    state: State = "running"
    why: str = ""
    """What ended it, where that was an error."""
    tasks: list[TaskState] = field(default_factory=list)
    """That are open, the outermost first."""
    warnings: list[str] = field(default_factory=list)
    """The last of them."""
    host: str = ""
    """The machine that the process is on; empty where an earlier version did not say."""

    @property
    def is_elsewhere(self) -> bool:
        """Whether it is another machine's, whose processes cannot be seen from here."""
        return self.host not in ("", socket.gethostname())

    @property
    def may_go_on(self) -> bool:
        """Whether it was running and its process is there, as far as can be seen from here."""
        return self.state == "running" and (self.is_elsewhere or _is_process(self.pid))


def _is_process(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def read_run_state(run_path: Path) -> RunState | None:
    """None where none was written yet, or where it is damaged: the next second's is not."""
    path = run_path / PROGRESS_FILE
    if not path.exists():
        return None
    try:
        return read_stored(path, RunState)
    except RunError:
        return None


class RecordedProgress:
    """Passes tasks on to another progress, and keeps the file."""

    def __init__(self, shown: Progress, run_path: Path) -> None:
        self._shown, self._path = shown, run_path / PROGRESS_FILE
        now = time.time()
        self._state = RunState(
            pid=os.getpid(), began_at=now, told_at=now, host=socket.gethostname()
        )
        self._written_at = 0.0
        self._lock = threading.Lock()
        self._handler = _WarningsKept(self._state)

    def __enter__(self) -> RecordedProgress:
        logging.getLogger("feldspar").addHandler(self._handler)
        self._write()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, _: object) -> None:
        logging.getLogger("feldspar").removeHandler(self._handler)
        self._state.state = _ending(kind)
        self._state.why = "" if error is None else (str(error).splitlines() or [""])[0][:500]
        self._state.tasks.clear()
        self._write()

    @contextmanager
    def task(self, name: str, total: float | None, unit: str, done: float = 0) -> Iterator[Task]:
        task = TaskState(
            name=name, unit=unit, total=total, done=done, began_done=done, began_at=time.time()
        )
        with self._shown.task(name, total, unit, done) as shown:
            self._state.tasks.append(task)
            self._write_sometimes()
            try:
                yield _RecordedTask(shown, task, self)
            finally:
                if task in self._state.tasks:
                    self._state.tasks.remove(task)
                self._write_sometimes()

    def _write_sometimes(self) -> None:
        if time.monotonic() - self._written_at >= SECONDS_BETWEEN:
            self._write()

    def _write(self) -> None:
        with self._lock:
            self._written_at = time.monotonic()
            self._state.told_at = time.time()
            # Who looks on must not stop who works.
            with contextlib.suppress(OSError):
                write_json(self._path, asdict(self._state))


class _RecordedTask:
    def __init__(self, shown: Task, task: TaskState, progress: RecordedProgress) -> None:
        self._shown, self._task, self._progress = shown, task, progress

    def advance(self, by: float = 1, **figures: float | str) -> None:
        self._shown.advance(by, **figures)
        self._task.done += by
        self._task.figures = figures
        self._progress._write_sometimes()


class _WarningsKept(logging.Handler):
    def __init__(self, state: RunState) -> None:
        super().__init__(logging.WARNING)
        self._state = state

    def emit(self, record: logging.LogRecord) -> None:
        self._state.warnings.append(f"{record.levelname.lower()}: {record.getMessage()}")
        del self._state.warnings[:-MAX_WARNINGS]


def _ending(kind: type[BaseException] | None) -> State:
    if kind is None:
        return "ended"
    return "interrupted" if issubclass(kind, KeyboardInterrupt) else "failed"
