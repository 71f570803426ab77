"""Two models over the exam items that both have answered: of one run, or of two."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple

from markupsafe import Markup

from feldspar.errors import RunError
from feldspar.records import Answer, ExamItem
from feldspar.stats.intervals import Difference, paired_difference
from feldspar.views.changes import Change, exam_of_all_leaves, turn_between
from feldspar.views.charts import Row, intervals
from feldspar.views.run_files import RunFiles

MAX_TURNED = 100
"""Answers that turned, shown as text."""


class ComparedModel(NamedTuple):
    """A scored checkpoint of a run."""

    run: RunFiles
    checkpoint: str

    @property
    def name(self) -> str:
        return f"{self.run.name}@{self.checkpoint}"


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedExam:
    """An exam over the items that both models have answered."""

    exam: str
    is_retention: bool
    before: float
    """Share right."""
    after: float
    right: Difference
    likelihood: Difference | None
    """Of the reference answers, nats a token; None where answers have none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedView:
    before: str
    after: str
    exams: tuple[ComparedExam, ...]
    chart: Markup | None
    num_turned: int
    turned: tuple[Change, ...]
    """Some of the answers that turned; what was to be kept and is wrong now comes first."""


def scored_models(run: RunFiles) -> list[str]:
    """`RUN@CHECKPOINT` of what a run has scored, its result first."""
    if run.answers_path is None or not run.answers_path.is_dir():
        return []
    named = [path.name.removesuffix(".jsonl.zst") for path in run.answers_path.glob("*.jsonl.zst")]
    order = list(dict.fromkeys(s.checkpoint for s in run.scores))
    found = sorted((n for n in named if n in order), key=order.index, reverse=True)
    result = run.result.phase if run.result else ""
    return [f"{run.name}@{name}" for name in sorted(found, key=lambda name: name != result)]


def compare_models(before: ComparedModel, after: ComparedModel) -> ComparedView:
    """After minus before, paired over their common items.

    Raises RunError where they have none.
    """
    there = {item.id for item in before.run.items}
    items = [item for item in after.run.items if item.id in there]
    first, second = _answers(before), _answers(after)
    items = [item for item in items if item.id in first and item.id in second]
    if not items:
        raise RunError(
            f"{before.name} and {after.name} have no exam item in common: runs of other leaves, or "
            "exams that were written anew"
        )
    turn = turn_between(
        (before.name, first), (after.name, second), items, exam_of_all_leaves, max_per_exam=None
    )
    exams = tuple(_exams(items, first, second))
    return ComparedView(
        before=before.name,
        after=after.name,
        exams=exams,
        chart=_chart(exams),
        num_turned=turn.num_turned,
        turned=turn.changes[:MAX_TURNED],
    )


def _answers(model: ComparedModel) -> dict[str, Answer]:
    if model.name not in scored_models(model.run):
        raise RunError(f"{model.run.name} has scored no checkpoint {model.checkpoint!r}")
    return model.run.answers_of(model.checkpoint)


def _exams(
    items: Iterable[ExamItem], before: dict[str, Answer], after: dict[str, Answer]
) -> Iterable[ComparedExam]:
    grouped: defaultdict[tuple[bool, str], list[ExamItem]] = defaultdict(list)
    for item in items:
        grouped[item.is_retention, exam_of_all_leaves(item)].append(item)
    for (is_retention, exam), of_exam in sorted(grouped.items(), key=lambda found: found[0]):
        pairs = [(before[item.id], after[item.id]) for item in of_exam]
        right = [
            (float(one.is_right), float(other.is_right))
            for one, other in pairs
            if one.is_right is not None and other.is_right is not None
        ]
        likely = [
            (one.log_likelihood, other.log_likelihood)
            for one, other in pairs
            if one.log_likelihood is not None and other.log_likelihood is not None
        ]
        if right:
            yield ComparedExam(
                exam=exam,
                is_retention=is_retention,
                before=sum(one for one, _ in right) / len(right),
                after=sum(other for _, other in right) / len(right),
                right=_paired(right),
                likelihood=_paired(likely) if likely else None,
            )


def _paired(pairs: list[tuple[float, float]]) -> Difference:
    before, after = zip(*pairs, strict=True)
    return paired_difference(before, after, num_resamples=1000, seed=0)


def _chart(exams: Iterable[ComparedExam]) -> Markup | None:
    rows: list[Row] = [
        {
            "name": e.exam,
            "series": "to be kept" if e.is_retention else "taught",
            "value": e.right.value,
            "low": e.right.interval.low,
            "high": e.right.interval.high,
            "told": f"{e.exam}: {e.right.value:+.2f} [{e.right.interval.low:+.2f}, "
            f"{e.right.interval.high:+.2f}], {e.right.num_pairs} items",
        }
        for e in exams
    ]
    if not rows:
        return None
    series = list(dict.fromkeys(str(row["series"]) for row in rows))
    return intervals(rows, series=series, title="share right, second minus first", bounds=None)
