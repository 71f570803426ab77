"""What a run will cost before it is paid: calls, money, steps, hours, memory, disk. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from feldspar.config import ArchitectureConfig, Recipe, TrainConfig
from feldspar.plan.asked import who_is_asked
from feldspar.plan.machine import Machine
from feldspar.records import Estimate, MemoryEstimate, PreferenceVolume


@dataclass(frozen=True, slots=True, kw_only=True)
class CallPlan:
    """What one stage asks of the teacher or of the judge."""

    step: str
    stage: str
    is_judge: bool
    calls: int
    prompt_tokens: int
    completion_tokens: int
    cost: float
    """In the currency of the recipe's prices."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePlan:
    """How long one phase is, if every sample asked for is kept."""

    name: str
    rows_per_epoch: int
    """Its own rows and what it replays."""
    batch_samples: int
    num_epochs: int
    hours: float | None = None
    """Of training alone; None where the machine or the base is unknown."""

    @property
    def steps_per_epoch(self) -> int:
        """The last batch of an epoch may be partial."""
        return math.ceil(self.rows_per_epoch / self.batch_samples)

    @property
    def num_steps(self) -> int:
        return self.steps_per_epoch * self.num_epochs


STATED = "stated"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rate:
    """How fast the teacher writes, or the student trains, and how that is known."""

    tokens_per_second: float
    known_by: str
    """`STATED`, or the probe in words."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The bill, and what looks wrong about it."""

    calls: tuple[CallPlan, ...]
    estimates: tuple[Estimate, ...]
    """Of the steps that ask nobody."""
    phases: tuple[PhasePlan, ...]
    row_tokens: int
    """Tokens of a training row; 0 is unknown."""
    num_parameters: int
    """Of the base; 0 is unknown."""
    machine: Machine
    memory: tuple[MemoryEstimate, ...]
    """The recipe's own way first; empty where the base is unknown."""
    rate: Rate | None
    teacher_hours: float | None
    training_hours: float | None
    preference_hours: float | None
    """Of fine-tuning on what preference rounds pick; None where unknown or not done."""
    training_rate: Rate | None
    """Measured on this machine, where it has no GPU whose peak is known."""
    not_included: tuple[str, ...]
    """What takes time that no figure here holds."""
    cost: float
    """Of teacher, judge and GPUs, where they have prices."""
    disk_bytes: int
    free_bytes: int
    warnings: tuple[str, ...]
    preference: PreferenceVolume | None = None
    """What preference rounds draw; None where there are none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """What the rooms and the machine say, for `make_plan` to put together."""

    estimates: Sequence[Estimate]
    rows_per_epoch: Mapping[str, int]
    row_tokens: int
    free_bytes: int
    machine: Machine
    sizes: ArchitectureConfig | None = None
    num_parameters: int = 0
    memory: Sequence[MemoryEstimate] = ()
    rate: Rate | None = None
    training_rate: Rate | None = None
    not_included: Sequence[str] = ()
    warnings: Sequence[str] = ()
    preference: PreferenceVolume | None = None
    is_cluster: bool = False
    """Whether the pair is read by servers over several GPUs each."""


def make_plan(recipe: Recipe, given: Given) -> Plan:
    """Put the rooms' estimates together into one bill with its warnings."""
    calls = tuple(_call_plan(e, recipe) for e in given.estimates if e.calls)
    phases = tuple(_timed(phase, recipe, given) for phase in phase_plans(recipe.train, given))
    hours = [p.hours for p in phases if p.hours is not None]
    training_hours = sum(hours) if len(hours) == len(phases) and phases else None
    preference_hours = _preference_hours(recipe, given)
    gpu_hours = ((training_hours or 0.0) + (preference_hours or 0.0)) * given.machine.num_gpus
    disk_bytes = sum(e.disk_bytes for e in given.estimates)
    found = [*given.warnings, *_step_warnings(phases, recipe.train)]
    found += _memory_warnings(given)
    found += [] if given.is_cluster else _reward_warnings(recipe, given.machine)
    if disk_bytes > given.free_bytes:
        found.append(
            f"the run needs {disk_bytes / 1e9:.1f} GB of disk and {given.free_bytes / 1e9:.1f} GB "
            "are free; make room, or lower train.keep_best"
        )
    return Plan(
        calls=calls,
        estimates=tuple(_with_time(e, given) for e in given.estimates if not e.calls),
        phases=phases,
        row_tokens=given.row_tokens,
        num_parameters=given.num_parameters,
        machine=given.machine,
        memory=tuple(given.memory),
        rate=given.rate,
        teacher_hours=_teacher_hours(calls, given.rate, recipe),
        training_hours=training_hours,
        preference_hours=preference_hours,
        training_rate=given.training_rate,
        not_included=tuple(given.not_included),
        cost=sum(call.cost for call in calls) + recipe.plan.price_per_gpu_hour * gpu_hours,
        disk_bytes=disk_bytes,
        free_bytes=given.free_bytes,
        warnings=tuple(found),
        preference=given.preference,
    )


def phase_plans(config: TrainConfig, given: Given) -> list[PhasePlan]:
    """The phases with their rows, without hours."""
    return [
        PhasePlan(
            name=phase.name,
            rows_per_epoch=given.rows_per_epoch[phase.name],
            batch_samples=phase.batch_samples,
            num_epochs=phase.num_epochs,
        )
        for phase in config.of_phases()
    ]


