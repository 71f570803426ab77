"""Answers to figures: per exam, leaf and branch, each with its 95 % interval."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple

from feldspar.records import Answer, ExamItem, Interval, Score
from feldspar.stats.intervals import (
    Difference,
    mean_interval,
    paired_difference,
    proportion_interval,
)

LEAF_EXAMS = "leaf exams"
"""All exams of the taxonomy's leaves as one."""
CHOICE_EXAMS = "choice exams"
"""The multiple-choice exams of the taxonomy's leaves as one."""
RETENTION = "retention"
"""All exams of what is to be kept as one."""
Metric = Literal["accuracy", "log-likelihood"]
METRICS: tuple[Metric, ...] = ("accuracy", "log-likelihood")


class Group(NamedTuple):
    """What one figure is of: an exam, or its part about one leaf."""

    exam: str
    leaf: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """What changed in `exam` between two checkpoints, over the same items."""

    exam: str
    metric: str
    difference: Difference
    """After minus before."""
    leaf: str = ""


def scores_of(
    name: str,
    items: Sequence[ExamItem],
    answers: Iterable[Answer],
    *,
    num_resamples: int,
    seed: int,
    settings: str = "",
    answers_path: str = "",
) -> Iterator[Score]:
    """Score a checkpoint's answers, in the items' order of groups.

    Accuracy is over the items that can be matched and carries Wilson's interval; log-likelihood is
    over all, in nats per token, and carries the bootstrap's.
    """
    by_item = {answer.item: answer for answer in answers}
    for group, members in groups_of(items).items():
        for metric in METRICS:
            values = [v for i in members if (v := _value(by_item[i.id], metric)) is not None]
            if values:
                yield Score(
                    checkpoint=name,
                    exam=group.exam,
                    leaf=group.leaf,
                    metric=metric,
                    value=sum(values) / len(values),
                    interval=_interval(values, metric, num_resamples, seed),
                    num_items=len(values),
                    settings=settings,
                    answers_path=answers_path,
                )


def compare(
    items: Sequence[ExamItem],
    before: Iterable[Answer],
    after: Iterable[Answer],
    *,
    num_resamples: int,
    seed: int,
) -> list[Comparison]:
    """Paired differences, `after - before`, over the items that both have answered."""
    first = {answer.item: answer for answer in before}
    second = {answer.item: answer for answer in after}
    found = []
    for group, members in groups_of([i for i in items if i.id in first and i.id in second]).items():
        for metric in METRICS:
            old = [_value(first[item.id], metric) for item in members]
            new = [_value(second[item.id], metric) for item in members]
            pairs = [
                (a, b) for a, b in zip(old, new, strict=True) if a is not None and b is not None
            ]
            if pairs:
                difference = paired_difference(
                    [a for a, _ in pairs], [b for _, b in pairs], num_resamples, seed
                )
                found.append(
                    Comparison(
                        exam=group.exam, leaf=group.leaf, metric=metric, difference=difference
                    )
                )
    return found


def answers_paths(scores: Iterable[Score]) -> dict[str, Path]:
    """Where the answers behind exam scores are, by the name of whose they are."""
    return {score.checkpoint: Path(score.answers_path) for score in scores}


def groups_of(items: Sequence[ExamItem]) -> dict[Group, list[ExamItem]]:
    """Items of each figure: of an exam, of a leaf, of all leaf exams together, and of these by
    branch and by origin, where there are several; and of all retention exams, where there are."""
    of_leaves = [item for item in items if item.origin != "file"]
    has_branches = len({item.branch for item in of_leaves}) > 1
    has_origins = len({item.origin for item in of_leaves}) > 1
    kept_exams = {item.exam for item in items if item.is_retention}
    groups: dict[Group, list[ExamItem]] = {}
    leaf_groups: dict[Group, list[ExamItem]] = {}
    for item in items:
        wholes = [Group(item.exam)]
        if item.origin != "file":
            # What can be guessed from a list is no part of what is said.
            whole = CHOICE_EXAMS if item.match == "choice" else LEAF_EXAMS
            wholes = [Group(whole)]
            if has_branches and item.branch:
                wholes.append(Group(f"{whole}: {item.branch}"))
            if has_origins and whole == LEAF_EXAMS:
                wholes.append(Group(f"{LEAF_EXAMS}: {item.origin}"))
        elif item.is_retention and len(kept_exams) > 1:
            wholes.append(Group(RETENTION))
        for group in wholes:
            groups.setdefault(group, []).append(item)
        if item.leaf:
            leaf_groups.setdefault(Group(item.exam, item.leaf), []).append(item)
    return groups | leaf_groups


def _value(answer: Answer, metric: Metric) -> float | None:
    if metric == "log-likelihood":
        return answer.log_likelihood
    return None if answer.is_right is None else float(answer.is_right)


def _interval(values: Sequence[float], metric: Metric, num_resamples: int, seed: int) -> Interval:
    if metric == "accuracy":
        return proportion_interval(round(sum(values)), len(values))
    return mean_interval(values, num_resamples, seed)
