"""A recipe made ready to run: its paths real, its world made, its teacher and judge found."""

from __future__ import annotations

import functools
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from feldspar.ahead import Check, Subject, check_all
from feldspar.ahead.checks import Until
from feldspar.config import (
    BenchmarkConfig,
    BudgetConfig,
    EvaluateConfig,
    Recipe,
    StudentConfig,
    TeacherConfig,
    place_paths,
    world_parts,
)
from feldspar.config.train import LEARNED_AND_KEPT
from feldspar.digests import Digests
from feldspar.errors import RecipeError, TeacherError, TrainingError
from feldspar.evaluate.general.questions import cannot_be_asked
from feldspar.evaluate.mt_bench.files import MTBench, find_mt_bench, read_mt_bench
from feldspar.files import write_json
from feldspar.models.batch import MOST_CALLS, BatchModel
from feldspar.models.model import Model
from feldspar.models.opening import find_model, known_model, unserved_model
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint, ScoreItems
from feldspar.runs import cache_folder, result_of
from feldspar.stored import read_stored
from feldspar.student.bases.find import is_file_base, known_folder, make_folder
from feldspar.student.hub import note_commit, pinned, with_commit
from feldspar.student.precision import Precision, note_precision, noted_config, run_precision
from feldspar.teacher import Budget, Journal, Teacher
from feldspar.tokens.count import TokenCounter

log = logging.getLogger(__name__)


class Teachers(NamedTuple):
    """Who writes, and who judges."""

    teacher: Teacher
    judge: Teacher
    budget: Budget


def place(
    recipe: Recipe,
    folder: Path,
    progress: Progress,
    *,
    parts: set[str] | None = None,
    makes_base: bool = False,
) -> Recipe:
    """The recipe with real paths; makes the parts of the micro-world that it names.

    `parts`: those of the world that are needed, where that is not all of them. `makes_base`: a base
    that is a GGUF file is downloaded and dequantised, and one on the hub is fetched; else it stays
    as it is named until it was, and so does the template that `auto` means for it.
    """
    # Whole also before there is one, so that a later run can go on with the same answers.
    recipe = recipe.model_copy(update={"journal": str((folder / recipe.journal).absolute())})
    made: dict[str, str] = {}
    if recipe.world is not None:
        from feldspar.world import make_world

        wanted = world_parts(recipe) if parts is None else parts
        made = make_world(recipe.world, cache_folder(), wanted, progress)
    placed = place_paths(recipe, folder, made)
    base = _place_base(placed.student.base, progress, is_made=makes_base)
    student = placed.student.model_copy(update={"base": base})
    if makes_base:
        student = _with_template(student)
    return placed.model_copy(update={"student": student})


def _with_template(student: StudentConfig) -> StudentConfig:
    """With the template that `auto` means; what is wrong with the base is said by the checks,
    together with all else that is wrong."""
    from feldspar.student.model import with_template

    try:
        return with_template(student)
    except TrainingError:
        return student


def _place_base(base: str, progress: Progress, *, is_made: bool) -> str:
    """A model folder or a hub id; of an earlier run its result, of a GGUF file its folder."""
    if (Path(base) / "recipe.json").is_file():
        return result_of(Path(base)).path
    if not is_file_base(base) or Path(base).is_dir():
        return base
    cache = cache_folder()
    digest_of = Digests(cache / "digests.json").of
    if is_made:
        return str(make_folder(base, cache, digest_of, progress))
    return str(known_folder(base, cache, digest_of) or base)


@functools.cache
def _can_be_asked(base: str) -> bool:
    """Whether a base can be asked the general exam; what hinders it is said once."""
    why_not = cannot_be_asked(TokenCounter(base))
    if why_not:
        log.warning("%s; `[evaluate.general] enabled = false` says so too", why_not)
    return not why_not


