"""What was kept of a base's general knowledge, and what changed, as figures. Pure.

Of an item that is asked in two wordings:

- *kept* counts the items that the base answers right in both: what it is right about by luck in one
  wording is thinned out.
- *flips* are answers that were right and are wrong, or the other way round. A model that lost
  nothing flips too, as the base itself does from one wording to the other. So flips *beyond chance*
  look at the answers to one wording by what the base said to the other one: of those whose other
  wording it got right, how many fewer are right than the base has right (docs/decisions/038).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feldspar.evaluate.benchmarks.scores import BenchmarkItem
from feldspar.evaluate.general.marks import GeneralAnswer, Marks
from feldspar.evaluate.general.questions import EXAM, GeneralItem, kinds
from feldspar.records import AGREEMENT, FLIPS, Interval, Score
from feldspar.stats.intervals import FEWEST_TO_TELL, cluster_interval, proportion_interval

KEPT = f"{EXAM} kept"
"""The exam of the items that the base answers right in both wordings."""
ACCURACY = "accuracy"
"""Share of items that are right in both wordings."""
TO_WRONG, TO_RIGHT = "right to wrong", "wrong to right"
BEYOND_CHANCE = " beyond chance"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sitting:
    """A model's answers to the exam beside its base's, by item."""

    checkpoint: str
    items: Sequence[GeneralItem]
    base: Mapping[str, Marks]
    own: Mapping[str, Marks]
    settings: str
    num_resamples: int
    seed: int


def known_items(items: Sequence[GeneralItem], base: Mapping[str, Marks]) -> list[GeneralItem]:
    """Those that the base answers right in both wordings."""
    return [item for item in items if base[item.id].both]


def general_scores(sitting: Sitting, paths: Mapping[str, str]) -> Iterator[Score]:
    """All items and the kept ones, whole and by kind; for any but the base itself, the flips.

    `paths`: where the items of EXAM and KEPT are written, one by one.
    """
    known = known_items(sitting.items, sitting.base)
    for exam, items in ((EXAM, sitting.items), (KEPT, known)):
        if items:
            yield _accuracy(sitting, exam, items, paths[exam])
    yield _agreement(sitting)
    if sitting.own is not sitting.base:
        yield from flip_scores(sitting)
    for exam, items in ((EXAM, sitting.items), (KEPT, known)):
        for kind, of_kind in kinds(items).items():
            yield _accuracy(sitting, f"{exam}: {kind}", of_kind, paths[exam])


class Population(NamedTuple):
    """Answers that flips are counted among, by item: whether base and model have each right."""

    base: list[list[bool]]
    own: list[list[bool]]


def flip_scores(sitting: Sitting) -> Iterator[Score]:
    """Flips among the answers that the base has right, and among those it has wrong; both less
    what chance gives."""
    for exam, was_right in ((TO_WRONG, True), (TO_RIGHT, False)):
        itself = _answers_where(sitting, was_right, by_other=False)
        flips = [[own != was_right for own in of_item] for of_item in itself.own]
        if flips:
            yield _shares(sitting, exam, flips)
        by_other = _answers_where(sitting, was_right, by_other=True)
        sign = -1.0 if was_right else 1.0
        beyond = [
            [sign * (float(after) - float(before)) for before, after in zip(*of_item, strict=True)]
            for of_item in zip(by_other.base, by_other.own, strict=True)
        ]
        if beyond:
            yield _shares(sitting, exam + BEYOND_CHANCE, beyond)


def written_items(
    items: Sequence[GeneralItem], answers: Sequence[GeneralAnswer], marks: Mapping[str, Marks]
) -> list[BenchmarkItem]:
    """Item by item what was asked and said, for comparisons and for reading."""
    texts = {answer.item: answer.texts for answer in answers}
    return [
        BenchmarkItem(
            id=item.id,
            task=item.kind,
            question="\n".join(item.ask),
            reference=" / ".join(item.accepted) or item.match,
            said="\n".join(texts[item.id]),
            value=float(marks[item.id].both),
        )
        for item in items
    ]


def _answers_where(sitting: Sitting, was_right: bool, *, by_other: bool) -> Population:
    """Answers whose wording, or whose other wording, the base has right (or wrong)."""
    found = Population([], [])
    for item in sitting.items:
        base, own = sitting.base[item.id], sitting.own[item.id]
        asked = base[::-1] if by_other else base
        among = [i for i, is_right in enumerate(asked) if is_right == was_right]
        if among:
            found.base.append([base[i] for i in among])
            found.own.append([own[i] for i in among])
    return found


def _accuracy(sitting: Sitting, exam: str, items: Sequence[GeneralItem], path: str) -> Score:
    num_right = sum(sitting.own[item.id].both for item in items)
    return Score(
        checkpoint=sitting.checkpoint,
        exam=exam,
        metric=ACCURACY,
        value=num_right / len(items),
        interval=proportion_interval(num_right, len(items)),
        num_items=len(items),
        settings=sitting.settings,
        answers_path=path,
    )


def _agreement(sitting: Sitting) -> Score:
    num_alike = sum(marks.first == marks.second for marks in sitting.own.values())
    return Score(
        checkpoint=sitting.checkpoint,
        exam=EXAM,
        metric=AGREEMENT,
        value=num_alike / len(sitting.own),
        interval=proportion_interval(num_alike, len(sitting.own)),
        num_items=len(sitting.own),
        settings=sitting.settings,
    )


def _shares(sitting: Sitting, exam: str, by_item: Sequence[Sequence[float]]) -> Score:
    """A mean over answers. The two of an item are one witness: its interval is that of so many
    items, by Wilson's where the values are shares, else by drawing items anew."""
    values = [value for of_item in by_item for value in of_item]
    value = statistics.fmean(values)
    if exam.endswith(BEYOND_CHANCE):
        low, high = cluster_interval(by_item, sitting.num_resamples, sitting.seed)
        num_changed = sum(any(of_item) for of_item in by_item)
        if num_changed < FEWEST_TO_TELL:
            half = abs(value) or proportion_interval(0, len(by_item)).high
            low, high = min(low, value - half), max(high, value + half)
    else:
        low, high = proportion_interval(round(value * len(by_item)), len(by_item))
    return Score(
        checkpoint=sitting.checkpoint,
        exam=exam,
        metric=FLIPS,
        value=value,
        interval=Interval(min(value, low), max(value, high)),
        num_items=len(values),
        settings=sitting.settings,
    )
