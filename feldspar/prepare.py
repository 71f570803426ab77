"""A recipe made ready to run: its paths real, its world made, its teacher and judge found."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import NamedTuple

from feldspar.config import Recipe, TeacherConfig, place_paths, world_parts
from feldspar.errors import TeacherError
from feldspar.models.opening import known_model, unserved_model
from feldspar.progress import Progress
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
