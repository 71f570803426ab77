"""What a training loop needs of the processes it shares a step with; the group of one process.

No torch.distributed here. The other implementation is `FSDPGroup` in distributed/fsdp.py.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, Protocol, TypeVar

from torch import Tensor

from feldspar.config import StudentConfig
from feldspar.student.model import Student
from feldspar.student.training.memory import Shard
from feldspar.student.training.schedule import Indices
from feldspar.student.training.signals import Stops

T = TypeVar("T")


LOST = -1
"""Status of a worker that is gone with its node."""


class PlacedWorkers(Protocol):
    """Processes that have their places on a cluster, numbered by rank from 0."""

    num: int
    host: str
    """The address of this process, as they see it."""

    def begin(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        """Start the command in each place, with `variables`, RANK, LOCAL_RANK and WORLD_SIZE."""

    def statuses(self) -> list[int | None]:
        """None of one that runs; LOST; else as shells have it, 128 + N where signal N ended it.
        Never waits."""

    def last_words(self, rank: int) -> str:
        """The end of what it said, on one line."""


class Places(Protocol):
    """Where workers can be started."""

    def workers(self, log_folder: Path) -> AbstractContextManager[PlacedWorkers]:
        """Wait for places; all that runs there ends with the block. Raises TrainingError."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LaunchSettings:
    """Processes that train together, and what each of them loads."""

    num_processes: int
    config: StudentConfig
    start: str = ""
    """The model directory: the same path for all of them. Empty for one process."""
    shard: Shard | Literal["auto"] = "auto"
    seed: int = 0
    """Of low-rank weights, where they are trained."""
    places: Places | None = None
    """Where all processes are placed, and this one is none of them. None: this one is the first."""

    @property
    def is_alone(self) -> bool:
        """Whether this process trains, and no other."""
        return self.num_processes == 1 and self.places is None


Cutter = Callable[[Indices, Indices], list[Indices]]
"""(rows, their lengths) -> groups that are computed at once."""


class MicroBatch(NamedTuple):
    rows: Indices
    weight: float = 1.0
    """0 for a row that only keeps step with the others and counts nowhere."""
    is_last: bool = False


class ProcessGroup(Protocol):
    """The processes of a step, seen from one of them."""

    rank: int
    size: int

    def place(self, student: Student) -> Student:
        """The student that is trained: its weights whole, or this process's part of them."""

    def micro_batches(self, rows: Indices, lengths: Indices, cut: Cutter) -> list[MicroBatch]:
        """This process's part of a step, in the order it is computed."""

    def compute(self, micro: MicroBatch, function: Callable[[], T]) -> T:
        """`function()`, called where the model's weights are whole."""

    def release(self) -> None:
        """Give up whole weights that were gathered without a backward pass to follow."""

    def total(self, sums: Tensor) -> Tensor:
        """Sums over all processes."""

    def whole(self, value: Tensor) -> Tensor:
        """One tensor of what lies in parts."""

    def within_step(self, held: Stops) -> Stops:
        """The signals that may end a step between its micro-batches."""

    def agree_to_save(self, wish: bool, held: Stops) -> bool:
        """Whether one process wishes to save. Raises Stopped where one was asked to end."""

    def check_same(self, step: int) -> None:
        """Raise TrainingError where another goes on from another step."""

    def meet(self) -> None:
        """Wait for the others."""


class SingleProcess:
    """One process: everything is its own."""

    rank, size = 0, 1

    def place(self, student: Student) -> Student:
        return student

    def micro_batches(self, rows: Indices, lengths: Indices, cut: Cutter) -> list[MicroBatch]:
        return [MicroBatch(group) for group in cut(rows, lengths)]

    def compute(self, micro: MicroBatch, function: Callable[[], T]) -> T:
        return function()

    def release(self) -> None:
        """Weights are always whole."""

    def total(self, sums: Tensor) -> Tensor:
        return sums

    def whole(self, value: Tensor) -> Tensor:
        return value

    def within_step(self, held: Stops) -> Stops:
        return held

    def agree_to_save(self, wish: bool, held: Stops) -> bool:
        return wish

    def check_same(self, step: int) -> None:
        """There is no one to differ from."""

    def meet(self) -> None:
        """There is no one to wait for."""


SINGLE_PROCESS = SingleProcess()