def training_flops(sizes: ArchitectureConfig, num_tokens: float, row_tokens: float) -> float:
    """Of forward and backward passes over `num_tokens` in rows of `row_tokens`.

    Six for each parameter that multiplies, and attention's over half of each row's square; what is
    computed again to save memory does not count (PaLM, arXiv 2204.02311, appendix B).
    """
    matrices = sizes.num_layers * sizes.layer_matrices + sizes.vocabulary * sizes.hidden_size
    attention = sizes.num_layers * sizes.query_size * row_tokens
    return 6.0 * num_tokens * (matrices + attention)


def _with_time(estimate: Estimate, given: Given) -> Estimate:
    """What the student itself reads and writes, in minutes where its speed was measured. A token
    that is read takes a third of a trained one's work; one that is written about as long."""
    if given.training_rate is None or not estimate.completion_tokens:
        return estimate
    work = estimate.prompt_tokens / 3 + estimate.completion_tokens
    minutes = work / given.training_rate.tokens_per_second / 60
    return estimate._replace(note=f"{estimate.note}; about {minutes:.1f} minutes here")


def _call_plan(estimate: Estimate, recipe: Recipe) -> CallPlan:
    is_judge = estimate.stage.startswith("judge")
    asked = who_is_asked(estimate.step, is_judge, recipe).config
    cost = estimate.prompt_tokens * asked.prompt_price
    cost += estimate.completion_tokens * asked.completion_price
    return CallPlan(
        step=estimate.step,
        stage=estimate.stage,
        is_judge=is_judge,
        calls=estimate.calls,
        prompt_tokens=estimate.prompt_tokens,
        completion_tokens=estimate.completion_tokens,
        cost=cost / 1e6,
    )


def _teacher_hours(calls: Sequence[CallPlan], rate: Rate | None, recipe: Recipe) -> float | None:
    """Of what the rate is of: the teacher's own calls as stated, the judge's too as probed."""
    if rate is None:
        return None
    roles = {"teacher"} if rate.known_by == STATED else {"teacher", "judge"}
    written = sum(
        call.completion_tokens
        for call in calls
        if who_is_asked(call.step, call.is_judge, recipe).role in roles
    )
    return written / rate.tokens_per_second / 3600


def _timed(phase: PhasePlan, recipe: Recipe, given: Given) -> PhasePlan:
    return replace(phase, hours=_hours(phase.rows_per_epoch * phase.num_epochs, recipe, given))


def _preference_hours(recipe: Recipe, given: Given) -> float | None:
    """Of the optimizer steps alone, their batches taken to be full."""
    steps = sum(e.optimizer_steps for e in given.estimates if e.step == "preferred")
    if recipe.prefer is None or not steps:
        return None
    batch_samples = recipe.prefer.batch_samples or recipe.train.batch_samples
    return _hours(steps * batch_samples, recipe, given)


def _hours(num_rows: int, recipe: Recipe, given: Given) -> float | None:
    """Of training on rows of the middling length, by the GPU's peak or by what was measured."""
    gpu, sizes = given.machine.gpu, given.sizes
    num_tokens = num_rows * given.row_tokens
    if not given.row_tokens:
        return None
    if gpu is not None and gpu.peak_tflops and sizes is not None:
        flops = training_flops(sizes, num_tokens, given.row_tokens)
        speed = recipe.plan.mfu * gpu.peak_tflops * 1e12 * given.machine.num_gpus
        return flops / speed / 3600
    if gpu is None and given.training_rate is not None:
        return num_tokens / given.training_rate.tokens_per_second / 3600
    return None


def _step_warnings(phases: Sequence[PhasePlan], config: TrainConfig) -> list[str]:
    """Name the phases that have no steps, or end while the learning rate still rises."""
    found = []
    done = 0
    for phase in phases:
        done = phase.num_steps + (done if config.warmup == "global" else 0)
        if not phase.num_steps:
            found.append(f"phase {phase.name} has no rows, and a run would stop there")
        elif done < config.warmup_steps:
            found.append(
                f"phase {phase.name} ends at step {done}, inside the warm-up of "
                f"{config.warmup_steps} steps: it never sees the full learning rate"
            )
    return found


def _memory_warnings(given: Given) -> list[str]:
    """Say that the recipe does not fit, and the nearest way that does."""
    room = given.machine.room_bytes
    if room is None or not given.memory or given.memory[0].total <= room:
        return []
    needed = given.memory[0].total / 2**30
    says = f"training needs {needed:.0f} GiB a GPU, and {room / 2**30:.0f} GiB are available"
    for other in given.memory[1:]:
        if other.total <= room:
            return [f"{says}; the nearest that fits: {', '.join(other.options)}"]
    return [f"{says}; nothing here fits: take a larger GPU or more of them, or a smaller base"]


def _reward_warnings(recipe: Recipe, machine: Machine) -> list[str]:
    """The reward pair is loaded one model at a time, in bf16."""
    parameters, room = recipe.plan.reward_parameters, machine.room_bytes
    prefer = recipe.prefer
    if prefer is None or prefer.reward_model_server:
        return []
    if prefer.aligned_server and prefer.base_server:
        return []
    if parameters is None or room is None or 2 * parameters <= room:
        return []
    return [
        f"a model of the reward pair takes {2 * parameters / 2**30:.0f} GiB in bf16, and "
        f"{room / 2**30:.0f} GiB are available on one GPU; take a larger GPU or a smaller pair"
    ]
