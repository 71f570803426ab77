"""Places for the workers of a training on the nodes of a Ray cluster: an actor for each process.

Where the nodes have places for fewer than the recipe asks for, as when one was lost, there are so
many workers. Only this process talks to Ray; the workers meet by themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from feldspar.config import WorkersConfig
from feldspar.endpoint.faults import NoAnswers, one_line
from feldspar.errors import TrainingError
from feldspar.models.ray_actor import NodePorts
from feldspar.models.ray_server import LOST, ActorGroup, RayEngine
from feldspar.models.server import last_lines

log = logging.getLogger(__name__)

_LOOK_SECONDS = 0.2
_MANY_FAULTS = 3


def places_of(config: WorkersConfig | None) -> RayPlaces | None:
    """None: training is not placed."""
    return None if config is None else RayPlaces(config)


class RayPlaces:
    """Gives workers as `[train.workers]` asks for them. Ray is imported with the first."""

    def __init__(self, config: WorkersConfig) -> None:
        self._config = config
        self._faults: list[str] = []
        """Why actors that were asked for did not start."""

    @contextmanager
    def workers(self, log_folder: Path) -> Iterator[RayWorkers]:
        """As many as there are places for; what they say goes to `log_folder`. Raises
        TrainingError where there is no cluster, or no room in `start_seconds`."""
        try:
            engine = RayEngine()
        except NoAnswers as error:
            raise TrainingError(error.sentence("workers")) from error
        group, places = self._placed(engine)
        try:
            yield RayWorkers(engine, group, places, log_folder)
        finally:
            group.let_go()
            group.wait(is_asked=True)

    def _placed(self, engine: RayEngine) -> _PlacedGroup:
        """Ask for all places that the nodes have, until they are there."""
        until, self._faults = time.monotonic() + self._config.start_seconds, []
        while True:
            num = self._num_places(engine)
            group = engine.actors(num, self._config.gpus_each)
            found: list[NodePorts] | None = None
            try:
                found = self._wait(engine, group, num, until)
            finally:
                if found is None:
                    group.wait(is_asked=False)
            if found is not None:
                if num < self._config.num:
                    log.warning(
                        "%d of %d workers train: there is no node for more", num, self._config.num
                    )
                return _PlacedGroup(group, found)

    def _num_places(self, engine: RayEngine) -> int:
        """All that are wanted also where no node has a place: the cluster may grow."""
        wanted = self._config.num
        return min(wanted, engine.num_places(self._config.gpus_each)) or wanted

    def _wait(
        self, engine: RayEngine, group: ActorGroup, num: int, until: float
    ) -> list[NodePorts] | None:
        """Where the actors are; None where the nodes have come to have places for another number,
        or one was lost. Raises TrainingError when the time is over."""
        where = [actor.where.remote() for actor in group.actors]
        while True:
            ready, waiting = engine.ray.wait(where, num_returns=num, timeout=_LOOK_SECONDS)
            has_failed = False
            try:
                engine.ray.get(ready)
                if not waiting:
                    return [NodePorts(*one) for one in engine.ray.get(where)]
            except engine.ray.exceptions.RayError as error:
                has_failed = True
                self._note(error)
            if time.monotonic() > until:
                raise self._too_late(num, engine)
            if has_failed:
                time.sleep(_LOOK_SECONDS)
            if has_failed or self._num_places(engine) != num:
                return None

    def _note(self, error: Exception) -> None:
        self._faults.append(f"{type(error).__name__}: {one_line(str(error))}")
        # The first may have been on a node that was being lost.
        if len(self._faults) == _MANY_FAULTS:
            log.warning("workers do not start (%s); they are asked for again", self._faults[-1])

    def _too_late(self, num: int, engine: RayEngine) -> TrainingError:
        seconds = self._config.start_seconds
        if self._faults:
            return TrainingError(
                f"train.workers: {num} workers did not start in {seconds:g} s "
                f"({self._faults[-1]}); mend the nodes, then run again"
            )
        return TrainingError(
            f"train.workers: {num} workers found no room in {seconds:g} s ({engine.room()}); "
            "lower `num`, or make room, then run again"
        )


class _PlacedGroup(NamedTuple):
    group: ActorGroup
    places: list[NodePorts]


class RayWorkers:
    """Workers on nodes, each with a log of its own."""

    def __init__(
        self, engine: RayEngine, group: ActorGroup, places: Sequence[NodePorts], log_folder: Path
    ) -> None:
        log_folder.mkdir(parents=True, exist_ok=True)
        self._engine = engine
        # Those of a node have neighbouring ranks.
        order = sorted(range(len(places)), key=lambda number: places[number].node_id)
        self._actors = [group.actors[number] for number in order]
        self._places = [places[number] for number in order]
        self._log_folder = log_folder
        self.num, self.host = len(order), engine.own_address()
        self._answers: list[Any] = []
        self._statuses: list[int | None] = [None] * self.num

    def begin(self, command: Sequence[str], variables: Mapping[str, str]) -> None:
        for rank in range(self.num):
            self.log_path(rank).write_bytes(b"")
        self._answers = [
            actor.begin.remote([*_environment({**variables, **own}), *command])
            for actor, own in zip(self._actors, variables_of(self._places), strict=True)
        ]

    def statuses(self) -> list[int | None]:
        for rank, answer in enumerate(self._answers):
            if self._statuses[rank] is None and self._engine.ray.wait([answer], timeout=0)[0]:
                self._take(rank)
        return list(self._statuses)

    def last_words(self, rank: int) -> str:
        return f"{last_lines(self.log_path(rank))}; all of them: {self.log_path(rank)}"

    def log_path(self, rank: int) -> Path:
        return self._log_folder / f"worker-{rank + 1}.log"

    def _take(self, rank: int) -> None:
        """What an actor has told of its process; then ask it again."""
        try:
            told = self._engine.ray.get(self._answers[rank])
        except self._engine.ray.exceptions.RayError:
            self._statuses[rank] = LOST
            return
        # `begin` tells a number.
        if isinstance(told, tuple):
            self._statuses[rank], said = told
            if said:
                with self.log_path(rank).open("ab") as log_file:
                    log_file.write(said)
        self._answers[rank] = self._actors[rank].look.remote()


def variables_of(places: Sequence[NodePorts]) -> list[dict[str, str]]:
    """What each worker has of its own, by rank. Those of a node see all their GPUs, and take the
    one of their number: processes that see only their own cannot copy from GPU to GPU."""
    found = []
    for rank, place in enumerate(places):
        beside = [other for other in places if other.node_id == place.node_id]
        gpus = ",".join(other.gpus for other in beside if other.gpus)
        own = {"RANK": rank, "LOCAL_RANK": beside.index(place), "WORLD_SIZE": len(places)}
        found.append({**{name: str(n) for name, n in own.items()}, "CUDA_VISIBLE_DEVICES": gpus})
    return found


def _environment(variables: Mapping[str, str]) -> list[str]:
    """`env RANK=0 ...`: an actor starts words."""
    return ["env", *(f"{name}={value}" for name, value in variables.items())]
