"""The whole method, top to bottom: taxonomy, exams, samples, phases, training, preferences, scores.

Every step is computed once, kept in the run directory and found again; see runs.py. What one room
needs of another is handed in here. What loads torch is imported where it is used, so that writing
samples needs none of it.
"""

from __future__ import annotations

import logging
from pathlib import Path

from feldspar.ahead import Subject, check_before_run
from feldspar.ahead.checks import Until
from feldspar.config import Recipe
from feldspar.evaluate.exams.read import OWN_EXAMS_STEP, exam_files
from feldspar.generate import (
    CALIBRATION_STEP,
    FUNNEL_FILE,
    LEAF_EXAMS_STEP,
    SAMPLES_STEP,
    asking_files,
    check_floor,
    read_funnel,
)
from feldspar.mix.earlier import rows_of_data
from feldspar.mix.phases import PHASES_STEP, warnings
from feldspar.prepare import Prepared, Teachers, look_ahead, open_teachers, place
from feldspar.progress import Progress
from feldspar.records import (
    Checkpoint,
    Conversation,
    ExamItem,
    Leaf,
    Phase,
    Sample,
    Score,
)
from feldspar.runs import Joined, Rows, Run
from feldspar.taxonomy import LEAVES_STEP, files_read
from feldspar.tokens.count import TokenCounter
from feldspar.views import write_report

log = logging.getLogger(__name__)


def run_recipe(
    recipe: Recipe,
    folder: Path,
    run_path: Path,
    progress: Progress,
    *,
    until: Until = "scores",
    num_processes: int = 1,
) -> Joined[Score] | None:
    """Do the whole method, or its steps up to `until`; gives the scores of every checkpoint.

    `folder` is the recipe's; `num_processes` train together. Raises FeldsparError where the user
    can mend it.
    """
    named, recipe = recipe, place(recipe, folder, progress)
    check_before_run(Subject(recipe=recipe, named=named, run_path=run_path, until=until))
    prepared = None if until == "samples" else look_ahead(recipe, until)
    with Run(run_path, recipe, progress, num_processes) as run:
        exams, samples = write_data(run)
        if prepared is None:
            return None
        phases = mix(run, prepared, samples)
        if until == "phases":
            return None
        checkpoints = train(run, prepared, exams, samples, phases, until)
        if until in ("trained", "preferred"):
            return None
        from feldspar.examine import examine

        scores = examine(run, prepared, checkpoints, exams, phases)
        write_report(run.path)
        return scores


def write_data(run: Run) -> tuple[Joined[ExamItem], Rows[Sample]]:
    """Have the teacher write exams, then samples that avoid what the exams ask."""
    recipe, config = run.recipe, run.recipe.generate
    leaves = run.step(LEAVES_STEP, reads=files_read(recipe.taxonomy))(recipe.taxonomy)
    with open_teachers(recipe, run.progress, run.path / "teachers.json") as teachers:
        if config.judge and config.judge_floor is not None:
            calibration = run.step(CALIBRATION_STEP, reads=asking_files(config))
            tried = calibration(leaves, config, judge=teachers.judge, seed=recipe.seed)
            check_floor(tried, config, teachers.judge.key)
        exams = gather_exams(run, leaves, teachers)
        samples = run.step(SAMPLES_STEP, reads=asking_files(config))(
            leaves,
            config,
            teacher=teachers.teacher,
            judge=teachers.judge,
            avoid=exams,
            seed=recipe.seed,
        )
    return exams, samples


def gather_exams(run: Run, leaves: Rows[Leaf], teachers: Teachers) -> Joined[ExamItem]:
    """The user's own exams, and each leaf's: held-out seeds, topped up with judged questions."""
    recipe = run.recipe
    own_exams = [exam for config in recipe.evaluate.exam for exam in exam_files(config)]
    own = run.step(OWN_EXAMS_STEP, reads={e.name: Path(e.path) for e in own_exams})(own_exams)
    of_leaves = run.step(LEAF_EXAMS_STEP, reads=asking_files(recipe.generate))(
        leaves,
        recipe.generate,
        teacher=teachers.teacher,
        judge=teachers.judge,
        seed=recipe.seed,
    )
    # Exams that were made by an earlier run of this recipe have cost it all the same.
    if of_leaves.file(FUNNEL_FILE).exists():
        spent = read_funnel(of_leaves.file(FUNNEL_FILE)).spent
        teachers.budget.spent = max(spent, teachers.budget.spent, key=lambda spent: spent.calls)
    return Joined(own, of_leaves)


def mix(run: Run, prepared: Prepared, samples: Rows[Sample]) -> Rows[Phase]:
    """What each phase sees, and what it replays."""
    recipe = run.recipe
    for warning in warnings(recipe.mix, recipe.train.phase):
        log.warning("%s", warning)
    base_replay = base_replay_of(run, prepared)
    data = {d.name: rows_of_data(d) for d in recipe.data}
    given = {**data, "base replay": base_replay}
    return run.step(
        PHASES_STEP, reads={name: rows for name, rows in given.items() if isinstance(rows, Path)}
    )(
        samples,
        recipe.mix,
        phases=[phase.of_mixing() for phase in recipe.train.phase],
        data=data,
        base_replay=base_replay,
        counter=TokenCounter(prepared.base.path),
    )


def base_replay_of(run: Run, prepared: Prepared) -> Path | Rows[Conversation] | None:
    """General data for every phase: a file, or what the base itself says, sampled once."""
    config = run.recipe.mix.base_replay
    if config is None:
        return None
    if config.source is not None:
        return Path(config.source)
    from feldspar.mix.base_rows import BASE_REPLAY_STEP

    prompts = {"prompts": Path(config.prompts)} if config.prompts else {}
    return run.step(BASE_REPLAY_STEP, reads=prompts)(
        prepared.base, config, student=prepared.student, seed=run.recipe.seed
    )


def train(
    run: Run,
    prepared: Prepared,
    exams: Joined[ExamItem],
    samples: Rows[Sample],
    phases: Rows[Phase],
    until: Until,
) -> list[tuple[str, Checkpoint]]:
    """Train through the phases and tune on preferences; every checkpoint, the base first."""
    recipe = run.recipe
    from feldspar.evaluate.exams.checkpoints import ScoreOnExams
    from feldspar.student.training.tracking import Tracking
    from feldspar.train.phases import TRAINED_STEP

    score = ScoreOnExams(
        exams,
        student=prepared.student,
        config=recipe.evaluate.of_exams(),
        seed=recipe.seed,
        cache_path=run.path / "answers",
        progress=run.progress,
    )
    trained = run.step(TRAINED_STEP)(
        prepared.base,
        phases,
        recipe.train.of_phases(),
        recipe.train.of_optimizer(),
        student=prepared.student,
        scores={"exams": score, **prepared.benchmarks(run.progress)},
        min_selection_items=recipe.evaluate.min_selection_items,
        seed=recipe.seed,
        tracking=Tracking(recipe.track, recipe.name),
    )
    named = [("base", prepared.base), *((c.phase, c) for c in trained)]
    if recipe.prefer is not None and until != "trained":
        from feldspar.tune import tune

        preferred = tune(run, prepared, trained.last(), samples, score)
        named += [(c.phase, c) for c in preferred]
    return named
