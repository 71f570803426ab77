"""What a run asks of a cluster: operations over the peak, as a timetable with its bill."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from feldspar.config import ArchitectureConfig, ModelSizeConfig, Recipe, TeacherConfig
from feldspar.errors import RecipeError
from feldspar.plan.asked import AskedModel, who_is_asked
from feldspar.plan.cluster import Cluster
from feldspar.plan.cost import CallPlan, Plan
from feldspar.plan.timetable import START_HOURS, GpuJob, Timetable, make_timetable
from feldspar.records import PreferenceVolume

SLOW, FAST = 0.5, 1.25
"""Times every MFU: the bracket's ends. Published training figures lie between 0.17 and 0.5, and a
server's depend on how many calls it has at a time."""
_AFTER_TRAINING = ("mt-bench", "judged", "served-exams", "general")


@dataclass(frozen=True, slots=True, kw_only=True)
class Copies:
    """What to write into a role's table, so that its copies fill the cluster."""

    table: str
    replicas: int
    gpus_each: int
    """On each of its nodes."""
    nodes_each: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ClusterPlan:
    timetable: Timetable
    fastest: Timetable
    """With every MFU a quarter higher."""
    slowest: Timetable
    """With half of every MFU."""
    price_per_gpu_hour: float
    call_cost: float
    """Of models that have a price a token."""
    copies: tuple[Copies, ...]
    assumptions: tuple[str, ...]
    not_included: tuple[str, ...]

    def cost(self, timetable: Timetable) -> float:
        """The whole cluster from the first turn to the last, and calls that have a price."""
        return self.price_per_gpu_hour * timetable.gpu_hours + self.call_cost


def plan_on_cluster(
    recipe: Recipe, made: Plan, cluster: Cluster, sizes: ArchitectureConfig | None
) -> ClusterPlan:
    """The timetable of a plan that was made for all GPUs of the cluster.

    Raises RecipeError where a model fits on no part of it, and where a table wants of a node what
    none has.
    """
    work = _Work(recipe, made, cluster, sizes)
    jobs = list(work.jobs())
    timetable = make_timetable(jobs, cluster)
    return ClusterPlan(
        timetable=timetable,
        fastest=make_timetable([_scaled(job, FAST) for job in jobs], cluster),
        slowest=make_timetable([_scaled(job, SLOW) for job in jobs], cluster),
        price_per_gpu_hour=recipe.plan.price_per_gpu_hour,
        call_cost=sum(call.cost for call in made.calls),
        copies=tuple(_copies(timetable)),
        assumptions=tuple(work.assumptions()),
        not_included=tuple(work.not_included),
    )


def serving_flops(size: ModelSizeConfig, num_tokens: float) -> float:
    """Two for each parameter that a token meets; attention over what came before is left out."""
    return 2.0 * size.active * num_tokens


def _scaled(job: GpuJob, mfu_factor: float) -> GpuJob:
    return job if job.is_measured else replace(job, gpu_hours=job.gpu_hours / mfu_factor)


_TABLES = {
    "teacher": "teacher",
    "judge": "judge",
    "policy": "prefer.policy_server",
    "aligned": "prefer.aligned_server",
    "base": "prefer.base_server",
    "reward model": "prefer.reward_model_server",
}


