"""What the checkpoints are worth: exams, judged answers, published benchmarks and MT-Bench, and all
of it again without the items that training saw."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from feldspar.config import BudgetConfig, TeacherConfig
from feldspar.config.train import LEARNED_AND_KEPT
from feldspar.evaluate.benchmarks.run import BENCHMARKS_STEP
from feldspar.evaluate.benchmarks.tasks import data_files, harness_version
from feldspar.evaluate.contamination import TOUCHED_STEP, UNTOUCHED_STEP
from feldspar.evaluate.examinee import row_name
from feldspar.evaluate.exams.answers import is_judged
from feldspar.evaluate.exams.checkpoints import SCORES_STEP, SERVED_EXAMS_STEP, ScoreOnExams
from feldspar.evaluate.exams.judging import JUDGED_STEP
from feldspar.evaluate.general.questions import content_digest, general_items
from feldspar.evaluate.general.run import GENERAL_STEP
from feldspar.evaluate.general.selecting import GeneralKept, LearnedAndKept
from feldspar.evaluate.mt_bench.run import MT_BENCH_STEP
from feldspar.evaluate.retrieval import RETRIEVAL_STEP
from feldspar.evaluate.served_examinee import ServedExaminee
from feldspar.prepare import Prepared, Teachers, open_server, open_teachers, tokenizer_of_server
from feldspar.records import Checkpoint, ExamItem, Phase, Score, ScoreItems
from feldspar.runs import Joined, Rows, Run, cache_folder
from feldspar.taxonomy import LEAVES_STEP, files_read
from feldspar.teacher import Teacher

log = logging.getLogger(__name__)

MET_FILE = "teachers.json"
"""In a run: the models that were found behind servers."""


class ChoosingMarks(NamedTuple):
    """What checkpoints are chosen by: items that are never reported."""

    learned: ScoreOnExams
    kept: ScoreItems | None
    """The exams of what is to be kept, and general knowledge where merged weights or a release are
    chosen by it. None where nothing asks for either."""
    kept_of_phases: ScoreItems | None
    """What phases are warned by. General knowledge is a part only where each phase is merged: else
    merging what is trained would be another training."""
    of_phases: dict[str, ScoreItems]
    """What a phase's `select` may name."""


def marks_for_choosing(run: Run, prepared: Prepared, exams: Joined[ExamItem]) -> ChoosingMarks:
    """What the phases, merged weights and preference tuning choose by."""
    recipe = run.recipe
    learned, retention = (
        ScoreOnExams(
            exams,
            student=prepared.student,
            config=recipe.evaluate.of_exams(),
            seed=recipe.seed,
            cache_path=run.path / "answers",
            progress=run.progress,
            base_cache=cache_folder() / "exams",
            retention=is_kept,
        )
        for is_kept in (False, True)
    )
    asked = retention if retention.has_items else None
    kept: ScoreItems | None = asked
    of_phases = {"exams": learned, **prepared.benchmarks(run.progress)}
    if any(phase.select == LEARNED_AND_KEPT for phase in recipe.train.phase):
        weight = recipe.evaluate.general.kept_weight
        of_phases[LEARNED_AND_KEPT] = LearnedAndKept(learned, general_kept(run, prepared), weight)
    chooses = recipe.train.merge is not None or recipe.prefer is not None
    if chooses and prepared.asks_general(recipe.evaluate):
        kept = general_kept(run, prepared, kept)
    if recipe.train.merge is not None and kept is None:
        log.warning(
            "train.merge chooses by what was learned alone: no [[evaluate.exam]] with `retention` "
            "has items for choosing"
        )
    for_phases = kept if recipe.train.merges_each_phase else asked
    return ChoosingMarks(learned, kept, for_phases, of_phases)


def general_kept(run: Run, prepared: Prepared, others: ScoreItems | None = None) -> GeneralKept:
    """Marks of what the base knows, and of `others`."""
    return GeneralKept(
        prepared.base,
        run.recipe.evaluate.general,
        student=prepared.student,
        cache_path=cache_folder() / "general",
        progress=run.progress,
        others=others,
    )


def examine(
    run: Run,
    prepared: Prepared,
    checkpoints: list[tuple[str, Checkpoint]],
    exams: Joined[ExamItem],
    phases: Rows[Phase],
) -> Joined[Score]:
    """Every score of every checkpoint, the base first and the result last; then those of the model
    of `evaluate.server`."""
    recipe = run.recipe
    scores = run.step(SCORES_STEP)(
        checkpoints,
        exams,
        recipe.evaluate.of_exams(),
        student=prepared.student,
        seed=recipe.seed,
        base_cache=cache_folder() / "exams",
    )
    ends = [checkpoints[0], checkpoints[-1]]
    with open_server_of(run) as server:
        served = examine_served(run, server, exams, [name for name, _ in checkpoints])
        general = measure_general(run, prepared, ends, server)
        benchmarks = measure_benchmarks(run, prepared, ends, server)
        mt_bench = rate_chats(run, prepared, ends, server)
    retrieved = ask_with_passages(run, prepared, ends, exams)
    of_exams = scores if served is None else Joined(scores, served)
    published = [rows for rows in (general, benchmarks, mt_bench) if rows is not None]
    judged = judge_answers(run, exams, of_exams)
    asked = [] if general is None else [posed for i in general_items() for posed in i.posed()]
    touched = run.step(TOUCHED_STEP)(phases, exams, benchmarks, prepared.mt_bench, asked)
    untouched = run.step(UNTOUCHED_STEP)(
        touched,
        exams,
        of_exams,
        published,
        num_resamples=recipe.evaluate.num_resamples,
        seed=recipe.seed,
    )
    rows = [scores, served, retrieved, *judged, *published, untouched]
    return Joined(*(of_step for of_step in rows if of_step is not None))


