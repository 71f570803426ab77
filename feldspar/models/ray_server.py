"""Servers placed and supervised by Ray: an actor on each node of a copy, in a placement group.

    RAY_ADDRESS=ray-head:6379 feldspar run recipe.toml

Only the driver talks to Ray, and calls to servers go to their addresses, not through Ray.
"""

from __future__ import annotations

import contextlib
import logging
import math
import os
import signal
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from feldspar.endpoint.faults import NoAnswers
from feldspar.models import child_guard, ray_actor
from feldspar.models.ray_actor import END_SECONDS, NodePorts, ReplicaActor
from feldspar.models.server import MAX_LINE, Start, filled

log = logging.getLogger(__name__)

LOST = -1
"""Status of a process whose node or actor is gone."""
DRAIN_SECONDS = 2.0
"""Between two questions about nodes that drain."""
_VARIABLE = "RAY_ADDRESS"


class RayEngine:
    """Starts servers on the nodes of the cluster that RAY_ADDRESS names. Raises NoAnswers where
    there is none."""

    is_replaced = True

    def __init__(self) -> None:
        self.ray = connect()
        self._draining: set[str] = set()
        self._asked_at = float("-inf")

    def launch(self, start: Start, number: int) -> RayServer:
        return RayServer(self.ray, self, start, number)

    def room(self) -> str:
        """`8 GPUs, 0 of them free; 4 CPUs, 2 of them free`."""
        there, free = self.ray.cluster_resources(), self.ray.available_resources()
        return "the cluster has " + "; ".join(
            f"{there.get(kind, 0):g} {kind}s, {free.get(kind, 0):g} of them free"
            for kind in ("GPU", "CPU")
        )

    def most_gpus_of_a_node(self) -> int:
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return int(max((node.get("GPU", 0) for node in nodes), default=0))

    def addresses(self) -> dict[str, str]:
        """By which the cluster knows its nodes, by their ids."""
        return {node["NodeID"]: node["NodeManagerAddress"] for node in self.ray.nodes()}

    def num_places(self, gpus_each: int) -> int:
        """Processes with so many GPUs, and a CPU each, that all nodes together have places for,
        free or not."""
        nodes = [node["Resources"] for node in self.ray.nodes() if node["Alive"]]
        return sum(
            int(min(node.get("CPU", 0), node.get("GPU", 0) // gpus_each if gpus_each else math.inf))
            for node in nodes
        )

    def actors(self, num: int, gpus_each: int) -> ActorGroup:
        """`num` actors, on as few nodes as can be."""
        return ActorGroup(self.ray, num, gpus_each, "PACK")

    def own_address(self) -> str:
        """By which the cluster knows this machine."""
        return self.addresses()[self.ray.get_runtime_context().get_node_id()]

    def draining_nodes(self) -> set[str]:
        """Ids of nodes that are to be taken away, as spot machines are."""
        if time.monotonic() > self._asked_at + DRAIN_SECONDS:
            # The one place that tells; Ray Serve and Ray Train ask it too.
            self._draining = set(self.ray._private.state.state.get_draining_nodes())
            self._asked_at = time.monotonic()
        return self._draining


class ActorGroup:
    """Actors that start together, as soon as there is room for all, each for one process."""

    def __init__(self, ray: Any, num: int, gpus_each: int, strategy: str) -> None:
        self._ray = ray
        bundle = {"CPU": 1.0, "GPU": float(gpus_each)} if gpus_each else {"CPU": 1.0}
        self._group = ray.util.placement_group([bundle] * num, strategy=strategy)
        within = ray.util.scheduling_strategies.PlacementGroupSchedulingStrategy
        guard = Path(child_guard.__file__).read_text(encoding="utf-8")
        self.actors = [
            ray.remote(ReplicaActor)
            .options(
                num_cpus=1,
                num_gpus=gpus_each,
                max_restarts=0,
                scheduling_strategy=within(self._group, placement_group_bundle_index=place),
            )
            .remote(guard)
            for place in range(num)
        ]
        self._ending: list[Any] = []

    def let_go(self) -> None:
        """Have their processes end."""
        self._ending = [actor.end.remote() for actor in self.actors]

    def wait(self, *, is_asked: bool) -> None:
        """End the actors and give their places back; if `is_asked`, once their processes have
        ended."""
        with contextlib.suppress(self._ray.exceptions.RayError):
            if is_asked:
                self._ray.wait(self._ending, num_returns=len(self._ending), timeout=END_SECONDS + 2)
        for actor in self.actors:
            self._ray.kill(actor)
        self._ray.util.remove_placement_group(self._group)


class RayServer:
    """One copy of the command, on `nodes_each` nodes."""

    def __init__(self, ray: Any, engine: RayEngine, start: Start, number: int) -> None:
        self._ray, self._engine, self._start, self._number = ray, engine, start, number
        self.log_path = start.log_path(number)
        self.log_path.parent.mkdir(parents=True, exist_ok=True)
        self.log_path.touch()
        self.url: str | None = None
        self.placed_at: float | None = None
        self.status: int | None = None
        self._nodes: list[str] = []
        strategy = "STRICT_SPREAD" if start.nodes_each > 1 else "PACK"
        self._group = ActorGroup(ray, start.nodes_each, start.gpus_each, strategy)
        self._actors = self._group.actors
        self._answers = [actor.where.remote() for actor in self._actors]

    @property
    def is_draining(self) -> bool:
        return bool(self._engine.draining_nodes() & set(self._nodes))

    @property
    def actors(self) -> list[Any]:
        """Ray's handles, one for each node."""
        return list(self._actors)

    def fill(self, word: str) -> str:
        return filled(word, self._values)

    def look(self) -> None:
        if self.status is not None:
            return
        ready, waiting = self._ray.wait(
            self._answers, num_returns=len(self._answers), timeout=0, fetch_local=True
        )
        if waiting and self.placed_at is None:
            return
        try:
            answers = self._ray.get(ready)
        except self._ray.exceptions.RayError as error:
            self._is_lost(error)
            return
        if waiting:
            return
        if self.placed_at is None:
            nodes = [NodePorts(*one) for one in answers]
            if take_ports(nodes):
                self._begin(nodes)
            else:
                self._answers = [actor.where.remote() for actor in self._actors]
        else:
            self._take([one for one in answers if isinstance(one, tuple)])

    def let_go(self) -> None:
        self._group.let_go()

    def wait(self) -> None:
        self._group.wait(is_asked=self.placed_at is not None and self.status != LOST)

    def _begin(self, nodes: list[NodePorts]) -> None:
        """Every process has its place: start them all."""
        head, addresses = nodes[0], self._engine.addresses()
        hosts = [addresses[node.node_id] for node in nodes]
        self._nodes = [node.node_id for node in nodes]
        common = {
            "{model}": found_from_anywhere(self._start.model),
            "{replica}": str(self._number),
            "{nodes}": str(len(nodes)),
            "{head}": hosts[0],
            "{head_port}": str(head.meeting_port),
        }
        of_nodes = [
            {**common, "{node}": str(number), "{host}": hosts[number], "{port}": str(node.port)}
            for number, node in enumerate(nodes)
        ]
        self._values = of_nodes[0]
        self.url = f"http://{host_in_url(hosts[0])}:{head.port}/v1"
        self.placed_at = time.monotonic()
        self._answers = [
            actor.begin.remote(self._start.words(values))
            for actor, values in zip(self._actors, of_nodes, strict=True)
        ]

    def _take(self, looks: list[tuple[int | None, bytes]]) -> None:
        """What the nodes tell of their processes; one that has ended ends the copy."""
        if said := b"".join(said for _, said in looks):
            with self.log_path.open("ab") as log_file:
                log_file.write(said)
        ended = [status for status, _ in looks if status is not None]
        if ended:
            self.status = next((status for status in ended if status), 0)
            return
        self._answers = [actor.look.remote() for actor in self._actors]

    def _is_lost(self, error: Exception) -> None:
        reason = " ".join(str(error).split())
        with self.log_path.open("a", encoding="utf-8") as log_file:
            log_file.write(f"Ray: {type(error).__name__}: {reason}\n")
        self.status = LOST


_GIVEN_PORTS: set[tuple[str, int]] = set()
"""Nodes' ports that servers of this process were given, for whichever role."""


def take_ports(nodes: Sequence[NodePorts]) -> bool:
    """Whether they are a server's now: one that another was given may not be listened at yet."""
    asked = {(node.node_id, port) for node in nodes for port in (node.port, node.meeting_port)}
    is_new = not asked & _GIVEN_PORTS
    if is_new:
        _GIVEN_PORTS.update(asked)
    return is_new


def host_in_url(address: str) -> str:
    """An IPv6 address in brackets."""
    return f"[{address}]" if ":" in address else address


def found_from_anywhere(model: str) -> str:
    """A folder or file by its whole path: on a node the working directory is another one."""
    return str(Path(model).absolute()) if model and Path(model).exists() else model


def connect() -> Any:
    """Ray, connected to the cluster. Raises NoAnswers with the cure where that cannot be."""
    address = os.environ.get(_VARIABLE, "auto")
    place = f"on the Ray cluster at {address}"
    if address.startswith("ray://"):
        cure = f"run on a machine of the cluster, with {_VARIABLE}=HOST:6379 or none"
        raise NoAnswers(place, "ended", "cannot be placed through Ray's client", cure=cure)
    with _own_signals():
        try:
            import ray
        except ImportError:
            cure = "install it (pip install 'feldspar[cluster]'), or take `engine` out"
            raise NoAnswers(place, "ended", "cannot be started without Ray", cure=cure) from None
        if not ray.is_initialized():
            try:
                ray.init(
                    address=address, log_to_driver=False, configure_logging=False,
                    include_dashboard=None,
                )  # fmt: skip
            except (ConnectionError, RuntimeError, ValueError, TimeoutError) as error:
                reason = str(error).strip().split("\n")[0]
                cure = f"start one (`ray start --head`), or name it in {_VARIABLE}; then run again"
                raise NoAnswers(place, "ended", f"is not found ({reason})", cure=cure) from error
        # Ray writes what its daemons say to standard output, which is the command's own.
        ray._private.worker.print_to_stdstream = _log_daemons
        # The nodes get the class itself, not its name: they need not have this package.
        ray.cloudpickle.register_pickle_by_value(ray_actor)
    return ray


def _log_daemons(said: Mapping[str, Any], ignore_prefix: bool = False) -> None:
    """The first line of what a daemon says: a dump of its own log may follow."""
    lines = "\n".join(map(str, said.get("lines", ()))).strip().split("\n")
    log.warning("Ray: %s", lines[0][:MAX_LINE])


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
    """What SIGTERM does stays what the run made of it: Ray would take it over."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        with contextlib.suppress(ValueError):
            # Only the main thread may set it, and only there Ray does.
            signal.signal(signal.SIGTERM, before)
