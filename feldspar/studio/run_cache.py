"""Runs that were read, kept while their files stay as they are."""

from __future__ import annotations

import contextlib
import threading
import time
from collections import Counter, OrderedDict
from concurrent.futures import Future
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from feldspar.errors import RunError
from feldspar.progress_file import PROGRESS_FILE
from feldspar.reviews import SettledReview, read_reviews, review_files
from feldspar.runs import CURRENT
from feldspar.views.live import live_of
from feldspar.views.run_files import RunFiles
from feldspar.views.sample_index import SampleIndex, SampleSummary, index_path, open_index

MAX_RUNS = 4
"""That are kept in memory."""
RETRY_SECONDS = 10.0
"""After which an index that could not be made is tried again."""
_RECIPE = "recipe.json"
Stamp = tuple[int, ...]


class RunCard(NamedTuple):
    """A run in the list of runs."""

    name: str
    state: str
    num_done: int
    changed: datetime | None


class OpenRun:
    """A run's files at one moment, with the index of its samples."""

    def __init__(self, path: Path, stamp: Stamp) -> None:
        self.files = RunFiles(path)
        self.stamp = stamp
        self._lock = threading.Lock()
        self._index: SampleIndex | None = None
        self._making: Future[SampleIndex | None] | None = None
        self._failed_at = 0.0
        self._summary: SampleSummary | None = None
        self._reviews: tuple[list[tuple[str, int, int]], dict[str, SettledReview]] | None = None

    def index(self) -> SampleIndex | None:
        """Made where there is none yet; None before there are samples."""
        with self._lock:
            is_gone = self._index is None or not self._index.path.exists()
            if is_gone and self.files.samples is not None:
                self._index = open_index(self.files.samples)
            return self._index

    def summary_by_now(self) -> SampleSummary | None:
        """The summary where the index is made; else it is made beside, and this is None. Raises
        what stopped that, until it is tried again."""
        rows = self.files.samples
        if rows is None or self._index is not None or index_path(rows).exists():
            return self.summary()
        making = self._making
        is_old = time.monotonic() - self._failed_at > RETRY_SECONDS
        if making is None or (making.done() and is_old):
            making = self._making = Future()
            make = threading.Thread(target=self._make, args=(making,), name="samples' index")
            make.daemon = True
            make.start()
        elif making.done():
            making.result()
        return None

    def _make(self, making: Future[SampleIndex | None]) -> None:
        try:
            index = self.index()
        # Whatever it is, the page that waits for it raises it.
        except Exception as error:
            self._failed_at = time.monotonic()
            making.set_exception(error)
        else:
            making.set_result(index)

    def summary(self) -> SampleSummary | None:
        index = self.index()
        with self._lock:
            if self._summary is None and index is not None:
                self._summary = index.summary()
            return self._summary

    def reviews(self) -> dict[str, SettledReview]:
        """What people say now, read again when a file of it has changed."""
        stamp = []
        for path in review_files(self.files.path):
            stat = path.stat()
            stamp.append((path.name, stat.st_size, stat.st_mtime_ns))
        with self._lock:
            if self._reviews is None or self._reviews[0] != stamp:
                self._reviews = (stamp, read_reviews(self.files.path))
            return self._reviews[1]

    def reasons(self) -> list[str]:
        """Why samples were rejected, the most frequent first."""
        counts: Counter[str] = Counter()
        summary = self.summary()
        for of_leaf in summary.rejected if summary else ():
            counts[of_leaf.reason] += of_leaf.num_samples
        return [reason for reason, _ in counts.most_common()]


class RunCache:
    """The runs of one folder, by their names: no name leads out of it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._open: OrderedDict[str, OpenRun] = OrderedDict()
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """All runs, the newest first."""
        paths = [p.parent for p in self.folder.glob(f"*/{_RECIPE}")]
        return [p.name for p in sorted(paths, key=_changed, reverse=True)]

    def cards(self) -> list[RunCard]:
        return [self._card(name) for name in self.names()]

    def open(self, name: str) -> OpenRun:
        """Raises RunError where there is no such run."""
        path = self.folder / name
        if path.parent != self.folder or path.name != name or not (path / _RECIPE).is_file():
            raise RunError(f"no run called {name!r} in {self.folder}")
        stamp = _stamp(path)
        with self._lock:
            known = self._open.get(name)
            if known is None or known.stamp != stamp:
                known = self._open[name] = OpenRun(path, stamp)
            self._open.move_to_end(name)
            while len(self._open) > MAX_RUNS:
                self._open.popitem(last=False)
            return known

    def _card(self, name: str) -> RunCard:
        path = self.folder / name
        try:
            files = RunFiles(path)
            state, num_done = live_of(files).state, len(files.steps)
        except RunError:
            state, num_done = "damaged", 0
        seconds = _changed(path)
        return RunCard(name, state, num_done, datetime.fromtimestamp(seconds, UTC))


def _changed(path: Path) -> float:
    """When a run said something last."""
    times = [0.0]
    for name in (_RECIPE, CURRENT, PROGRESS_FILE):
        with contextlib.suppress(FileNotFoundError):
            times.append((path / name).stat().st_mtime)
    return max(times)


def _stamp(path: Path) -> Stamp:
    """Changes when a step is finished, or the recipe is another."""
    stamp = []
    for file in (path / _RECIPE, path / CURRENT):
        with contextlib.suppress(FileNotFoundError):
            stamp.append(file.stat().st_mtime_ns)
    return tuple(stamp)
