"""The whole method, top to bottom: taxonomy, exams, samples, phases, training, preferences, scores.

Every step is computed once, kept in the run directory and found again; see runs.py. What one room
needs of another is handed in here.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from feldspar.config import BudgetConfig, DataConfig, Recipe, TeacherConfig, world_parts
from feldspar.errors import RecipeError
from feldspar.generate import (
    FUNNEL_FILE,
    asking_files,
    calibrate,
    check_floor,
    generate_samples,
    make_exams,
    read_funnel,
)
from feldspar.mix.earlier import EarlierRows, rows_of_run
from feldspar.mix.phases import mix_phases, warnings
from feldspar.prepare import Teachers, open_teachers, place
from feldspar.progress import SILENT, Progress
from feldspar.records import (
    Checkpoint,
    Conversation,
    ExamItem,
    JudgeScore,
    Leaf,
    Prompt,
    Sample,
    Score,
)
from feldspar.report import write_report
from feldspar.runs import Joined, Rows, Run, cache_folder, open_step, result_of
from feldspar.taxonomy import files_read, read_taxonomy
from feldspar.teacher import Teacher
from feldspar.tokens.count import TokenCounter

if TYPE_CHECKING:
    from feldspar.prefer.agree import Agreement
    from feldspar.records import ScoreCheckpoint, ScoreItems

log = logging.getLogger(__name__)

Until = Literal["samples", "phases", "trained", "preferred", "scores"]


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
    placed = place(recipe, folder, progress)
    check_published(placed, run_path, until)
    with Run(run_path, placed, progress, num_processes) as run:
        leaves = run.step(
            "leaves", read_taxonomy, placed.taxonomy, reads=files_read(placed.taxonomy)
        )
        met_path = run.path / "teachers.json"
        with open_teachers(placed, progress, met_path) as teachers:
            if placed.generate.judge and placed.generate.judge_floor is not None:
                try_judge(run, placed, leaves, teachers.judge)
            exams = gather_exams(run, placed, leaves, teachers)
            samples = run.step(
                "samples",
                generate_samples,
                leaves,
                placed.generate,
                teacher=teachers.teacher,
                judge=teachers.judge,
                avoid=exams,
                seed=placed.seed,
                reads=asking_files(placed.generate),
            )
        if until == "samples":
            return None
        scores = train_and_score(run, placed, exams, samples, until)
        if scores is None:
            return None
        published = measure_published(run, placed)
        judged = judge_answers(run, placed, exams, scores)
        untouched = score_untouched(run, placed, exams, scores, published)
        write_report(run.path)
        return Joined(scores, *judged, *published, untouched)


def try_judge(run: Run, recipe: Recipe, leaves: Rows[Leaf], judge: Teacher) -> None:
    """Raises TeacherError where the judge is worse than the recipe's floor."""
    scores = run.step(
        "calibration",
        calibrate,
        leaves,
        recipe.generate,
        judge=judge,
        seed=recipe.seed,
        reads=asking_files(recipe.generate),
    )
    check_floor(scores, recipe.generate, judge.key)


def gather_exams(
    run: Run, recipe: Recipe, leaves: Rows[Leaf], teachers: Teachers
) -> Joined[ExamItem]:
    """The user's own exams, and each leaf's: held-out seeds, topped up with judged questions."""
    from feldspar.evaluate.exams.read import exam_files, read_exams

    own_exams = [exam for config in recipe.evaluate.exam for exam in exam_files(config)]
    own = run.step("own-exams", read_exams, own_exams, reads=[Path(e.path) for e in own_exams])
    of_leaves = run.step(
        "leaf-exams",
        make_exams,
        leaves,
        recipe.generate,
        teacher=teachers.teacher,
        judge=teachers.judge,
        seed=recipe.seed,
        reads=asking_files(recipe.generate),
    )
    # Exams that were made by an earlier run of this recipe have cost it all the same.
    if teachers.budget.spent.calls == 0 and (of_leaves.folder / FUNNEL_FILE).exists():
        teachers.budget.spent = read_funnel(of_leaves.folder / FUNNEL_FILE).spent
    return Joined(own, of_leaves)


