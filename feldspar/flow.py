"""The whole method, top to bottom: taxonomy, exams, samples, phases, training, preferences, scores.

Every step is computed once, kept in the run directory and found again; see runs.py. What one room
needs of another is handed in here. What loads torch is imported where it is used, so that writing
samples needs none of it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

from feldspar.ahead import Subject, check_before_run
from feldspar.ahead.checks import NOTICES, Until
from feldspar.config import Recipe
from feldspar.evaluate.exams.read import OWN_EXAMS_STEP, all_exam_files
from feldspar.generate import (
    CALIBRATION_STEP,
    FUNNEL_FILE,
    LEAF_EXAMS_STEP,
    SAMPLES_STEP,
    asking_files,
    check_floor,
    read_funnel,
    review_samples,
)
from feldspar.mix.earlier import rows_of_data
from feldspar.mix.phases import PHASES_STEP, warnings
from feldspar.prepare import (
    Prepared,
    Teachers,
    look_ahead,
    open_teachers,
    pin_base,
    place,
    settled,
    trained_in_one_way,
)
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
from feldspar.reviews import note_honoured
from feldspar.runs import Joined, Rows, Run
from feldspar.taxonomy import LEAVES_STEP, files_read
from feldspar.tokens.count import TokenCounter
from feldspar.views import write_report

log = logging.getLogger(__name__)
notice = logging.getLogger(NOTICES)


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
    named = recipe
    trained_in_one_way(recipe, num_processes)
    recipe = pin_base(recipe, run_path)
    recipe = place(recipe, folder, progress, makes_base=until != "samples")
    check_before_run(Subject(recipe=recipe, named=named, run_path=run_path, until=until))
    prepared = None if until == "samples" else look_ahead(recipe, until, run_path)
    with Run(run_path, settled(recipe, prepared, run_path), progress, num_processes) as run:
        exams: Joined[ExamItem] = Joined(own_exams(run))
        samples: Iterable[Sample] = ()
        if recipe.taxonomy is not None or until == "samples":
            exams, written = write_data(run)
            samples = written if prepared is None else reviewed(run, written, exams)
        if prepared is None:
            return None
        prepared.note(run.path)
        phases = mix(run, prepared, samples)
        if until == "phases":
            return None
        checkpoints = train(run, prepared, exams, samples, phases, until)
        if until in ("trained", "preferred"):
            return None
        from feldspar.examine import examine

        scores = examine(run, prepared, checkpoints, exams, phases)
        run.forget_others()
        write_report(run.path)
        return scores


def write_data(run: Run) -> tuple[Joined[ExamItem], Rows[Sample]]:
    """Have the teacher write exams, then samples that avoid what the exams ask."""
    recipe, config = run.recipe, run.recipe.generate
    taxonomy = recipe.wanted_taxonomy("generating samples")
    leaves = run.step(LEAVES_STEP, reads=files_read(taxonomy))(taxonomy)
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
    own = own_exams(run)
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


def own_exams(run: Run) -> Rows[ExamItem]:
    """The items of the user's own exams."""
    exams = all_exam_files(run.recipe.evaluate.exam)
    return run.step(OWN_EXAMS_STEP, reads={e.name: Path(e.path) for e in exams})(exams)


def reviewed(run: Run, samples: Rows[Sample], exams: Iterable[ExamItem]) -> Iterable[Sample]:
    """The samples as people left them, and a note of what their decisions changed."""
    found = review_samples(samples, run.path, exams, run.recipe.generate)
    note_honoured(run.path, found.counts)
    if found.counts.num_reviewed:
        notice.info("%s", found.counts.sentence)
    return found


def mix(run: Run, prepared: Prepared, samples: Iterable[Sample]) -> Rows[Phase]:
    """What each phase sees, and what it replays."""
    recipe = run.recipe
    for warning in warnings(recipe.mix, recipe.train.phase):
        log.warning("%s", warning)
    samples = in_own_voice(run, prepared, samples)
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


def in_own_voice(run: Run, prepared: Prepared, samples: Iterable[Sample]) -> Iterable[Sample]:
    """The samples with the answers that the base says as well in its own words."""
    config = run.recipe.own_voice
    if config is None or run.recipe.taxonomy is None:
        return samples
    from feldspar.mix.own_voice import OWN_VOICE_STEP

    return run.step(OWN_VOICE_STEP)(
        samples, prepared.base, config, student=prepared.student, seed=run.recipe.seed
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
    samples: Iterable[Sample],
    phases: Rows[Phase],
    until: Until,
) -> list[tuple[str, Checkpoint]]:
    """Train through the phases and tune on preferences; every checkpoint, the base first."""
    recipe = run.recipe
    from feldspar.examine import marks_for_choosing
    from feldspar.student.training.tracking import Tracking
    from feldspar.train.phases import TRAINED_STEP

    marks = marks_for_choosing(run, prepared, exams)
    trained = run.step(TRAINED_STEP)(
        prepared.base,
        phases,
        recipe.train.of_phases(),
        recipe.train.of_optimizer(),
        student=prepared.student,
        scores=marks.of_phases,
        kept=marks.kept_of_phases,
        min_selection_items=recipe.evaluate.min_selection_items,
        seed=recipe.seed,
        tracking=Tracking(recipe.track, recipe.name),
    )
    checkpoints = [prepared.base, *trained]
    if recipe.train.merge is not None and recipe.train.merges_the_end:
        from feldspar.train.merge import MERGED_STEP

        config = recipe.train.merge
        checkpoints += run.step(MERGED_STEP)(
            checkpoints[0 if config.start == "base" else -2],
            checkpoints[-1],
            config,
            learned=marks.learned,
            kept=marks.kept,
            min_selection_items=recipe.evaluate.min_selection_items,
        )
    if recipe.prefer is not None and until != "trained":
        from feldspar.tune import tune

        checkpoints += tune(run, prepared, checkpoints[-1], samples, marks.learned, marks.kept)
    return [("base", prepared.base), *((c.phase, c) for c in checkpoints[1:])]
