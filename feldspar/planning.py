"""What a run will cost, put together from what each room and the machine say. Trains nothing."""

from __future__ import annotations

import os
import shutil
import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from feldspar.config import ArchitectureConfig, BudgetConfig, Recipe, StudentConfig
from feldspar.files import write_json
from feldspar.generate import (
    Probed,
    expected_samples,
    expected_texts,
    expected_tokens,
    foresee_volume,
    num_exam_items,
    probe,
)
from feldspar.generate import estimate as estimate_generation
from feldspar.mix.earlier import EarlierRows, rows_of_data
from feldspar.mix.files import BadRow, count_rows, read_file
from feldspar.mix.phases import warnings
from feldspar.plan import (
    STATED,
    Cluster,
    ClusterPlan,
    Given,
    Machine,
    Plan,
    Rate,
    machine_here,
    make_plan,
    named_machine,
    plan_on_cluster,
)
from feldspar.prepare import open_teachers, place
from feldspar.progress import Progress
from feldspar.records import BRANCHES, Branch, Estimate, Leaf, PreferenceVolume
from feldspar.stored import read_stored
from feldspar.student.precision import ModelSize, find_precision, size_of_base
from feldspar.student.template.tokens import LAB
from feldspar.taxonomy import read_readable
from feldspar.tokens.count import guess_tokens

if TYPE_CHECKING:
    from feldspar.mix.estimate import PhaseRows

PROBES = "probes.json"
"""Beside the journal: what was measured."""
ROWS_READ = 1000
"""Of each source of the user's own, to see how long rows are."""
CPU_PROBE_SECONDS = 15.0
CPU_PROBE_TOKENS = 2048
"""In a micro-batch of the probe."""


class PlannedOnCluster(NamedTuple):
    """A plan for all GPUs of a cluster together, and who of the run holds them when."""

    plan: Plan
    cluster: ClusterPlan


def plan_cluster(
    recipe: Recipe, folder: Path, progress: Progress, cluster: Cluster, *, num_probes: int = 0
) -> PlannedOnCluster:
    """As `plan_recipe`, with a timetable of the cluster's GPUs. Raises RecipeError where a model
    fits on no part of it."""
    from feldspar.student.model_sizes import read_architecture

    made = plan_recipe(recipe, folder, progress, cluster=cluster, num_probes=num_probes)
    placed = place(recipe, folder, progress, parts=set())
    sizes = read_architecture(placed.student.base) or placed.plan.architecture
    return PlannedOnCluster(made, plan_on_cluster(placed, made, cluster, sizes))


def plan_recipe(
    recipe: Recipe,
    folder: Path,
    progress: Progress,
    *,
    gpu: str | None = None,
    cluster: Cluster | None = None,
    num_probes: int = 0,
) -> Plan:
    """What the run will cost, from recipe, taxonomy, documents and machine alone.

    Asks no teacher, but for `num_probes` of the run's own calls. `gpu` names another machine; of
    a `cluster` all GPUs train together.
    """
    from feldspar.mix.estimate import expected_rows
    from feldspar.student.model_sizes import num_weights, read_architecture
    from feldspar.student.training.memory import memory_ways

    gpu = gpu or recipe.plan.gpu
    if cluster is not None:
        machine = cluster.machine
    else:
        machine = named_machine(gpu) if gpu else machine_here()
    placed = place(recipe, folder, progress, parts=set())
    written = foresee(placed, progress)
    rate = find_rate(placed, folder, written.leaves, num_probes, progress)
    rows_of = {d.name: rows_of_data(d) for d in placed.data}
    num_data = {n: count_rows(r) if isinstance(r, Path) else len(r) for n, r in rows_of.items()}
    rows = expected_rows(placed.train.phase, placed.mix, written.samples, num_data, written.texts)
    sizes = read_architecture(placed.student.base) or placed.plan.architecture
    num_parameters = num_weights(Path(placed.student.base)) or (
        sizes.num_parameters if sizes else 0
    )
    memory = machine.gpu.memory_bytes if machine.gpu else None
    student = planned_student(placed.student, machine, sizes)
    ways = memory_ways(sizes, placed.train, student, machine.num_gpus, memory) if sizes else []
    tokens = placed.plan.row_tokens or row_tokens(placed, written, rows_of.values())
    is_timed = machine.gpu is None and tokens > 0
    return make_plan(
        placed,
        Given(
            estimates=estimate_steps(placed, written, rows, num_parameters, sizes),
            rows_per_epoch={r.name: r.total for r in rows},
            row_tokens=tokens,
            free_bytes=shutil.disk_usage(folder).free,
            sizes=sizes,
            num_parameters=num_parameters,
            machine=machine,
            memory=ways,
            rate=rate,
            training_rate=find_training_rate(placed, folder, tokens, measure=num_probes > 0)
            if is_timed
            else None,
            not_included=[*not_included(placed), *written.not_included],
            warnings=[*warnings(placed.mix, placed.train.phase), *written.notes],
            preference=preference_volume(placed, written),
            is_cluster=cluster is not None,
        ),
    )