def train_and_score(
    run: Run, recipe: Recipe, exams: Joined[ExamItem], samples: Rows[Sample], until: Until
) -> Rows[Score] | None:
    """Mix the phases, train through them, tune on preferences, and score what came of it."""
    from feldspar.evaluate.exams.checkpoints import ScoreOnExams, evaluate
    from feldspar.student.model import base_checkpoint
    from feldspar.student.training.tracking import Tracking
    from feldspar.train.phases import train_phases

    for warning in warnings(recipe.mix, recipe.train.phase):
        log.warning("%s", warning)
    base = base_checkpoint(recipe.student.base)
    data = {d.name: data_of(d) for d in recipe.data}
    base_replay = base_replay_of(run, recipe, base)
    files = [rows for rows in (*data.values(), base_replay) if isinstance(rows, Path)]
    phases = run.step(
        "phases",
        mix_phases,
        samples,
        recipe.mix,
        phases=recipe.train.phase,
        train=recipe.train,
        data=data,
        base_replay=base_replay,
        counter=TokenCounter(base.path),
        reads=files,
    )
    if until == "phases":
        return None
    score = ScoreOnExams(
        exams,
        student=recipe.student,
        config=recipe.evaluate.of_exams(),
        seed=recipe.seed,
        cache_path=run.path / "answers",
        progress=run.progress,
    )
    trained = run.step(
        "trained",
        train_phases,
        base,
        phases,
        recipe.train,
        student=recipe.student,
        scores={"exams": score, **selecting_benchmarks(recipe, run.progress)},
        min_selection_items=recipe.evaluate.min_selection_items,
        seed=recipe.seed,
        tracking=Tracking(recipe.track, recipe.name),
    )
    if until == "trained":
        return None
    named = [("base", base), *((c.phase, c) for c in trained)]
    if recipe.prefer is not None:
        preferred = prefer_answers(run, recipe, trained.last(), samples, score)
        named += [(c.phase, c) for c in preferred]
    if until == "preferred":
        return None
    return run.step(
        "scores", evaluate, named, exams, recipe.evaluate.of_exams(),
        student=recipe.student, seed=recipe.seed,
    )  # fmt: skip


def selecting_benchmarks(recipe: Recipe, progress: Progress) -> dict[str, ScoreItems]:
    """The benchmarks that a phase's checkpoint is chosen by, by task."""
    chosen = {phase.select for phase in recipe.train.phase}
    configs = {b.task: b for b in recipe.evaluate.benchmark if b.task in chosen}
    if not configs:
        return {}
    from feldspar.evaluate.benchmarks.selecting import ScoreOnBenchmark

    path = cache_folder() / "benchmarks"
    return {
        task: ScoreOnBenchmark(config, student=recipe.student, cache_path=path, progress=progress)
        for task, config in configs.items()
    }


def check_published(recipe: Recipe, run_path: Path, until: Until) -> None:
    """Raises RecipeError for a benchmark that cannot be run, before anything is paid for."""
    if until in ("trained", "preferred", "scores"):
        selecting_benchmarks(recipe, SILENT)
    if until != "scores":
        return
    if recipe.evaluate.mt_bench is not None:
        from feldspar.evaluate.mt_bench.files import find_mt_bench, read_mt_bench

        read_mt_bench(find_mt_bench(recipe.evaluate.mt_bench))
    # What was scored before is found again, also where there is no hub.
    if recipe.evaluate.benchmark and open_step(run_path, "benchmarks") is None:
        from feldspar.evaluate.benchmarks.tasks import check_data

        for config in recipe.evaluate.benchmark:
            check_data(config)


