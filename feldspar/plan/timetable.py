"""Who of a run holds which GPUs when: parts in turn, and within a part its jobs next to each other.

A job is work that copies of one server share, or one training over GPUs of the whole cluster. No
GPU has two jobs at a time, and a server never spans nodes unless it needs whole nodes. No torch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feldspar.errors import RecipeError
from feldspar.plan.cluster import Cluster

START_HOURS = 0.05
"""From the start of a server, or of training, to its first token: three minutes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuJob:
    """Work for GPUs, which any number of replicas share without loss."""

    part: str
    """Jobs of one part run at the same time, parts one after another."""
    role: str
    """`teacher`, `judge`, `policy`, `aligned`, `base`, `reward model`, `student` (asked) or
    `training`."""
    gpu_hours: float
    """Of computing; the start comes on top."""
    is_measured: bool = False
    """By a stated or measured rate, and not by operations."""
    gpus_each: int = 1
    """GPUs that compute for one replica. It holds whole nodes where it is on several."""
    nodes_each: int = 1
    """Nodes that it is spread over, or more where its GPUs need more."""
    max_replicas: int | None = None
    """None: as many as there is room for."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Booking:
    """One replica on its GPUs, from `start` to `end`, in hours from the run's start."""

    part: str
    role: str
    replica: int
    first_gpu: int
    num_gpus: int
    start: float
    end: float

    @property
    def gpus(self) -> range:
        return range(self.first_gpu, self.first_gpu + self.num_gpus)


@dataclass(frozen=True, slots=True, kw_only=True)
class GpuTurn:
    """One job in the timetable."""

    part: str
    role: str
    start: float
    end: float
    num_replicas: int
    gpus_each: int
    """Those that compute, of one replica."""
    nodes_each: int
    gpu_hours: float
    """Held, with the start of its replicas."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Timetable:
    cluster: Cluster
    bookings: tuple[Booking, ...]
    turns: tuple[GpuTurn, ...]
    hours: float
    idle_share: float
    """Part of the cluster's GPU-hours in which a GPU does not compute: held by nobody, or by a
    server that starts or leaves some of its nodes' GPUs alone."""

    @property
    def gpu_hours(self) -> float:
        """Of the whole cluster from the first turn to the last."""
        return self.hours * self.cluster.num_gpus


def make_timetable(
    jobs: Sequence[GpuJob], cluster: Cluster, start_hours: float = START_HOURS
) -> Timetable:
    """Parts in the order of their first job. Raises RecipeError where a job fits nowhere."""
    now, worked = 0.0, sum(job.gpu_hours for job in jobs)
    bookings: list[Booking] = []
    turns: list[GpuTurn] = []
    for name in dict.fromkeys(job.part for job in jobs):
        for together in _that_fit([job for job in jobs if job.part == name], cluster):
            end = now
            for placed in _shared_out(together, cluster):
                num = len(placed.first_gpus)
                job, held = placed.job, start_hours + placed.hours
                bookings += [
                    Booking(
                        part=name, role=job.role, replica=number, first_gpu=first,
                        num_gpus=placed.size.held, start=now, end=now + held,
                    )
                    for number, first in enumerate(placed.first_gpus)
                ]  # fmt: skip
                turns.append(
                    GpuTurn(
                        part=name, role=job.role, start=now, end=now + held, num_replicas=num,
                        gpus_each=job.gpus_each, nodes_each=placed.size.num_nodes,
                        gpu_hours=held * placed.size.held * num,
                    )
                )  # fmt: skip
                end = max(end, now + held)
            now = end
    idle = 1 - worked / (now * cluster.num_gpus) if now else 0.0
    return Timetable(
        cluster=cluster,
        bookings=tuple(bookings),
        turns=tuple(turns),
        hours=now,
        idle_share=idle,
    )


class _CopySize(NamedTuple):
    """What one replica holds: GPUs of a node, or whole nodes."""

    num_nodes: int
    held: int


class _Placed:
    """A job and the first GPU of each of its replicas."""

    def __init__(self, job: GpuJob, size: _CopySize) -> None:
        self.job, self.size = job, size
        self.first_gpus: list[int] = []

    @property
    def hours(self) -> float:
        """Of computing."""
        return self.job.gpu_hours / (self.job.gpus_each * len(self.first_gpus))


class _Room:
    """GPUs of the nodes that are still free. A replica within a node takes those that lie next to
    each other, in the node that has the fewest left."""

    def __init__(self, cluster: Cluster) -> None:
        self._per_node = cluster.gpus_per_node
        self._used = [0] * cluster.num_nodes

    def take(self, size: _CopySize) -> int | None:
        """The first of a replica's GPUs; None where there is no room."""
        if size.num_nodes > 1:
            return self._take_nodes(size.num_nodes)
        fitting = [n for n, used in enumerate(self._used) if used + size.held <= self._per_node]
        if not fitting:
            return None
        node = max(fitting, key=lambda n: (self._used[n], -n))
        first = node * self._per_node + self._used[node]
        self._used[node] += size.held
        return first

    def _take_nodes(self, num: int) -> int | None:
        for first in range(len(self._used) - num + 1):
            if not any(self._used[first : first + num]):
                self._used[first : first + num] = [self._per_node] * num
                return first * self._per_node
        return None


def _that_fit(jobs: Sequence[GpuJob], cluster: Cluster) -> list[list[GpuJob]]:
    """Jobs of a part in as few turns as there is room for, a replica of each at the least."""
    turns: list[list[GpuJob]] = []
    room = _Room(cluster)
    for job in jobs:
        size = _copy_size(job, cluster)
        if not turns or room.take(size) is None:
            room = _Room(cluster)
            if room.take(size) is None:
                raise RecipeError(
                    f"{job.part}: one copy of the {job.role} needs {size.held} GPUs, and the "
                    f"cluster has {cluster.num_gpus}; take larger GPUs or more of them"
                )
            turns.append([])
        turns[-1].append(job)
    return turns


def _copy_size(job: GpuJob, cluster: Cluster) -> _CopySize:
    num = max(job.nodes_each, -(-job.gpus_each // cluster.gpus_per_node))
    return _CopySize(num, job.gpus_each if num == 1 else num * cluster.gpus_per_node)


def _shared_out(jobs: Sequence[GpuJob], cluster: Cluster) -> list[_Placed]:
    """A replica of each job, then one more of whichever would take longest while there is room."""
    room = _Room(cluster)
    placed = [_Placed(job, _copy_size(job, cluster)) for job in jobs]
    for one in placed:
        has_grown = _grow(one, room)
        assert has_grown, one.job
    while _grow(max(placed, key=lambda one: one.hours), room):
        pass
    return placed


def _grow(one: _Placed, room: _Room) -> bool:
    """Whether there was room for one more replica."""
    if one.job.max_replicas is not None and len(one.first_gpus) >= one.job.max_replicas:
        return False
    first = room.take(one.size)
    if first is None:
        return False
    one.first_gpus.append(first)
    return True