def planned_student(
    config: StudentConfig, machine: Machine, sizes: ArchitectureConfig | None
) -> StudentConfig:
    """The same with the dtype that `auto` will mean on the machine."""
    size = size_of_base(config.base)
    if size is None and sizes is not None:
        size = ModelSize(sizes.num_parameters, sizes.hidden_size, sizes.intermediate_size)
    found = find_precision(config, "cuda" if machine.gpu else "cpu", size)
    return config.model_copy(update={"dtype": found.dtype})


class Written(NamedTuple):
    """What the teacher is to write, as far as can be estimated."""

    leaves: Sequence[Leaf]
    samples: Mapping[Branch, int]
    texts: Mapping[Branch, int]
    """Of the samples."""
    tokens: int
    """Of all samples together."""
    estimates: Sequence[Estimate]
    notes: Sequence[str] = ()
    not_included: Sequence[str] = ()


def foresee(recipe: Recipe, progress: Progress) -> Written:
    """By the leaves that can be read; by `plan.samples` where the taxonomy is not there yet;
    nothing where the recipe has none.

    Raises TaxonomyError where there is neither.
    """
    config, volume, taxonomy = recipe.generate, recipe.plan.samples, recipe.taxonomy
    if taxonomy is None:
        return Written((), dict.fromkeys(BRANCHES, 0), {}, 0, ())
    if volume is None or Path(taxonomy.path).exists():
        leaves, left_out = read_readable(taxonomy, progress=progress)
        return Written(
            leaves,
            expected_samples(leaves, config, recipe.seed),
            expected_texts(leaves, config, recipe.seed),
            sum(expected_tokens(leaves, config, recipe.seed).values()),
            estimate_generation(leaves, config, recipe.seed),
            [*left_out, *reward_prompt_faults(recipe, leaves)],
        )
    wanted: dict[Branch, int] = {branch: getattr(volume, branch) for branch in BRANCHES}
    foreseen = foresee_volume(wanted, config, recipe.seed)
    total = sum(foreseen.samples.values())
    return Written(
        (),
        foreseen.samples,
        foreseen.texts,
        foreseen.tokens,
        foreseen.estimates,
        [
            f"{taxonomy.path} is not there: planned for the {total:,} samples of "
            "plan.samples, with seeds of 95 tokens and passages of 400"
        ],
        ["exams of leaves: how many leaves there will be is not known"],
    )


def not_included(recipe: Recipe) -> list[str]:
    """What a run spends time on that no figure of the plan holds."""
    config = recipe.evaluate
    found = ["exams: the student's answers, at each checkpoint"]
    if recipe.train.merge is not None:
        num_weights = len(recipe.train.merge.weights)
        found.append(f"merged weights: the exams of the start and of {num_weights} weights")
    if recipe.prefer is not None:
        found.append("preferences: sampling the answers, and reading them with both models")
    if config.benchmark:
        tasks = ", ".join(b.task for b in config.benchmark)
        found.append(f"benchmarks: {tasks}, on the base and on the result")
    if config.mt_bench is not None:
        found.append("MT-Bench: the student's answers; its judge's calls are among the teacher's")
    return found