def measure_published(run: Run, recipe: Recipe) -> list[Rows[Score]]:
    """The published benchmarks and MT-Bench, on the base and on the run's result."""
    from feldspar.student.model import base_checkpoint

    config = recipe.evaluate
    if not config.benchmark and config.mt_bench is None:
        return []
    result = result_of(run.path)
    named = [("base", base_checkpoint(recipe.student.base)), (result.phase, result)]
    published = []
    if config.benchmark:
        from feldspar.evaluate.benchmarks.run import score_benchmarks
        from feldspar.evaluate.benchmarks.tasks import data_files, harness_version

        published.append(
            run.step(
                "benchmarks",
                score_benchmarks,
                named,
                config.benchmark,
                student=recipe.student,
                server=config.server,
                server_tasks=[b.task for b in config.benchmark if config.asks_server(b.task)],
                harness=harness_version(),
                cache_path=cache_folder() / "benchmarks",
                reads=[path for benchmark in config.benchmark for path in data_files(benchmark)],
            )
        )
    if config.mt_bench is not None:
        published.append(rate_chats(run, recipe, named))
    return published


def judge_answers(
    run: Run, recipe: Recipe, exams: Joined[ExamItem], scores: Rows[Score]
) -> list[Rows[Score]]:
    """What the recipe's judge says of exam answers that are too long to match, where there are."""
    from feldspar.evaluate.exams.answers import is_judged
    from feldspar.evaluate.exams.judging import score_judged

    config = recipe.evaluate.of_exams()
    judged = [item for item in exams if is_judged(item, config)]
    if not judged:
        return []
    with open_examiners(run, recipe) as examiners:
        step = run.step("judged", score_judged, scores, judged, config, judge=examiners.judge)
    return [step]


def score_untouched(
    run: Run,
    recipe: Recipe,
    exams: Joined[ExamItem],
    scores: Rows[Score],
    published: list[Rows[Score]],
) -> Rows[Score]:
    """What the scores are without the items that the training data holds."""
    from feldspar.evaluate.contamination import find_touched, scores_without

    benchmarks = open_step(run.path, "benchmarks") if recipe.evaluate.benchmark else None
    bench = None
    if recipe.evaluate.mt_bench is not None:
        from feldspar.evaluate.mt_bench.files import find_mt_bench, read_mt_bench

        bench = read_mt_bench(find_mt_bench(recipe.evaluate.mt_bench))
    phases = open_step(run.path, "phases")
    touched = run.step("touched", find_touched, phases, exams, benchmarks, bench)
    return run.step(
        "untouched", scores_without, touched, exams, scores, published, seed=recipe.seed,
        num_resamples=recipe.evaluate.num_resamples,
    )  # fmt: skip


def rate_chats(run: Run, recipe: Recipe, named: list[tuple[str, Checkpoint]]) -> Rows[Score]:
    """MT-Bench, rated by its own judge or by the recipe's."""
    from feldspar.evaluate.mt_bench.files import find_mt_bench, read_mt_bench
    from feldspar.evaluate.mt_bench.run import score_mt_bench

    config = recipe.evaluate.mt_bench
    assert config is not None
    files = find_mt_bench(config)
    with open_examiners(
        run, recipe, config.judge, with_server=recipe.evaluate.asks_server("mt-bench")
    ) as examiners:
        return run.step(
            "mt-bench",
            score_mt_bench,
            named,
            read_mt_bench(files),
            config.asked(),
            judge=examiners.judge,
            student=recipe.student,
            server=examiners.measured,
            num_resamples=recipe.evaluate.num_resamples,
            seed=recipe.seed,
            reads=[*files, *([Path(config.baseline)] if config.baseline else [])],
        )


def data_of(config: DataConfig) -> Path | EarlierRows:
    """Where rows of the user's own are: a file, or the phases of an earlier run."""
    return rows_of_run(Path(config.run)) if config.run else Path(config.path or "")