def _copies(timetable: Timetable) -> Iterator[Copies]:
    for role, table in _TABLES.items():
        of_role = [turn for turn in timetable.turns if turn.role == role]
        if of_role:
            most = max(of_role, key=lambda turn: turn.gpu_hours)
            yield Copies(
                table=table,
                replicas=most.num_replicas,
                gpus_each=-(-most.gpus_each // most.nodes_each),
                nodes_each=most.nodes_each,
            )


class _OneCopy(NamedTuple):
    gpus: int
    """That compute, on all its nodes together."""
    nodes: int


class _Work:
    """The jobs of one plan; says what has no place among them."""

    def __init__(
        self, recipe: Recipe, made: Plan, cluster: Cluster, sizes: ArchitectureConfig | None
    ) -> None:
        self.recipe, self.made, self.cluster = recipe, made, cluster
        self.student = (
            None if sizes is None else ModelSizeConfig(parameters=float(sizes.num_parameters))
        )
        self.not_included: list[str] = []

    def jobs(self) -> Iterator[GpuJob]:
        calls = [call for call in self.made.calls if call.step not in _AFTER_TRAINING]
        yield from self._of_calls("generation", calls)
        for phase in self.made.phases:
            yield from self._of_training(f"phase {phase.name}", phase.hours)
        if self.made.preference is not None:
            yield from self._of_preference(self.made.preference)
        yield from self._of_general()
        calls = [call for call in self.made.calls if call.step in _AFTER_TRAINING]
        yield from self._of_calls("evaluation", calls)
        told = ("preferences:", "general:")
        self.not_included += [part for part in self.made.not_included if not part.startswith(told)]

    def assumptions(self) -> Iterator[str]:
        plan, gpu = self.recipe.plan, self.cluster.gpu
        yield (
            f"{gpu.peak_tflops:,.0f} TFLOP/s a GPU; of them {plan.mfu:.0%} while training, "
            f"{plan.mfu_reading:.0%} while servers read and {plan.mfu_writing:.0%} while they write"
        )
        yield "6 operations a parameter and token trained, 2 read or written"
        yield f"{60 * START_HOURS:.0f} minutes to start a server or a training"
        if self.made.preference is not None:
            longest = self.made.preference.answer_tokens
            yield f"answers of preference rounds as long as they may be: {longest} tokens"
        yield f"bracket: every MFU {FAST:g} times as high, and {SLOW:g} times"

    def _of_calls(self, part: str, calls: Sequence[CallPlan]) -> Iterator[GpuJob]:
        by_role: dict[str, list[CallPlan]] = {}
        asked: dict[str, AskedModel] = {}
        for call in calls:
            found = who_is_asked(call.step, call.is_judge, self.recipe)
            by_role.setdefault(found.role, []).append(call)
            asked[found.role] = found
        for role, of_role in by_role.items():
            config, size = asked[role].config, asked[role].size
            if config.is_embedded or config.prompt_price or config.completion_price:
                continue
            if size is None:
                self.not_included.append(
                    f"{part}: the {role}'s GPUs; its size is unknown: [plan.{role}] states it"
                    if role in ("teacher", "judge")
                    else f"{part}: the {role}'s GPUs, whose size is unknown"
                )
                continue
            yield self._served(part, role, of_role, config, size)

    def _served(
        self,
        part: str,
        role: str,
        calls: Sequence[CallPlan],
        config: TeacherConfig,
        size: ModelSizeConfig,
    ) -> GpuJob:
        gpus, nodes = self._of_one_copy(config, size)
        read = sum(call.prompt_tokens for call in calls)
        written = sum(call.completion_tokens for call in calls)
        hours = self._hours(size, read, written)
        rate = self.made.rate if role == "teacher" else None
        if rate is not None:
            seconds = written / (rate.tokens_per_second / config.num_servers)
            hours = seconds / 3600 * gpus
        return GpuJob(
            part=part, role=role, gpu_hours=hours, gpus_each=gpus, nodes_each=nodes,
            is_measured=rate is not None,
        )  # fmt: skip

    def _of_one_copy(self, config: TeacherConfig | None, size: ModelSizeConfig) -> _OneCopy:
        """As its table states, else as its weights need. Raises RecipeError where no node can."""
        if config is not None and config.gpus_each:
            per_node = self.cluster.gpus_per_node
            if config.gpus_each > per_node:
                raise RecipeError(
                    f"gpus_each = {config.gpus_each}: those are of one node, and a node has "
                    f"{per_node}; spread it by nodes_each"
                )
            return _OneCopy(config.gpus_each * config.nodes_each, config.nodes_each)
        return _OneCopy(self.cluster.gpus_for(size.parameters), 1)

    def _hours(self, size: ModelSizeConfig, read: float, written: float) -> float:
        """GPU-hours of a served model."""
        plan, peak = self.recipe.plan, self.cluster.gpu.peak_tflops * 1e12
        seconds = serving_flops(size, read) / (peak * plan.mfu_reading)
        seconds += serving_flops(size, written) / (peak * plan.mfu_writing)
        return seconds / 3600

    def _of_training(self, part: str, hours: float | None) -> Iterator[GpuJob]:
        """`hours` of the whole cluster together."""
        if hours is None:
            self.not_included.append(f"{part}: the base's sizes are unknown")
            return
        num = self.cluster.num_gpus
        yield GpuJob(
            part=part, role="training", gpu_hours=hours * num, gpus_each=num, max_replicas=1
        )

    def _of_preference(self, drawn: PreferenceVolume) -> Iterator[GpuJob]:
        """Each model answers held-out prompts, which both models of the pair read."""
        plan = self.recipe.plan
        if self.student is None or plan.reward_parameters is None:
            self.not_included.append(
                "preferences: their GPUs; sizes are unknown: [plan.architecture] and "
                "plan.reward_parameters state them"
            )
            return
        pair = ModelSizeConfig(
            parameters=plan.reward_parameters, active_parameters=plan.reward_active_parameters
        )
        all_hours = (self.made.preference_hours or 0.0) / (
            drawn.num_rounds * drawn.models_per_round
        )
        held_out = drawn.held_out_prompts, drawn.held_out_answers
        yield from self._drawn_and_read("start: held-out", *held_out, drawn, pair)
        for number in range(1, drawn.num_rounds + 1):
            name = f"round {number}"
            yield from self._drawn_and_read(name, drawn.prompts, drawn.answers, drawn, pair)
            for tuned in (name, f"control {number}")[: drawn.models_per_round]:
                yield from self._of_training(f"{tuned}: tuning", all_hours)
                yield from self._drawn_and_read(f"{tuned}: held-out", *held_out, drawn, pair)

    def _drawn_and_read(
        self,
        name: str,
        prompts: int,
        answers: int,
        drawn: PreferenceVolume,
        pair: ModelSizeConfig,
    ) -> Iterator[GpuJob]:
        """The policy writes, then one model of the pair reads, then the other: as the run does."""
        prefer = self.recipe.prefer
        assert self.student is not None
        assert prefer is not None
        read = prompts * self.made.row_tokens
        before = prompts * drawn.domain_tokens
        written = prompts * answers * drawn.answer_tokens
        gpus, nodes = self._of_one_copy(prefer.policy_server, self.student)
        yield GpuJob(
            part=f"{name} answers",
            role="policy",
            gpu_hours=self._hours(self.student, read, written),
            gpus_each=gpus,
            nodes_each=nodes,
        )
        readers = {"aligned": prefer.aligned_server, "base": prefer.base_server}
        if prefer.reward == "reward-model":
            readers = {"reward model": prefer.reward_model_server}
        for role, server in readers.items():
            gpus, nodes = self._of_one_copy(server, pair)
            yield GpuJob(
                part=f"{name} {role}",
                role=role,
                gpu_hours=self._hours(pair, read + before + written, 0),
                gpus_each=gpus,
                nodes_each=nodes,
            )

    def _of_general(self) -> Iterator[GpuJob]:
        """What the student itself answers, on one GPU."""
        own = [e for e in self.made.estimates if e.step == "general" and e.completion_tokens]
        if own and self.student is not None:
            read = sum(e.prompt_tokens for e in own)
            written = sum(e.completion_tokens for e in own)
            yield GpuJob(
                part="general knowledge",
                role="student",
                gpu_hours=self._hours(self.student, read, written),
                gpus_each=self.cluster.gpus_for(self.student.parameters),
                max_replicas=1,
            )
