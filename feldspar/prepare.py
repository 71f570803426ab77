"""A recipe made ready to run: its paths real, its world made, its teacher and judge found."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from feldspar.ahead import Check, Subject, check_all
from feldspar.ahead.checks import Until
from feldspar.config import (
    BenchmarkConfig,
    Recipe,
    StudentConfig,
    TeacherConfig,
    place_paths,
    world_parts,
)
from feldspar.errors import TeacherError
from feldspar.evaluate.mt_bench.files import MTBench, find_mt_bench, read_mt_bench
from feldspar.models.opening import known_model, unserved_model
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint, ScoreItems
from feldspar.runs import cache_folder, result_of, write_json
from feldspar.teacher import Budget, Journal, Teacher, open_teacher

log = logging.getLogger(__name__)


class Teachers(NamedTuple):
    """Who writes, who judges, and whose answers are measured."""

    teacher: Teacher
    judge: Teacher
    budget: Budget
    measured: Teacher | None = None
    """The model of `evaluate.server`, where it was asked for."""


def place(
    recipe: Recipe, folder: Path, progress: Progress, *, parts: set[str] | None = None
) -> Recipe:
    """The recipe with real paths; makes the parts of the micro-world that it names.

    `parts`: those of the world that are needed, where that is not all of them.
    """
    # Whole also before there is one, so that a later run can go on with the same answers.
    recipe = recipe.model_copy(update={"journal": str((folder / recipe.journal).absolute())})
    made: dict[str, str] = {}
    if recipe.world is not None:
        from feldspar.world import make_world

        wanted = world_parts(recipe) if parts is None else parts
        made = make_world(recipe.world, cache_folder(), wanted, progress)
    placed = place_paths(recipe, folder, made)
    base = Path(placed.student.base)
    if not (base / "recipe.json").is_file():
        return placed
    # The base is an earlier run: its result.
    student = placed.student.model_copy(update={"base": result_of(base).path})
    return placed.model_copy(update={"student": student})


class Prepared(NamedTuple):
    """What a run looked at before anything was paid for."""

    base: Checkpoint
    student: StudentConfig
    """With the dtype that `auto` means on this machine."""
    benchmark_configs: tuple[BenchmarkConfig, ...]
    """Those that phases choose their checkpoints by."""
    mt_bench: MTBench | None
    mt_bench_files: dict[str, Path]

    def benchmarks(self, progress: Progress) -> dict[str, ScoreItems]:
        """What marks checkpoints by a benchmark, by task."""
        if not self.benchmark_configs:
            return {}
        from feldspar.evaluate.benchmarks.selecting import ScoreOnBenchmark

        path = cache_folder() / "benchmarks"
        return {
            config.task: ScoreOnBenchmark(
                config, student=self.student, cache_path=path, progress=progress
            )
            for config in self.benchmark_configs
        }


def look_ahead(recipe: Recipe, until: Until) -> Prepared:
    """What training and scoring need, found before anything is paid for.

    Raises FeldsparError for a base that is not there and for benchmarks that cannot be run.
    """
    from feldspar.student.model import base_checkpoint, with_dtype

    config = recipe.evaluate
    selecting = {phase.select for phase in recipe.train.phase} if until != "phases" else set()
    files = [] if config.mt_bench is None else find_mt_bench(config.mt_bench)
    prepared = Prepared(
        base=base_checkpoint(recipe.student.base),
        student=with_dtype(recipe.student),
        benchmark_configs=tuple(b for b in config.benchmark if b.task in selecting),
        mt_bench=read_mt_bench(files) if files else None,
        mt_bench_files={path.name: path for path in files},
    )
    prepared.benchmarks(SILENT)
    return prepared


def doctor(recipe: Recipe, folder: Path, progress: Progress) -> list[Check]:
    """What of a recipe is free to check, checked: for `feldspar doctor` and `feldspar plan`.

    Nothing is fetched, made or asked but what a server lists, and a prompt where a role needs its
    log-probabilities. Raises RecipeError where the recipe's paths cannot be made out.
    """
    placed = place(recipe, folder, progress, parts=set())
    return check_all(Subject(recipe=placed, named=recipe, run_path=None, folder=folder))


@contextmanager
def open_teachers(
    recipe: Recipe,
    progress: Progress,
    met_path: Path | None = None,
    *,
    with_server: bool = False,
) -> Iterator[Teachers]:
    """Find teacher and judge of a placed recipe, starting the embedded one where it is named; and
    the model of `evaluate.server`, `with_server`.

    `met_path` remembers them, so that a run goes on when the server has made room for training on
    the only GPU; what still has to be asked then says that the server is gone.
    """
    met = json.loads(met_path.read_text("utf-8")) if met_path and met_path.exists() else {}
    with ExitStack() as stack:
        journal = stack.enter_context(Journal(Path(recipe.journal)))
        budget = Budget(recipe.generate.budget)

        log_folder = (met_path.parent if met_path else Path(recipe.journal).parent) / "servers"

        def opened(config: TeacherConfig, role: str) -> Teacher:
            unserved = unserved_model(config, log_folder, role, progress)
            if unserved is not None:
                stack.callback(unserved.close)
                return Teacher(unserved, config, journal, budget=budget)
            url = _url(config, recipe, stack)
            place = f"{url} {config.model or ''} {config.revision}"
            try:
                teacher = open_teacher(config, url, journal, budget=budget, progress=progress)
            except TeacherError as error:
                if place not in met:
                    raise
                log.warning("%s; going on with its answers so far", error)
                model = known_model(config, url, *met[place])
                teacher = Teacher(model, config, journal, budget=budget)
            if not config.is_embedded:
                met[place] = [teacher.model, teacher.revision]
            return teacher

        teacher = opened(recipe.teacher, "teacher")
        judge = teacher if recipe.judge is None else opened(recipe.judge, "judge")
        server = recipe.evaluate.server if with_server else None
        measured = None if server is None else opened(server, "measured")
        if met and met_path:
            write_json(met_path, met)
        yield Teachers(teacher, judge, budget, measured)


def _url(config: TeacherConfig, recipe: Recipe, stack: ExitStack) -> str:
    if not config.is_embedded:
        return config.endpoint
    from feldspar.world import start_teacher

    return stack.enter_context(start_teacher(recipe.world, config.errors))