def estimate_steps(
    recipe: Recipe,
    written: Written,
    rows: Sequence[PhaseRows],
    num_parameters: int,
    sizes: ArchitectureConfig | None = None,
) -> list[Estimate]:
    """What each step of a run will cost, said by its own room."""
    from feldspar.evaluate.estimate import estimate as estimate_evaluation
    from feldspar.mix.estimate import estimate as estimate_mix
    from feldspar.prefer.estimate import estimate as estimate_prefer
    from feldspar.student.training.memory import num_trained
    from feldspar.train.estimate import estimate as estimate_train
    from feldspar.train.estimate import estimate_merge

    of_phases = {r.name: r.total for r in rows}
    trained = num_trained(sizes, recipe.student) if sizes and recipe.student.lora else None
    found = [
        *written.estimates,
        estimate_mix(rows),
        estimate_train(of_phases, recipe.train, num_parameters, trained),
    ]
    if recipe.train.merge is not None:
        found.append(estimate_merge(recipe.train, num_parameters))
    if recipe.prefer is not None:
        num_prompts = sum(written.samples[branch] for branch in recipe.prefer.branches)
        found.append(estimate_prefer(recipe.prefer, recipe.train, num_prompts, num_parameters))
    # Half of each exam chooses checkpoints.
    num_items = sum(
        -(-num_exam_items(leaf, recipe.generate, recipe.seed) // 2) for leaf in written.leaves
    )
    num_tuned = recipe.prefer.num_rounds * (1 + recipe.prefer.control) if recipe.prefer else 0
    num_checkpoints = 1 + len(recipe.train.phase) + recipe.train.merges_the_end + num_tuned
    return [*found, *estimate_evaluation(recipe.evaluate, num_items, num_checkpoints)]


def preference_volume(recipe: Recipe, written: Written) -> PreferenceVolume | None:
    """What preference rounds draw; None where the recipe has none."""
    from feldspar.prefer.estimate import volume

    if recipe.prefer is None:
        return None
    num_prompts = sum(written.samples[branch] for branch in recipe.prefer.branches)
    return volume(recipe.prefer, num_prompts)


def reward_prompt_faults(recipe: Recipe, leaves: Sequence[Leaf]) -> list[str]:
    """Domains of the reward pair's prompts that no question is of, as far as leaves are known."""
    from feldspar.prefer.reward_prompts import PlacedLeaf, unused_domains

    if recipe.prefer is None or not leaves:
        return []
    return list(unused_domains(recipe.prefer, (PlacedLeaf(x.path, x.branch) for x in leaves)))


def row_tokens(recipe: Recipe, written: Written, data: Iterable[Path | EarlierRows]) -> int:
    """Tokens of a training row on average, its template's and system prompt's with it: of the
    samples to be written, or of the first rows of all `data` where none are."""
    framed = LAB.tokens_per_turn + guess_tokens(recipe.student.system_prompt)
    if num_samples := sum(written.samples.values()):
        return round(written.tokens / num_samples) + framed
    lengths = [
        sum(guess_tokens(message.content) for message in row.messages)
        for rows in data
        for row in islice(read_file(rows, "data") if isinstance(rows, Path) else rows, ROWS_READ)
        if not isinstance(row, BadRow)
    ]
    return round(statistics.mean(lengths)) + framed if lengths else 0


def find_training_rate(
    recipe: Recipe, folder: Path, num_tokens: int, *, measure: bool
) -> Rate | None:
    """How fast the base trains on this machine's CPU, in rows of `num_tokens`: measured now, or by
    an earlier probe."""
    path = (folder / recipe.journal).with_name(PROBES)
    known = _read_probes(path)
    base = Path(recipe.student.base)
    name = f"training {base} on {os.cpu_count()} cores"
    if measure and (base / "config.json").is_file():
        from feldspar.student.training.speed import measure_speed

        speed = measure_speed(
            str(base),
            recipe.student,
            num_tokens,
            micro_batch_tokens=min(recipe.train.tokens_per_micro_batch, CPU_PROBE_TOKENS),
            seconds=CPU_PROBE_SECONDS,
        )
        known[name] = speed._asdict()
        write_json(path, known, is_shared=True)
    if name not in known:
        return None
    tokens, seconds = known[name]["tokens"], known[name]["seconds"]
    return Rate(
        tokens_per_second=tokens / seconds,
        known_by=f"{tokens:,.0f} tokens trained in {seconds:.1f} s",
    )


def find_rate(
    recipe: Recipe, folder: Path, leaves: Sequence[Leaf], num_probes: int, progress: Progress
) -> Rate | None:
    """How fast the teacher writes: as the recipe states, or as `num_probes` calls of the run show.
    Without leaves there is nothing to ask.

    What was measured is kept beside the journal, since calls that are answered cannot be timed
    again: as many calls are not asked a second time, and fewer never replace more.
    """
    if recipe.plan.teacher_tokens_per_second is not None:
        return Rate(tokens_per_second=recipe.plan.teacher_tokens_per_second, known_by=STATED)
    journal_path = folder / recipe.journal
    path = journal_path.with_name(PROBES)
    known = _read_probes(path)
    config = recipe.teacher
    teacher = f"{config.folder or config.command or config.endpoint} {config.model or ''}"
    num_known = known[teacher]["calls"] if teacher in known else 0
    if num_probes > num_known and leaves:
        budget = BudgetConfig(max_calls=num_probes)
        capped = recipe.generate.model_copy(update={"budget": budget})
        asking = recipe.model_copy(update={"generate": capped, "journal": str(journal_path)})
        with open_teachers(asking, progress) as teachers:
            probed = probe(
                leaves, capped, teacher=teachers.teacher, judge=teachers.judge, seed=recipe.seed
            )
        if probed.calls > num_known:
            known[teacher] = probed._asdict()
            write_json(path, known, is_shared=True)
    if teacher not in known:
        return None
    probed = Probed(**known[teacher])
    return Rate(
        tokens_per_second=probed.completion_tokens / probed.seconds,
        known_by=f"{probed.calls:,.0f} calls in {probed.seconds:.1f} s",
    )


def _read_probes(path: Path) -> dict[str, dict[str, float]]:
    """What was measured here before, by what it was of."""
    return read_stored(path, dict[str, dict[str, float]]) if path.exists() else {}
