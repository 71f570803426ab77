"""The run's own scheduler over many modelled servers on a clock that jumps.

    python benchmarks/scale_sim.py scenarios [--only PART_OF_A_NAME]
    python benchmarks/scale_sim.py growth
    python benchmarks/scale_sim.py timetable

Driven are the product's generation (order of stages, samples under way), durable calls, budget,
retries, the governor of calls in flight, the pool and the fleet that replaces servers, and the
timetable of a cluster. Modelled are the servers behind the transport, their nodes and the commit
of the journal (`modelled_servers.py`, `virtual_time.py`); `scale_check.py` checks the model. A
sample costs a quarter of a call for four question-answer pairs (median 30 s) and one judgment
(median 2.5 s).

`ideal` is when the servers, had they never been without work from the moment they were up, would
have given the same answers: service time over slots, nothing else.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from generation_memory import Leaves
from modelled_servers import ModelledTransport, Service, World
from virtual_time import Clock, TimedJournal, Trainer, virtual_time

from feldspar.config import GenerateConfig, TeacherConfig
from feldspar.endpoint.calls import ChatCall, Json
from feldspar.endpoint.endpoint import Endpoint
from feldspar.endpoint.models_list import ListedModel
from feldspar.endpoint.replicas import Replicas
from feldspar.generate import generate_samples
from feldspar.models.fleet import Fleet
from feldspar.models.opening import access_of
from feldspar.models.served import ServedModel
from feldspar.models.server import Start
from feldspar.plan.cluster import Cluster, named_cluster
from feldspar.plan.machine import GPUS
from feldspar.plan.timetable import START_HOURS, GpuJob, make_timetable
from feldspar.steps import Workspace
from feldspar.teacher import Journal, Teacher

SERVICE = Service(medians={"knowledge-pairs": 30.0, "judge-faithful": 2.5, "": 10.0})
PAIRS_A_CALL = 4
PER_NODE = 8
"""Servers of a node."""
BACK_SECONDS = 300.0
"""Until another node comes for one that was lost."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scenario:
    replicas: int
    leaves: int
    chunks: int = 5
    """Of a leaf."""
    calls: int = 6
    """For each chunk, of four samples each."""
    slots: int = 8
    slow: float = 1.0
    """How many times slower the first replica is."""
    node_lost_every: float = 0.0
    """Seconds; 0: none is lost."""
    is_silent: bool = False
    """A lost node's connections hang instead of being reset, and its loss takes 30 s to be seen."""
    boot_seconds: float = 120.0


