"""Shares of right answers in pairs: what training changed, and what another form of the result,
such as a quantised file, changed again. Over the items that are judged by their text."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from feldspar.config import Recipe
from feldspar.evaluate.comparing import BASE, Scored, open_scored
from feldspar.evaluate.examinee import Examinee
from feldspar.evaluate.exams.answers import answer_texts
from feldspar.evaluate.general.answers import general_answers
from feldspar.evaluate.general.marks import marks_of
from feldspar.evaluate.general.questions import EXAM, general_items
from feldspar.evaluate.scores import Group, groups_of
from feldspar.progress import SILENT, Progress
from feldspar.records import ExamItem, PairedShares
from feldspar.runs import read_recipe_of
from feldspar.stats.intervals import paired_difference


def result_changes(run_path: Path) -> list[PairedShares]:
    """The result of a run beside its base: whole exams, their leaves, and the general exam.

    Raises RunError where the run was not scored.
    """
    recipe = read_recipe_of(run_path)
    base, result = open_scored(run_path, BASE), open_scored(run_path)
    before, after = (_marks(scored) for scored in (base, result))
    items = [i for i in result.items.values() if i.id in before and i.id in after]
    found = list(_by_group(items, before, after, recipe))
    return [*found, *_of_general(_general(base), _general(result), recipe)]


def form_changes(
    run_path: Path, form: Examinee, *, cache_path: Path, progress: Progress = SILENT
) -> list[PairedShares]:
    """A form of a run's result, which is asked now, beside the result as the run has asked it:
    whole exams, and the general exam. Multiple choice, which is not said as text, is left out.

    Answers of the general exam are kept under `cache_path`. Raises RunError where the run was not
    scored.
    """
    recipe, result = read_recipe_of(run_path), open_scored(run_path)
    before = _marks(result)
    items = [i for i in result.items.values() if i.id in before and i.match != "choice"]
    answers = answer_texts(
        form, items, config=recipe.evaluate.of_exams(), seed=recipe.seed, progress=progress
    )
    after = {a.item: float(a.is_right) for a in answers if a.is_right is not None}
    found = [one for one in _by_group(items, before, after, recipe) if not one.leaf]
    general = _general(result)
    asked = [item for item in general_items() if item.id in general]
    if not asked:
        return found
    said = general_answers(
        form,
        asked,
        max_new_tokens=recipe.evaluate.general.max_new_tokens,
        cache_path=cache_path,
        progress=progress,
    )
    marks = {item: float(m.both) for item, m in marks_of(asked, said).items()}
    return [*found, *_of_general(general, marks, recipe)]


def _marks(scored: Scored) -> dict[str, float]:
    return {a.item: float(a.is_right) for a in scored.answers if a.is_right is not None}


def _general(scored: Scored) -> Mapping[str, float]:
    """By item, 1 where it is right in both wordings; empty where it was not asked."""
    return next((p.values for p in scored.published if p.score.exam == EXAM), {})


def _by_group(
    items: Sequence[ExamItem],
    before: Mapping[str, float],
    after: Mapping[str, float],
    recipe: Recipe,
) -> Iterator[PairedShares]:
    """As the run's table has them, without its parts by branch and origin."""
    for group, members in groups_of(items).items():
        if ": " not in group.exam:
            ids = [item.id for item in members if item.id in before and item.id in after]
            is_kept = all(item.is_retention for item in members)
            yield from _paired(group, ids, before, after, recipe, is_kept)


def _of_general(
    before: Mapping[str, float], after: Mapping[str, float], recipe: Recipe
) -> Iterator[PairedShares]:
    ids = [item for item in before if item in after]
    yield from _paired(Group(EXAM), ids, before, after, recipe, True)


def _paired(
    group: Group,
    ids: Sequence[str],
    before: Mapping[str, float],
    after: Mapping[str, float],
    recipe: Recipe,
    is_kept: bool,
) -> Iterator[PairedShares]:
    if not ids:
        return
    first, second = [before[item] for item in ids], [after[item] for item in ids]
    found = paired_difference(first, second, recipe.evaluate.num_resamples, recipe.seed)
    yield PairedShares(
        exam=group.exam,
        leaf=group.leaf,
        num_items=len(ids),
        before=sum(first) / len(ids),
        after=sum(second) / len(ids),
        interval=found.interval,
        is_retention=is_kept,
    )
