"""A study: arms run one after another in one folder, sharing every step whose key is the same.

runs/NAME-frontier/
  shared/steps/, answers/   what arms make; each has links to what it uses
  arms/ARM-MARK-seed-1/     an arm's run, as any other
  frontier.json, .html, .md the outcome
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from feldspar.config import Recipe
from feldspar.config.load import world_parts
from feldspar.errors import FeldsparError, RecipeError, RunError
from feldspar.evaluate.comparing import BASE
from feldspar.evaluate.exams.read import all_exam_files
from feldspar.evaluate.scores import LEAF_EXAMS
from feldspar.flow import run_recipe
from feldspar.frontier.arms import Arm, ArmRun
from feldspar.frontier.epochs import equal_epochs
from feldspar.frontier.figures import compare_arms, measure_arm
from feldspar.prepare import place
from feldspar.progress import Progress
from feldspar.runs import SHARED
from feldspar.views.frontier import StudyResult

_ANSWERS = "answers"


def run_study(
    runs: Sequence[ArmRun],
    recipe_folder: Path,
    root: Path,
    progress: Progress,
    *,
    learned_exams: Sequence[str] = (LEAF_EXAMS,),
    equal_tokens: bool = False,
    num_processes: int = 1,
) -> StudyResult:
    """Run every arm, or find that it was done, and compare them. The same call again goes on.

    `equal_tokens`: every phase of every arm trains on as many tokens as that of the first arm, to
    the nearest epoch. Raises RecipeError for an exam that is not there before anything is made,
    FeldsparError with the arm's name after.
    """
    for run in {run.recipe.evaluate.exam: run for run in runs}.values():
        _check_exams(run.recipe, recipe_folder, learned_exams, progress)
    root.mkdir(parents=True, exist_ok=True)
    with _only_one(root), progress.task("arms", len(runs), "arms") as task:
        for run in runs:
            path = _folder(root, run)
            recipe = run.recipe
            first = next(r for r in runs if r.number == run.number)
            try:
                if equal_tokens and run is not first:
                    run_recipe(recipe, recipe_folder, path, progress, until="phases")
                    recipe = equal_epochs(recipe, path, _folder(root, first))
                run_recipe(recipe, recipe_folder, path, progress, num_processes=num_processes)
            except FeldsparError as error:
                raise type(error)(f"arm {run.arm.name!r}: {error}") from error
            task.advance(arm=run.arm.name)
    arms = list(dict.fromkeys(run.arm for run in runs))
    paths = {arm: [_folder(root, run) for run in runs if run.arm == arm] for arm in arms}
    base = Arm(name=BASE, settings=())
    measured = [measure_arm(arm, paths[arm], learned_exams) for arm in arms]
    start = measure_arm(base, paths[arms[0]], learned_exams, checkpoint=BASE)
    return StudyResult(
        learned_exams=tuple(learned_exams),
        num_seeds=len(paths[arms[0]]),
        equal_tokens=equal_tokens,
        rows=tuple(compare_arms(start, measured)),
        runs={arm.name: tuple(p.relative_to(root).as_posix() for p in paths[arm]) for arm in arms},
    )


def _check_exams(
    recipe: Recipe, folder: Path, learned_exams: Sequence[str], progress: Progress
) -> None:
    """Before anything is paid for. Raises RecipeError for an exam that no arm will have."""
    placed = place(recipe, folder, progress, parts=world_parts(recipe) & {"exams"})
    there = [exam.name for exam in all_exam_files(placed.evaluate.exam)]
    taxonomy = recipe.taxonomy
    if taxonomy is not None and (taxonomy.exam_fraction or recipe.generate.exam_items):
        there.append(LEAF_EXAMS)
    for exam in learned_exams:
        if exam not in there:
            raise RecipeError(
                f"no exam {exam!r} says what was learned; --learned names one of these: "
                f"{', '.join(there) or 'none is there, add [[evaluate.exam]]'}"
            )


def _folder(root: Path, run: ArmRun) -> Path:
    """The arm's run, with its links to what all arms share."""
    path = root / "arms" / run.recipe.name
    path.mkdir(parents=True, exist_ok=True)
    (root / SHARED / _ANSWERS).mkdir(parents=True, exist_ok=True)
    up = Path("..", "..", SHARED)
    for link, target in ((path / SHARED, up), (path / _ANSWERS, up / _ANSWERS)):
        if not link.exists():
            link.symlink_to(target, target_is_directory=True)
    return path


@contextmanager
def _only_one(root: Path) -> Iterator[None]:
    """A study is written by one process at a time."""
    lock = FileLock(root / "lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        raise RunError(
            f"{root} is being written by another process; wait for it, or stop it"
        ) from None
    try:
        yield
    finally:
        lock.release()
