"""The figures of metrics.jsonl shown elsewhere too: TensorBoard, W&B, trackio.

A thread follows the file, so that neither the training loop nor its processes know of it. How many
lines were sent is kept next to it: a run that was killed and goes on sends nothing twice.
"""

from __future__ import annotations

import importlib
import json
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from feldspar.config import TrackConfig
from feldspar.errors import TrainingError
from feldspar.files import whole_file
from feldspar.stored import read_stored

log = logging.getLogger(__name__)

_SECONDS = 1.0
_CURES = {
    "tensorboard": "pip install 'feldspar[tracking]'",
    "wandb": "pip install wandb",
    "trackio": "pip install trackio",
}


class Tracker(Protocol):
    """Somewhere that figures are shown."""

    def send(self, step: int, figures: dict[str, float]) -> None:
        """`step` is counted from 1 through all phases."""

    def close(self) -> None: ...


class Tracking:
    """Where a run's figures go. Its key is empty: it decides nothing of the result."""

    key = ""

    def __init__(self, config: TrackConfig, name: str) -> None:
        self.config, self.name = config, name

    @contextmanager
    def following(self, metrics_path: Path) -> Iterator[None]:
        """Tell every line of the file, those that are written in the meantime too.

        Raises TrainingError at once where a package is missing.
        """
        if not self.config.to:
            yield
            return
        trackers = [_OPENERS[name](self, metrics_path.parent) for name in self.config.to]
        follower = _Follower(metrics_path, trackers)
        follower.start()
        try:
            yield
        finally:
            follower.stop()


NOWHERE = Tracking(TrackConfig(), "")


class _Follower(threading.Thread):
    def __init__(self, path: Path, trackers: list[Tracker]) -> None:
        super().__init__(name="tracking", daemon=True)
        self._path, self._trackers = path, trackers
        self._sent_path = path.with_name("tracked.json")
        self._num_sent = read_stored(self._sent_path, int) if self._sent_path.is_file() else 0
        self._ends = threading.Event()

    def run(self) -> None:
        while not self._ends.wait(_SECONDS):
            self._catch_up()

    def stop(self) -> None:
        self._ends.set()
        self.join()
        self._catch_up()
        for tracker in self._trackers:
            self._try(tracker, tracker.close)

    def _catch_up(self) -> None:
        """A line's number is its step: a resumed run writes again what it does again."""
        if not self._path.is_file():
            return
        with self._path.open(encoding="utf-8") as file:
            lines = [line for line in file if line.endswith("\n")]
        for number in range(self._num_sent, len(lines)):
            figures = figures_of(json.loads(lines[number]))
            for tracker in list(self._trackers):
                self._try(tracker, partial(tracker.send, number + 1, figures))
        if len(lines) > self._num_sent:
            self._num_sent = len(lines)
            with whole_file(self._sent_path) as temporary:
                temporary.write_text(json.dumps(self._num_sent), encoding="utf-8")

    def _try(self, tracker: Tracker, call: Callable[[], None]) -> None:
        """A tracker that fails is named once and left: training goes on."""
        try:
            call()
        except Exception as error:
            log.warning(
                "%s: %s; metrics.jsonl has all figures", type(tracker).__name__.strip("_"), error
            )
            self._trackers = [other for other in self._trackers if other is not tracker]


def figures_of(line: dict[str, Any]) -> dict[str, float]:
    """Numbers of a line of metrics.jsonl by name; those of a source as `NAME/SOURCE`."""
    figures = {k: v for k, v in line.items() if isinstance(v, (int, float)) and k != "step"}
    for source, of_source in line.get("sources", {}).items():
        figures |= {f"{key}/{source}": value for key, value in of_source.items()}
    return figures


class _TensorBoard:
    def __init__(self, tracking: Tracking, folder: Path) -> None:
        self._writer = _module("tensorboard", "torch.utils.tensorboard").SummaryWriter(
            str(folder / "tensorboard")
        )

    def send(self, step: int, figures: dict[str, float]) -> None:
        for name, value in figures.items():
            self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        self._writer.close()


class _WandB:
    def __init__(self, tracking: Tracking, folder: Path) -> None:
        self._run = _module("wandb").init(
            project=tracking.config.project,
            name=tracking.name,
            id=f"{tracking.name}-{folder.name}",
            resume="allow",
            dir=str(folder),
        )

    def send(self, step: int, figures: dict[str, float]) -> None:
        self._run.log(figures, step=step)

    def close(self) -> None:
        self._run.finish()


class _Trackio:
    def __init__(self, tracking: Tracking, folder: Path) -> None:
        self._trackio = _module("trackio")
        self._trackio.init(
            project=tracking.config.project, name=f"{tracking.name}-{folder.name}", resume="allow"
        )

    def send(self, step: int, figures: dict[str, float]) -> None:
        self._trackio.log(figures, step=step)

    def close(self) -> None:
        self._trackio.finish()


_OPENERS: dict[str, Callable[[Tracking, Path], Tracker]] = {
    "tensorboard": _TensorBoard,
    "wandb": _WandB,
    "trackio": _Trackio,
}


def _module(name: str, path: str | None = None) -> Any:
    try:
        return importlib.import_module(path or name)
    except ImportError:
        raise TrainingError(
            f'track.to names "{name}", which is not installed: {_CURES[name]}, or take it out'
        ) from None
