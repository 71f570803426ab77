"""Two checkpoints over the same exam items, of one run or of two: paired differences."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.evaluate.benchmarks.scores import BenchmarkItem
from feldspar.evaluate.contamination import read_items
from feldspar.evaluate.general.scores import ACCURACY
from feldspar.evaluate.mt_bench.scores import values_of_questions
from feldspar.evaluate.scores import Comparison, answers_paths, compare
from feldspar.records import JUDGE_ERRORS, PERPLEXITY, Answer, ExamItem, Score
from feldspar.runs import open_step, read_recipe_of, read_rows, result_of
from feldspar.stats.intervals import paired_difference

BASE = "base"
ITEM_METRICS = {PERPLEXITY: "negative log-likelihood, nats a token"}
"""What the items of a score are measured in, where that is not its metric."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A checkpoint's answers to the exams of its run."""

    name: str
    """`RUN@CHECKPOINT`."""
    items: dict[str, ExamItem]
    answers: tuple[Answer, ...]
    published: tuple[Published, ...] = ()
    is_served: bool = False
    """Whether it is the model of `evaluate.server`, whose tokens are its own."""

    def items_of(self, exam: str) -> list[BenchmarkItem]:
        """What was asked and said, and whether it is right, in an exam that is a benchmark's or
        general knowledge's."""
        paths = [
            p.score.answers_path
            for p in self.published
            if (p.score.exam, p.score.metric) == (exam, ACCURACY)
        ]
        return [item for path in paths for item in read_items(Path(path))]


@dataclass(frozen=True, slots=True, kw_only=True)
class Published:
    """A checkpoint's values on a published benchmark, by item; for MT-Bench, by question."""

    score: Score
    values: dict[str, float]


def open_scored(run_path: Path, checkpoint: str | None = None) -> Scored:
    """The answers of a run's checkpoint, by its name in the report; its result where none is named.

    The model of `evaluate.server` is found by its name too. Raises RunError when the run was not
    scored so far, or has no such checkpoint.
    """
    scores = open_step(run_path, "scores")
    if scores is None:
        raise RunError(f"{run_path} is not scored yet; `feldspar run` its recipe to the end")
    checkpoint = checkpoint or result_of(run_path).phase
    published = _published(run_path)
    served = answers_paths(open_step(run_path, "served-exams") or ())
    paths = answers_paths(scores) | served
    if checkpoint not in paths and checkpoint not in published:
        there = ", ".join(dict.fromkeys([*paths, *published]))
        if not there:
            raise RunError(f"{run_path} has nothing to compare: no exam; add [[evaluate.exam]]")
        raise RunError(f"{run_path} scored no checkpoint {checkpoint!r}; there are: {there}")
    steps = [open_step(run_path, name) or () for name in ("own-exams", "leaf-exams")]
    answers = read_rows(paths[checkpoint], Answer) if checkpoint in paths else ()
    return Scored(
        name=f"{run_path.name}@{checkpoint}",
        items={item.id: item for step in steps for item in step},
        answers=tuple(answers),
        published=tuple(
            Published(score=score, values=_values(score)) for score in published[checkpoint]
        ),
        is_served=checkpoint in served,
    )


def compare_scored(before: Scored, after: Scored, run_path: Path) -> list[Comparison]:
    """Differences `after - before` over the items that both answered, whole exams only.

    Log-likelihoods are per token: a served model's, of another tokenizer perhaps, are not compared
    with a run's own. Raises RunError when there is no such item.
    """
    config = read_recipe_of(run_path)
    items = [item for item in before.items.values() if item.id in after.items]
    found = compare(
        items,
        before.answers,
        after.answers,
        num_resamples=config.evaluate.num_resamples,
        seed=config.seed,
    )
    if before.is_served != after.is_served:
        found = [comparison for comparison in found if comparison.metric != "log-likelihood"]
    found += _compare_published(before, after, config)
    if not found:
        raise RunError(f"{before.name} and {after.name} have no exam item in common")
    return [comparison for comparison in found if not comparison.leaf]


def _published(run_path: Path) -> defaultdict[str, list[Score]]:
    """Scores of whole benchmarks by checkpoint, a served model among them."""
    found: defaultdict[str, list[Score]] = defaultdict(list)
    for step in ("general", "benchmarks", "mt-bench", "judged"):
        for score in open_step(run_path, step) or ():
            is_whole = step == "judged" or ": " not in score.exam
            has_items = bool(score.answers_path)
            if is_whole and has_items and not score.leaf and score.metric != JUDGE_ERRORS:
                found[score.checkpoint].append(score)
    return found


def _values(score: Score) -> dict[str, float]:
    if of_questions := values_of_questions(score):
        return of_questions
    items = read_items(Path(score.answers_path))
    return {item.id: item.value for item in items if item.value is not None}


def _compare_published(before: Scored, after: Scored, config: Recipe) -> Iterator[Comparison]:
    """Of the benchmarks that both were put through in the same way."""
    others = {(p.score.exam, p.score.metric, _way(p.score)): p for p in before.published}
    for new in after.published:
        old = others.get((new.score.exam, new.score.metric, _way(new.score)))
        items = [] if old is None else [item for item in new.values if item in old.values]
        if old is not None and items:
            yield Comparison(
                exam=new.score.exam,
                metric=ITEM_METRICS.get(new.score.metric, new.score.metric),
                difference=paired_difference(
                    [old.values[item] for item in items],
                    [new.values[item] for item in items],
                    config.evaluate.num_resamples,
                    config.seed,
                ),
            )


def _way(score: Score) -> str:
    """Settings without what is each model's own, and what several runs of MT-Bench gave."""
    return score.settings.split(";")[0]
