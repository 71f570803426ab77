"""What the checkpoints are worth: exams, judged answers, published benchmarks and MT-Bench, and all
of it again without the items that training saw."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from feldspar.config import BudgetConfig, TeacherConfig
from feldspar.evaluate.benchmarks.run import BENCHMARKS_STEP
from feldspar.evaluate.benchmarks.tasks import data_files, harness_version
from feldspar.evaluate.contamination import TOUCHED_STEP, UNTOUCHED_STEP
from feldspar.evaluate.exams.answers import is_judged
from feldspar.evaluate.exams.checkpoints import SCORES_STEP
from feldspar.evaluate.exams.judging import JUDGED_STEP
from feldspar.evaluate.mt_bench.run import MT_BENCH_STEP
from feldspar.prepare import Prepared, Teachers, open_teachers
from feldspar.records import Checkpoint, ExamItem, Phase, Score
from feldspar.runs import Joined, Rows, Run, cache_folder


def examine(
    run: Run,
    prepared: Prepared,
    checkpoints: list[tuple[str, Checkpoint]],
    exams: Joined[ExamItem],
    phases: Rows[Phase],
) -> Joined[Score]:
    """Every score of every checkpoint; the base comes first and the result last."""
    recipe = run.recipe
    scores = run.step(SCORES_STEP)(
        checkpoints,
        exams,
        recipe.evaluate.of_exams(),
        student=prepared.student,
        seed=recipe.seed,
    )
    ends = [checkpoints[0], checkpoints[-1]]
    benchmarks = measure_benchmarks(run, prepared, ends)
    mt_bench = rate_chats(run, prepared, ends)
    published = [rows for rows in (benchmarks, mt_bench) if rows is not None]
    judged = judge_answers(run, exams, scores)
    touched = run.step(TOUCHED_STEP)(phases, exams, benchmarks, prepared.mt_bench)
    untouched = run.step(UNTOUCHED_STEP)(
        touched,
        exams,
        scores,
        published,
        num_resamples=recipe.evaluate.num_resamples,
        seed=recipe.seed,
    )
    return Joined(scores, *judged, *published, untouched)


def measure_benchmarks(
    run: Run, prepared: Prepared, named: list[tuple[str, Checkpoint]]
) -> Rows[Score] | None:
    """The published benchmarks of the recipe; None where it has none."""
    config = run.recipe.evaluate
    if not config.benchmark:
        return None
    files = {f"{b.task}/{path.name}": path for b in config.benchmark for path in data_files(b)}
    return run.step(BENCHMARKS_STEP, reads=files)(
        named,
        config.benchmark,
        student=prepared.student,
        server=config.server,
        server_tasks=[b.task for b in config.benchmark if config.asks_server(b.task)],
        harness=harness_version(),
        cache_path=cache_folder() / "benchmarks",
    )


def rate_chats(
    run: Run, prepared: Prepared, named: list[tuple[str, Checkpoint]]
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
    with open_examiners(run, config.judge, with_server=asks_server) as examiners:
        return run.step(MT_BENCH_STEP, reads=files)(
            named,
            prepared.mt_bench,
            config.asked(),
            judge=examiners.judge,
            student=prepared.student,
            server=examiners.measured,
            num_resamples=evaluate.num_resamples,
            seed=run.recipe.seed,
        )


def judge_answers(run: Run, exams: Joined[ExamItem], scores: Rows[Score]) -> list[Rows[Score]]:
    """What the recipe's judge says of exam answers that are too long to match, where there are."""
    config = run.recipe.evaluate.of_exams()
    judged = [item for item in exams if is_judged(item, config)]
    if not judged:
        return []
    with open_examiners(run) as examiners:
        return [run.step(JUDGED_STEP)(scores, judged, config, judge=examiners.judge)]


@contextmanager
def open_examiners(
    run: Run, judge: TeacherConfig | None = None, *, with_server: bool = False
) -> Iterator[Teachers]:
    """Who judges what is measured: `judge`, else the recipe's. Caps are on exams and samples."""
    recipe = run.recipe
    generate = recipe.generate.model_copy(update={"budget": BudgetConfig()})
    judging = recipe.model_copy(update={"judge": judge or recipe.judge, "generate": generate})
    met_path = run.path / "teachers.json"
    with open_teachers(judging, run.progress, met_path, with_server=with_server) as teachers:
        yield teachers
