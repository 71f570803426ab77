"""What a run will cost, put together from what each room and the machine say. Trains nothing."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from feldspar.config import BudgetConfig, Recipe
from feldspar.files import write_json
from feldspar.generate import Probed, expected_samples, expected_tokens, num_exam_items, probe
from feldspar.generate import estimate as estimate_generation
from feldspar.mix.earlier import rows_of_data
from feldspar.mix.files import count_rows
from feldspar.mix.phases import warnings
from feldspar.plan import Given, Plan, Rate, machine_here, make_plan, named_machine
from feldspar.prepare import open_teachers, place
from feldspar.progress import Progress
from feldspar.records import Branch, Estimate, Leaf
from feldspar.stored import read_stored
from feldspar.student.template.tokens import LAB
from feldspar.taxonomy import read_readable
from feldspar.tokens.count import guess_tokens

if TYPE_CHECKING:
    from feldspar.mix.estimate import PhaseRows


def plan_recipe(
    recipe: Recipe, folder: Path, progress: Progress, *, gpu: str | None = None, num_probes: int = 0
) -> Plan:
    """What the run will cost, from recipe, taxonomy, documents and machine alone.

    Asks no teacher, but for `num_probes` of the run's own calls. `gpu` names another machine.
    """
    from feldspar.mix.estimate import expected_rows
    from feldspar.student.model_sizes import num_weights, read_architecture
    from feldspar.student.training.memory import memory_ways

    gpu = gpu or recipe.plan.gpu
    machine = named_machine(gpu) if gpu else machine_here()
    placed = place(recipe, folder, progress, parts=set())
    leaves, left_out = read_readable(placed.taxonomy, progress=progress)
    rate = find_rate(placed, folder, leaves, num_probes, progress)
    rows_of = {d.name: rows_of_data(d) for d in placed.data}
    num_data = {n: count_rows(r) if isinstance(r, Path) else len(r) for n, r in rows_of.items()}
    samples = expected_samples(leaves, placed.generate, placed.seed)
    rows = expected_rows(placed.train.phase, placed.mix, samples, num_data)
    sizes = read_architecture(placed.student.base) or placed.plan.architecture
    num_parameters = num_weights(Path(placed.student.base)) or (
        sizes.num_parameters if sizes else 0
    )
    memory = machine.gpu.memory_bytes if machine.gpu else None
    ways = (
        memory_ways(sizes, placed.train, placed.student, machine.num_gpus, memory) if sizes else []
    )
    return make_plan(
        placed,
        Given(
            estimates=estimate_steps(placed, leaves, rows, num_parameters),
            rows_per_epoch={r.name: r.total for r in rows},
            row_tokens=placed.plan.row_tokens or row_tokens(placed, leaves, samples),
            free_bytes=shutil.disk_usage(folder).free,
            sizes=sizes,
            num_parameters=num_parameters,
            machine=machine,
            memory=ways,
            rate=rate,
            warnings=[*warnings(placed.mix, placed.train.phase), *left_out],
        ),
    )


def estimate_steps(
    recipe: Recipe, leaves: Sequence[Leaf], rows: Sequence[PhaseRows], num_parameters: int
) -> list[Estimate]:
    """What each step of a run will cost, said by its own room."""
    from feldspar.evaluate.estimate import estimate as estimate_evaluation
    from feldspar.mix.estimate import estimate as estimate_mix
    from feldspar.prefer.estimate import estimate as estimate_prefer
    from feldspar.train.estimate import estimate as estimate_train

    of_phases = {r.name: r.total for r in rows}
    found = [
        *estimate_generation(leaves, recipe.generate, recipe.seed),
        estimate_mix(rows),
        estimate_train(of_phases, recipe.train, num_parameters),
    ]
    if recipe.prefer is not None:
        samples = expected_samples(leaves, recipe.generate, recipe.seed)
        num_prompts = sum(samples[branch] for branch in recipe.prefer.branches)
        found.append(estimate_prefer(recipe.prefer, recipe.train, num_prompts, num_parameters))
    # Half of each exam chooses checkpoints.
    num_items = sum(-(-num_exam_items(x, recipe.generate, recipe.seed) // 2) for x in leaves)
    num_tuned = recipe.prefer.num_rounds * (1 + recipe.prefer.control) if recipe.prefer else 0
    num_checkpoints = 1 + len(recipe.train.phase) + num_tuned
    return [*found, *estimate_evaluation(recipe.evaluate, num_items, num_checkpoints)]


def row_tokens(recipe: Recipe, leaves: Sequence[Leaf], samples: Mapping[Branch, int]) -> int:
    """Tokens of a training row on average, its template's and system prompt's with it."""
    num_samples = sum(samples.values())
    tokens = sum(expected_tokens(leaves, recipe.generate, recipe.seed).values())
    framed = LAB.tokens_per_turn + guess_tokens(recipe.student.system_prompt)
    return round(tokens / num_samples) + framed if num_samples else 0


def find_rate(
    recipe: Recipe, folder: Path, leaves: Sequence[Leaf], num_probes: int, progress: Progress
) -> Rate | None:
    """How fast the teacher writes: as the recipe states, or as `num_probes` calls of the run show.

    What was measured is kept beside the journal, since calls that are answered cannot be timed
    again.
    """
    if recipe.plan.teacher_tokens_per_second is not None:
        return Rate(tokens_per_second=recipe.plan.teacher_tokens_per_second, known_by="stated")
    journal_path = folder / recipe.journal
    path = journal_path.with_name("probes.json")
    known = read_stored(path, dict[str, Probed]) if path.exists() else {}
    config = recipe.teacher
    teacher = f"{config.folder or config.command or config.endpoint} {config.model or ''}"
    if num_probes:
        budget = BudgetConfig(max_calls=num_probes)
        capped = recipe.generate.model_copy(update={"budget": budget})
        asking = recipe.model_copy(update={"generate": capped, "journal": str(journal_path)})
        with open_teachers(asking, progress) as teachers:
            probed = probe(
                leaves, capped, teacher=teachers.teacher, judge=teachers.judge, seed=recipe.seed
            )
        if probed.calls:
            known[teacher] = probed
            write_json(path, {name: one._asdict() for name, one in known.items()})
    if teacher not in known:
        return None
    probed = known[teacher]
    return Rate(
        tokens_per_second=probed.completion_tokens / probed.seconds,
        known_by=f"{probed.calls:,.0f} calls in {probed.seconds:.1f} s",
    )