SCENARIOS = {
    "1 replica of 32 slots": Scenario(replicas=1, slots=32, leaves=500),
    "8 replicas of 32": Scenario(replicas=8, slots=32, leaves=1000),
    "64 replicas of 8": Scenario(replicas=64, leaves=1250),
    "64, one of them 4 x slower": Scenario(replicas=64, leaves=1250, slow=4.0),
    "45,000 samples on 64 of 4 slots, one 4 x slower": Scenario(
        replicas=64, leaves=375, slots=4, slow=4.0
    ),
    "64, a node of 8 lost every 15 min": Scenario(replicas=64, leaves=1250, node_lost_every=900.0),
    "the same, its connections hang": Scenario(
        replicas=64, leaves=1250, node_lost_every=900.0, is_silent=True
    ),
}
GROWTH = {
    "12,000 samples, 1,000 leaves": Scenario(replicas=64, leaves=1000, chunks=1, calls=3),
    "12,000 samples, 100 leaves": Scenario(replicas=64, leaves=100),
    "120,000 samples, 1,000 leaves": Scenario(replicas=64, leaves=1000),
    "120,000 samples, 10,000 leaves": Scenario(replicas=64, leaves=10_000, chunks=1, calls=3),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    samples: int
    calls: int
    makespan: float
    ideal: float
    num_lost: int
    """Calls in flight on nodes that were lost."""
    cpu_seconds: float
    peak_mb: float
    idle: tuple[float, float, float]
    """Parts of all slot-seconds: until servers were first full, while they were, and at the end."""
    last_full: float

    @property
    def over(self) -> float:
        return self.makespan / self.ideal - 1


def answer(stage: str, body: Json, numbers: random.Random) -> str:
    """What a perfect teacher says: pairs that were never seen before, and yes."""
    if stage.startswith("judge-"):
        return "Explanation: the document says so.\nVerdict: YES"
    blocks = []
    for _ in range(PAIRS_A_CALL):
        name = f"{numbers.getrandbits(64):016x}"
        blocks.append(f"[Question]\nWho is {name}?\n[Answer]\n{name} is {name[::-1]}.\n[End]")
    return "\n".join(blocks)


class FleetModel(ServedModel):
    """A model whose fleet is watched by the loop that asks."""

    def __init__(self, endpoint: Endpoint, fleet: Fleet, transport: ModelledTransport) -> None:
        super().__init__(endpoint, ListedModel("modelled"))
        self._fleet, self._transport = fleet, transport
        self._watching: asyncio.Task[None] | None = None
        self._num_inside = 0
        self.on_begin = lambda: None

    async def __aenter__(self) -> FleetModel:
        self._num_inside += 1
        if self._num_inside == 1:
            self._watching = asyncio.ensure_future(
                self._fleet.watch(self.endpoint.access, self._transport)
            )
            self.on_begin()
            await self._fleet.first_up()
        await super().__aenter__()
        return self

    async def __aexit__(self, *error: object) -> None:
        await super().__aexit__(*error)
        self._num_inside -= 1
        if not self._num_inside and self._watching is not None:
            self._watching.cancel()
            await asyncio.gather(self._watching, return_exceptions=True)


class Cast:
    """A world, and the product's fleet, pool and endpoint in front of it."""

    def __init__(self, scenario: Scenario, service: Service = SERVICE) -> None:
        self.clock, numbers = Clock(), random.Random(2)
        per_node = min(PER_NODE, scenario.replicas)
        self.world = World(
            self.clock,
            slots=scenario.slots,
            num_nodes=scenario.replicas // per_node,
            per_node=per_node,
            slow={0: scenario.slow},
            boot_seconds=scenario.boot_seconds,
            is_silent=scenario.is_silent,
        )
        self.config = TeacherConfig(
            command="modelled {port}", replicas=scenario.replicas, model="modelled"
        )
        start = Start(
            command="modelled {port}", model="modelled", log_folder=Path(), engine="ray",
            num_replicas=scenario.replicas,
        )  # fmt: skip
        transport = ModelledTransport(self.world, service, lambda s, b: answer(s, b, numbers))
        fleet = Fleet(start, self.world, self.clock)
        endpoint = Endpoint(
            access_of(self.config), fleet.pool, "modelled", check=fleet.check, place="modelled",
            transport=transport, clock=self.clock,
        )  # fmt: skip
        self.model = FleetModel(endpoint, fleet, transport)
        if scenario.node_lost_every:
            self.model.on_begin = lambda: self.world.lose_nodes(
                scenario.node_lost_every, BACK_SECONDS
            )

    def outcome(self, samples: int, cpu_seconds: float) -> Outcome:
        account = self.world.account
        return Outcome(
            samples=samples,
            calls=account.num_answered,
            makespan=self.clock.now,
            ideal=account.ideal_seconds(),
            num_lost=account.num_lost,
            cpu_seconds=cpu_seconds,
            peak_mb=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
            idle=account.idle_shares(),
            last_full=account.last_full,
        )


def generate(model: ServedModel, config: TeacherConfig, journal: Journal, of: Scenario) -> int:
    """The product's generation over made leaves; gives the number of samples kept."""
    settings = GenerateConfig(
        pairs_per_call=PAIRS_A_CALL, calls_per_chunk=of.calls, judge_skips=("relevant",),
        exam_items=0,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        teacher = Teacher(model, config, journal)
        samples = generate_samples(
            Workspace(folder=Path(folder)),
            Leaves(of.leaves, of.chunks),
            settings,
            teacher=teacher,
            judge=teacher,
            avoid=(),
            seed=1,
        )
        return sum(sample.is_kept for sample in samples)


def simulate(scenario: Scenario, service: Service = SERVICE) -> Outcome:
    """A whole generation."""
    cast = Cast(scenario, service)
    began = time.process_time()
    with virtual_time(cast.clock):
        num = generate(cast.model, cast.config, TimedJournal(), scenario)
    return cast.outcome(num, time.process_time() - began)


def simulate_calls(scenario: Scenario, num_calls: int) -> Outcome:
    """Calls of no stage alone, as a policy and a reward pair are asked."""
    cast = Cast(scenario)
    began = time.process_time()

    async def ask_all() -> None:
        room = asyncio.Semaphore(cast.config.num_servers * cast.config.max_concurrency)

        async def ask(number: int) -> None:
            async with room:
                await cast.model.complete(
                    ChatCall(
                        messages=[{"role": "user", "content": str(number)}],
                        temperature=1.0,
                        max_tokens=64,
                    )
                )

        async with cast.model:
            await asyncio.gather(*(ask(number) for number in range(num_calls)))

    with virtual_time(cast.clock):
        asyncio.run(ask_all())
    return cast.outcome(num_calls, time.process_time() - began)


def timetable_rows() -> Iterator[str]:
    """Each turn of a run on 8 nodes of 8 GPUs: by the timetable, and as it goes."""
    slots, ranks, steps, step_seconds = 8, 64, 4000, 0.5
    of_calls = {"round 1 answers": 40_000, "round 1 aligned": 40_000, "round 1 base": 40_000}
    mean = math.exp(SERVICE.sigma**2 / 2)
    sample_seconds = mean * (30.0 / PAIRS_A_CALL + 2.5)
    generation = Scenario(replicas=64, leaves=500, boot_seconds=3600 * START_HOURS)
    num_samples = generation.leaves * generation.chunks * generation.calls * PAIRS_A_CALL
    jobs = [
        GpuJob(
            part="generation", role="teacher",
            gpu_hours=num_samples * sample_seconds / slots / 3600,
        ),
        GpuJob(
            part="training", role="training", gpu_hours=steps * step_seconds * ranks / 3600,
            gpus_each=ranks, max_replicas=1,
        ),
        *(
            GpuJob(part=part, role=part.split()[-1], gpu_hours=num * 10 * mean / slots / 3600)
            for part, num in of_calls.items()
        ),
    ]  # fmt: skip
    table = make_timetable(jobs, named_cluster("h100x8x8"))
    total = 0.0
    for turn in table.turns:
        planned = turn.end - turn.start
        if turn.role == "training":
            trainer = Trainer(ranks, step_seconds, spread=0.02)
            hours = START_HOURS + trainer.hours(steps, 200, 0.0, START_HOURS)
        elif turn.part == "generation":
            hours = simulate(generation).makespan / 3600
        else:
            one = replace(generation, replicas=turn.num_replicas)
            hours = simulate_calls(one, of_calls[turn.part]).makespan / 3600
        total += hours
        yield f"| {turn.part} | {planned:.3f} | {hours:.3f} | {hours / planned - 1:+.1%} |"
    yield f"| all | {table.hours:.3f} | {total:.3f} | {total / table.hours - 1:+.1%} |"


def training_rows() -> Iterator[str]:
    """Steps of half a second, a state every 200 of them, a rank lost an hour, three minutes to
    start again."""
    for ranks in (1, 8, 64, 512):
        alone = Trainer(ranks, 0.5, spread=0.02).hours(40_000, 200, 0.0, START_HOURS)
        lost = Trainer(ranks, 0.5, spread=0.02).hours(40_000, 200, 1.0, START_HOURS)
        ideal = 40_000 * 0.5 / 3600
        yield f"| {ranks} | {alone / ideal - 1:+.1%} | {lost / alone - 1:+.1%} |"


def cost_rows() -> Iterator[str]:
    """Microseconds of the two things whose work grows with the number of servers or GPUs."""
    for num in (1, 8, 64, 512):
        pool = Replicas([f"http://{n}" for n in range(num)])
        began = time.process_time()
        for _ in range(20_000):
            server = pool.begin()
            assert server is not None
            pool.end(server, None)
        a_call = (time.process_time() - began) / 20_000 * 1e6
        cluster = Cluster(gpu=GPUS["h100"], gpus_per_node=8, num_nodes=-(-num // 8))
        job = GpuJob(part="p", role="teacher", gpu_hours=1e3)
        began = time.process_time()
        make_timetable([job], cluster)
        table = (time.process_time() - began) * 1e3
        yield f"| {num} | {a_call:.1f} | {cluster.num_gpus} | {table:.1f} |"


def in_a_process(*words: str) -> Any:
    """What this script prints as JSON, in a process of its own."""
    done = subprocess.run([sys.executable, __file__, *words], capture_output=True, check=True)
    return json.loads(done.stdout)


def outcome_of(scenario: Scenario) -> Outcome:
    return Outcome(**in_a_process("--one", json.dumps(asdict(scenario))))


def row_of(name: str, one: Outcome) -> str:
    idle = " / ".join(f"{part:.1%}" for part in one.idle)
    return (
        f"| {name} | {one.samples:,} | {one.makespan:,.0f} | {one.ideal:,.0f} | {one.over:+.1%} "
        f"| {idle} | {one.num_lost} | {one.cpu_seconds / one.makespan:.1%} | {one.peak_mb:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("part", choices=("scenarios", "growth", "timetable"), nargs="?")
    parser.add_argument("--only", help="scenarios in whose name this stands")
    parser.add_argument("--one", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(asdict(simulate(Scenario(**json.loads(given.one))))))
    elif given.part == "timetable":
        for lines in (timetable_rows(), training_rows(), cost_rows()):
            print(*lines, "", sep="\n", flush=True)
    else:
        for name, scenario in (GROWTH if given.part == "growth" else SCENARIOS).items():
            if (given.only or "") in name:
                print(row_of(name, outcome_of(scenario)), flush=True)


if __name__ == "__main__":
    main()