def examine_served(
    run: Run, server: Teacher | None, exams: Joined[ExamItem], checkpoints: Sequence[str]
) -> Rows[Score] | None:
    """What the server's model scores on the exams; None where it is not asked them."""
    config = run.recipe.evaluate
    if server is None or not config.asks_server("exams"):
        return None
    name = row_name(server.model, checkpoints)
    return run.step(SERVED_EXAMS_STEP)(
        exams,
        config.of_exams(),
        served=ServedExaminee(server, name, tokenizer_of_server(config)),
        seed=run.recipe.seed,
    )


def ask_with_passages(
    run: Run, prepared: Prepared, named: list[tuple[str, Checkpoint]], exams: Joined[ExamItem]
) -> Rows[Score] | None:
    """Exams with retrieved passages; None where the recipe wants none, or has no leaves."""
    recipe = run.recipe
    if recipe.evaluate.retrieval is None or recipe.taxonomy is None:
        return None
    leaves = run.step(LEAVES_STEP, reads=files_read(recipe.taxonomy))(recipe.taxonomy)
    return run.step(RETRIEVAL_STEP)(
        named,
        leaves,
        exams,
        recipe.evaluate.retrieval,
        recipe.evaluate.of_items(),
        student=prepared.student,
        seed=recipe.seed,
    )


def measure_general(
    run: Run, prepared: Prepared, named: list[tuple[str, Checkpoint]], server: Teacher | None
) -> Rows[Score] | None:
    """What was kept of the base's general knowledge; None where it is not to be asked."""
    config = run.recipe.evaluate
    if not prepared.asks_general(config):
        return None
    text = config.general.text
    return run.step(GENERAL_STEP, reads={"text": Path(text)} if text else {})(
        named,
        config.general,
        student=prepared.student,
        server=_examined(server, named) if config.asks_server("exams") else None,
        version=content_digest(),
        num_resamples=config.num_resamples,
        seed=run.recipe.seed,
        cache_path=cache_folder() / "general",
    )


def measure_benchmarks(
    run: Run, prepared: Prepared, named: list[tuple[str, Checkpoint]], server: Teacher | None
) -> Rows[Score] | None:
    """The published benchmarks of the recipe; None where it has none."""
    config = run.recipe.evaluate
    if not config.benchmark:
        return None
    files = {f"{b.task}/{path.name}": path for b in config.benchmark for path in data_files(b)}
    server_tasks = [b.task for b in config.benchmark if config.asks_server(b.task)]
    return run.step(BENCHMARKS_STEP, reads=files)(
        named,
        config.benchmark,
        student=prepared.student,
        server=_examined(server, named) if server_tasks else None,
        server_tasks=server_tasks,
        harness=harness_version(),
        cache_path=cache_folder() / "benchmarks",
    )


def rate_chats(
    run: Run, prepared: Prepared, named: list[tuple[str, Checkpoint]], server: Teacher | None
) -> Rows[Score] | None:
    """MT-Bench, rated by its own judge or by the recipe's; None where the recipe has none."""
    evaluate = run.recipe.evaluate
    config = evaluate.mt_bench
    if config is None:
        return None
    assert prepared.mt_bench is not None
    files = dict(prepared.mt_bench_files)
    if config.baseline:
        files["baseline"] = Path(config.baseline)
    asks_server = evaluate.asks_server("mt-bench")
    with open_examiners(run, config.judge) as examiners:
        return run.step(MT_BENCH_STEP, reads=files)(
            named,
            prepared.mt_bench,
            config.asked(),
            judge=examiners.judge,
            student=prepared.student,
            server=_examined(server, named) if asks_server else None,
            num_resamples=evaluate.num_resamples,
            seed=run.recipe.seed,
        )


def judge_answers(
    run: Run, exams: Joined[ExamItem], scores: Rows[Score] | Joined[Score]
) -> list[Rows[Score]]:
    """What the recipe's judge says of exam answers that are too long to match, where there are."""
    config = run.recipe.evaluate.of_exams()
    judged = [item for item in exams if is_judged(item, config)]
    if not judged:
        return []
    with open_examiners(run) as examiners:
        return [run.step(JUDGED_STEP)(scores, judged, config, judge=examiners.judge)]


@contextmanager
def open_examiners(run: Run, judge: TeacherConfig | None = None) -> Iterator[Teachers]:
    """Who judges what is measured: `judge`, else the recipe's. Caps are on exams and samples."""
    recipe = run.recipe
    generate = recipe.generate.model_copy(update={"budget": BudgetConfig()})
    judging = recipe.model_copy(update={"judge": judge or recipe.judge, "generate": generate})
    with open_teachers(judging, run.progress, run.path / MET_FILE) as teachers:
        yield teachers


@contextmanager
def open_server_of(run: Run) -> Iterator[Teacher | None]:
    """The model of `evaluate.server` while it is asked; None where the recipe has none."""
    if run.recipe.evaluate.server is None:
        yield None
        return
    with open_server(run.recipe, run.progress, run.path / MET_FILE) as served:
        yield served


def _examined(server: Teacher | None, named: list[tuple[str, Checkpoint]]) -> ServedExaminee | None:
    if server is None:
        return None
    return ServedExaminee(server, row_name(server.model, [name for name, _ in named]))