class Prepared(NamedTuple):
    """What a run looked at before anything was paid for."""

    base: Checkpoint
    named_base: str
    """As the recipe names it."""
    student: StudentConfig
    """With the dtype that `auto` means in this run, and the commit of a base from the hub."""
    precision: Precision
    """The same with its reason."""
    benchmark_configs: tuple[BenchmarkConfig, ...]
    """Those that phases choose their checkpoints by."""
    mt_bench: MTBench | None
    mt_bench_files: dict[str, Path]

    def note(self, run_path: Path) -> None:
        """Write down what `auto` means in this run, and the base's commit on the hub, so that it
        goes on in the same precision with the same base."""
        note_precision(self.base.path, self.precision, run_path)
        note_commit(self.named_base, Path(self.base.path), run_path)

    def asks_general(self, config: EvaluateConfig) -> bool:
        """Whether the general-knowledge exam is asked: it says so where the base cannot be."""
        return config.general.enabled and _can_be_asked(self.base.path)

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


def pin_base(recipe: Recipe, run_path: Path) -> Recipe:
    """With the commit of a base from the hub that the run began with."""
    base = pinned(recipe.student.base, run_path)
    return recipe.model_copy(update={"student": recipe.student.model_copy(update={"base": base})})


def trained_in_one_way(recipe: Recipe, num_processes: int) -> None:
    """Raise RecipeError where processes of the command line are to train together, and the recipe
    places its own on a cluster."""
    if recipe.train.workers is not None and num_processes > 1:
        raise RecipeError(
            f"{num_processes} processes are to train together, and [train.workers] places its own "
            "on the cluster; leave --nproc or torchrun out, or take [train.workers] out"
        )


def settled(recipe: Recipe, prepared: Prepared | None, run_path: Path) -> Recipe:
    """The recipe in the precision that its run computes in, or has noted."""
    student = prepared.student if prepared else noted_config(recipe.student, run_path)
    return recipe.model_copy(update={"student": student})


def look_ahead(recipe: Recipe, until: Until, run_path: Path) -> Prepared:
    """What training and scoring need, found before anything is paid for.

    The precision is the one that the run has noted, if it has.

    Raises FeldsparError for a base that is not there and for benchmarks that cannot be run.
    """
    from feldspar.student.model import base_checkpoint, find_device

    assert recipe.student.template != "auto", recipe.student
    config = recipe.evaluate
    selecting = {phase.select for phase in recipe.train.phase} if until != "phases" else set()
    files = [] if config.mt_bench is None else find_mt_bench(config.mt_bench)
    base = base_checkpoint(recipe.student.base)
    student = recipe.student.model_copy(update={"base": base.path})
    precision = run_precision(student, find_device(student.device).type, run_path)
    at_commit = with_commit(recipe.student.base, Path(base.path))
    prepared = Prepared(
        base=base,
        named_base=recipe.student.base,
        student=recipe.student.model_copy(update={"base": at_commit, "dtype": precision.dtype}),
        precision=precision,
        benchmark_configs=tuple(b for b in config.benchmark if b.task in selecting),
        mt_bench=read_mt_bench(files) if files else None,
        mt_bench_files={path.name: path for path in files},
    )
    prepared.benchmarks(SILENT)
    if LEARNED_AND_KEPT in selecting and (why_not := cannot_be_asked(TokenCounter(base.path))):
        raise RecipeError(f"{why_not}; select by `exams` instead of {LEARNED_AND_KEPT}")
    return prepared


def doctor(recipe: Recipe, folder: Path, progress: Progress) -> list[Check]:
    """What of a recipe is free to check, checked: for `feldspar doctor` and `feldspar plan`.

    Nothing is fetched, made or asked but what a server lists, and a prompt where a role needs its
    log-probabilities. Raises RecipeError where the recipe's paths cannot be made out.
    """
    placed = place(recipe, folder, progress, parts=set())
    return check_all(Subject(recipe=placed, named=recipe, run_path=None, folder=folder))


def tokenizer_of_server(config: EvaluateConfig) -> str | None:
    """Where the tokenizer of the server's model is, where that is known: its own, its `folder`'s,
    or that of the folder that its `command` serves."""
    server = config.server
    if server is None or config.server_tokenizer is not None:
        return config.server_tokenizer
    is_served_folder = (
        server.command is not None
        and server.model is not None
        and (Path(server.model) / "tokenizer.json").is_file()
    )
    return server.model if is_served_folder else server.folder


