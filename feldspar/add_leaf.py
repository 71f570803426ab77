"""One leaf more for a model that was trained: a run beside the first one, with replay from it."""

from __future__ import annotations

import json
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path

from feldspar.config import (
    DataConfig,
    ExamConfig,
    PhaseConfig,
    Recipe,
    ReplayConfig,
    TaxonomyConfig,
    lay_settings,
)
from feldspar.errors import RunError, TaxonomyError
from feldspar.evaluate.scores import RETENTION
from feldspar.files import is_utf8, write_text_whole
from feldspar.flow import run_recipe
from feldspar.progress import Progress
from feldspar.records import ExamItem
from feldspar.runs import open_step, read_recipe_of, result_of
from feldspar.taxonomy import read_taxonomy

PHASE = "learn"
EXAMS = "exams"
"""In the new run: a file for each branch of what the first run's leaves were asked."""
EARLIER = "earlier"
"""Name of the data that is replayed, and what its exams' names begin with."""


def learn_leaf(run_path: Path, leaf: Path, settings: Sequence[str], progress: Progress) -> Path:
    """Teach a run's result the leaves in a folder; gives the new run, `RUN+LEAF` beside the first.

    The new leaf's samples come from the run's own teacher, through its journal; the run's own rows
    are replayed (`learn.replay_share`); the run's exams and the new leaf's are scored before and
    after. Raises RunError where the run has no result yet.
    """
    recipe = learning_recipe(run_path, leaf, settings, progress)
    path = run_path.with_name(recipe.name)
    _refuse_another_leaf(path, recipe)
    for file in (Path(exam.path) for exam in recipe.evaluate.exam):
        # Others are the user's, or those of the run before.
        if file.parent == path / EXAMS:
            _write_exam(file, _asked_before(run_path, file.stem))
    run_recipe(recipe, run_path.parent, path, progress)
    return path


def learning_recipe(
    run_path: Path, leaf: Path, settings: Sequence[str], progress: Progress
) -> Recipe:
    """The run's own recipe, changed to add one leaf to its result, with settings laid over it."""
    if not is_utf8(leaf.resolve()):
        raise TaxonomyError(f"{leaf.resolve()}: a name in it is not UTF-8; rename that folder")
    first = lay_settings(read_recipe_of(run_path), settings)
    result = result_of(run_path)
    of_leaf = {"path": str(leaf.resolve()), "leaves": (), "branches": ()}
    before = first.taxonomy or TaxonomyConfig(path=of_leaf["path"])
    taxonomy = before.model_copy(update=of_leaf)
    leaves = list(read_taxonomy(taxonomy, progress=progress))
    phase = PhaseConfig(
        name=PHASE,
        branches=tuple(sorted({new.branch for new in leaves})),
        replay=(ReplayConfig(data=EARLIER, share=first.learn.replay_share),),
        num_epochs=first.learn.num_epochs,
        learning_rate=first.learn.learning_rate,
        batch_samples=first.learn.batch_samples,
        select="last",
    )
    # A run that was moved without its journal goes on with one of its own.
    journal = Path(first.journal)
    if not journal.exists():
        journal = run_path.parent.absolute() / ".feldspar" / "journal.sqlite"
    name = f"{run_path.name}+{leaf.resolve().name}"
    folder = run_path.with_name(name) / EXAMS
    taken = {exam.name for exam in first.evaluate.exam}
    branches = sorted({item.branch for item in _leaf_exams(run_path) if item.branch})
    exams = [
        ExamConfig(
            name=_free_name(f"{EARLIER} {branch}", run_path.name, taken),
            path=str(folder / f"{branch}.jsonl"),
            retention=True,
            # All of it is reported where nothing is chosen by it.
            select=None if first.train.merge else 0.0,
        )
        for branch in branches
    ]
    train = first.train.model_copy(
        update={"phase": (phase,), "warmup_steps": first.learn.warmup_steps}
    )
    return first.model_copy(
        update={
            "name": name,
            "journal": str(journal),
            "taxonomy": taxonomy,
            "student": first.student.model_copy(update={"base": result.path}),
            "data": (DataConfig(name=EARLIER, run=str(run_path.resolve())),),
            "train": train,
            "prefer": None,
            "evaluate": first.evaluate.model_copy(update={"exam": (*first.evaluate.exam, *exams)}),
        }
    )


def _refuse_another_leaf(path: Path, recipe: Recipe) -> None:
    if not (path / "recipe.json").is_file():
        return
    known = read_recipe_of(path).taxonomy
    if known and recipe.taxonomy and known.path != recipe.taxonomy.path:
        raise RunError(
            f"{path} learned {known.path}, another folder of that name; rename one, or that run"
        )


def _free_name(name: str, run_name: str, taken: Collection[str]) -> str:
    """A run that learned a leaf before has exams of this name: of what came before that leaf."""
    return f"{name} of {run_name}" if name in taken else name


def is_new(exam: str, recipe: Recipe) -> bool:
    """Whether an exam asks for what a run made by `learn_leaf` was to learn."""
    return exam not in {RETENTION, *(known.name for known in recipe.evaluate.exam)}


def _leaf_exams(run_path: Path) -> Iterable[ExamItem]:
    rows = open_step(run_path, "leaf-exams")
    if rows is None and read_recipe_of(run_path).taxonomy is None:
        return ()
    if rows is None:
        raise RunError(f"{run_path} has made no exams yet; `feldspar run` its recipe to the end")
    return (item for item in rows if item.use == "report" and item.match != "choice")


def _asked_before(run_path: Path, branch: str) -> list[ExamItem]:
    """What the run's leaves of a branch were asked for its report, each question once."""
    found: dict[tuple[str, str, str | None], ExamItem] = {}
    for item in _leaf_exams(run_path):
        if item.branch == branch:
            found.setdefault((item.question, item.reference, item.context), item)
    return list(found.values())


def _write_exam(path: Path, items: Iterable[ExamItem]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    lines = []
    for item in items:
        row: dict[str, object]
        row = {"question": item.question, "answer": item.reference, "match": item.match}
        if item.match in ("final", "exact") and item.accepted:
            row["accepted"] = list(item.accepted)
        if item.context:
            row["context"] = item.context
        lines.append(json.dumps(row, ensure_ascii=False) + "\n")
    write_text_whole(path, "".join(lines))