def base_replay_of(run: Run, recipe: Recipe, base: Checkpoint) -> Path | Rows[Conversation] | None:
    """General data for every phase: a file, or what the base itself says, sampled once."""
    from feldspar.mix.base_rows import sample_base

    config = recipe.mix.base_replay
    if config is None:
        return None
    if config.source is not None:
        return Path(config.source)
    return run.step(
        "base-replay",
        sample_base,
        base,
        config,
        student=recipe.student,
        seed=recipe.seed,
        reads=[Path(config.prompts)] if config.prompts else [],
    )


def prefer_answers(
    run: Run, recipe: Recipe, sft: Checkpoint, samples: Rows[Sample], score: ScoreCheckpoint
) -> Rows[Checkpoint]:
    """Best-of-N by the log-ratio reward of two models, and fine-tuning on it."""
    from feldspar.prefer.prompts import prompts_of
    from feldspar.prefer.reward import find_pair
    from feldspar.prefer.rounds import tune_preferences

    assert recipe.prefer is not None
    pair = find_pair(recipe.prefer)
    prompts: Rows[Prompt] = run.step("prompts", prompts_of, samples, recipe.prefer)
    with ExitStack() as stack:
        return run.step(
            "preferred", tune_preferences, sft, prompts, recipe.prefer, train=recipe.train,
            student=recipe.student, score=score, rate=judge_rounds(run, recipe, stack),
            seed=recipe.seed,
            # Found first: either may be a hub id, or a tokenizer alone beside its server.
            reads=[Path(pair.aligned.path), Path(pair.base.path)],
        )  # fmt: skip


def judge_rounds(run: Run, recipe: Recipe, stack: ExitStack) -> ScoreCheckpoint | None:
    """MT-Bench for each round's model, where the recipe has it run."""
    config = recipe.evaluate.mt_bench
    if config is None:
        return None
    from feldspar.evaluate.mt_bench.files import find_mt_bench, read_mt_bench
    from feldspar.evaluate.mt_bench.run import ScoreChats
    from feldspar.student.model import base_checkpoint

    return ScoreChats(
        read_mt_bench(find_mt_bench(config)), config, base=base_checkpoint(recipe.student.base),
        judge=stack.enter_context(open_examiners(run, recipe, config.judge)).judge,
        student=recipe.student,
        here=run.path / "answers" / "mt-bench", seed=recipe.seed, progress=run.progress,
        num_resamples=recipe.evaluate.num_resamples,
    )  # fmt: skip


@contextmanager
def open_examiners(
    run: Run, recipe: Recipe, judge: TeacherConfig | None = None, *, with_server: bool = False
) -> Iterator[Teachers]:
    """Who judges what is measured: `judge`, else the recipe's. Caps are on exams and samples."""
    generate = recipe.generate.model_copy(update={"budget": BudgetConfig()})
    asking = recipe.model_copy(update={"judge": judge or recipe.judge, "generate": generate})
    met_path = run.path / "teachers.json"
    with open_teachers(asking, run.progress, met_path, with_server=with_server) as teachers:
        yield teachers


def calibrate_judge(recipe: Recipe, folder: Path, progress: Progress) -> list[JudgeScore]:
    """How well the recipe's judge tells known good pairs from corrupted ones."""
    placed = place(recipe, folder, progress, parts=set())
    leaves = list(read_taxonomy(placed.taxonomy, progress=progress))
    with open_teachers(placed, progress) as teachers:
        return list(
            calibrate(
                leaves, placed.generate, judge=teachers.judge, seed=placed.seed, progress=progress
            )
        )


def agree_with_pairs(
    recipe: Recipe, folder: Path, pairs_path: Path, progress: Progress
) -> list[Agreement]:
    """How often the recipe's reward prefers the chosen answers of stored pairs."""
    from feldspar.prefer.agree import agree, read_pairs

    if recipe.prefer is None:
        raise RecipeError("the recipe has no [prefer] table, so it names no models to agree with")
    pairs = read_pairs(pairs_path)
    placed = place(recipe, folder, progress, parts=world_parts(recipe.prefer))
    assert placed.prefer is not None
    return agree(pairs, placed.prefer, student=placed.student, progress=progress)