@contextmanager
def open_teachers(
    recipe: Recipe, progress: Progress, met_path: Path | None = None
) -> Iterator[Teachers]:
    """Find teacher and judge of a placed recipe, starting the embedded one where it is named.

    `met_path` remembers them, so that a run goes on when the server has made room for training on
    the only GPU; what still has to be asked then says that the server is gone.
    """
    with _opening(recipe, progress, met_path) as opening:
        teacher = opening.open(recipe.teacher, "teacher")
        judge = teacher if recipe.judge is None else opening.open(recipe.judge, "judge")
        opening.write_met()
        yield Teachers(teacher, judge, opening.budget)


@contextmanager
def open_server(recipe: Recipe, progress: Progress, met_path: Path) -> Iterator[Teacher]:
    """Find the model of `evaluate.server`, of whatever kind; what was started for it ends with the
    block. No cap of `generate.budget` is on what is measured."""
    assert recipe.evaluate.server is not None
    generate = recipe.generate.model_copy(update={"budget": BudgetConfig()})
    uncapped = recipe.model_copy(update={"generate": generate})
    with _opening(uncapped, progress, met_path) as opening:
        served = opening.open(recipe.evaluate.server, "server")
        opening.write_met()
        yield served


class _Opening:
    """Finds the models of a recipe, with one journal and one budget for all."""

    def __init__(
        self, recipe: Recipe, progress: Progress, met_path: Path | None, stack: ExitStack
    ) -> None:
        self.budget = Budget(recipe.generate.budget)
        self._recipe, self._progress, self._stack = recipe, progress, stack
        self._journal = stack.enter_context(Journal(Path(recipe.journal)))
        self._met_path = met_path
        self._met = _met(met_path)

    def open(self, config: TeacherConfig, role: str) -> Teacher:
        """The model of a role. Raises TeacherError where it is not there and never was."""
        path = self._met_path or Path(self._recipe.journal)
        if config.batch:
            return self._batch(config, path.parent / "batches", role)
        log_folder = path.parent / "servers"
        unserved = unserved_model(config, log_folder, role, self._progress)
        if unserved is not None:
            self._stack.callback(unserved.close)
            return self._teacher(unserved, config)
        url = _url(config, self._recipe, self._stack)
        place = f"{url} {config.model or ''} {config.revision}"
        try:
            model = find_model(config, url, self._progress, who=role)
        except TeacherError as error:
            if place not in self._met:
                raise
            log.warning("%s; going on with its answers so far", error)
            model = known_model(config, url, *self._met[place])
        if not config.is_embedded:
            self._met[place] = (model.name, model.revision)
        return self._teacher(model, config)

    def _batch(self, config: TeacherConfig, folder: Path, role: str) -> Teacher:
        assert config.model is not None, "the recipe was checked"
        model = BatchModel(config.model, config.revision, config.parameters, folder, role)
        # All that can be asked at once goes into one file.
        return self._teacher(model, config.model_copy(update={"concurrency": MOST_CALLS}))

    def write_met(self) -> None:
        if self._met and self._met_path:
            write_json(self._met_path, self._met)

    def _teacher(self, model: Model, config: TeacherConfig) -> Teacher:
        return Teacher(model, config, self._journal, budget=self.budget)


@contextmanager
def _opening(recipe: Recipe, progress: Progress, met_path: Path | None) -> Iterator[_Opening]:
    with ExitStack() as stack:
        yield _Opening(recipe, progress, met_path, stack)


def _met(path: Path | None) -> dict[str, tuple[str, str]]:
    """Places of servers, and the model with its revision that answered there."""
    if path is None or not path.exists():
        return {}
    return read_stored(path, dict[str, tuple[str, str]])


def _url(config: TeacherConfig, recipe: Recipe, stack: ExitStack) -> str:
    if not config.is_embedded:
        return config.endpoint
    from feldspar.world import start_teacher

    return stack.enter_context(start_teacher(recipe.world, config.errors))
