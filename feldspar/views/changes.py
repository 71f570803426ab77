"""What each phase taught and what it cost: exam items that turn right or wrong from one scored
checkpoint to the next, counted, and a few of them as text."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

from feldspar.prefer.release import SFT
from feldspar.records import Answer, ExamItem
from feldspar.runs import read_rows
from feldspar.stats.intervals import Difference, paired_shares_interval

MAX_CHANGES_PER_EXAM = 4
LEAVES, CHOICES = "leaf exams", "choice exams"
_ROUND, _CONTROL = re.compile(r"round-(\d+)"), re.compile(r"control-\d+")


@dataclass(frozen=True, slots=True, kw_only=True)
class Change:
    """An exam item that one checkpoint answers rightly and the other does not."""

    exam: str
    question: str
    before: str
    after: str
    reference: str
    learned: bool
    is_retention: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ExamChange:
    """How many items of an exam one checkpoint learned and forgot; all leaves are one exam."""

    exam: str
    is_retention: bool
    num_learned: int
    num_forgotten: int
    difference: Difference
    """Of the shares that are right, paired."""


@dataclass(frozen=True, slots=True, kw_only=True)
class CheckpointChanges:
    """From one scored checkpoint to another: what was learned, what was forgotten."""

    before: str
    after: str
    exams: tuple[ExamChange, ...]
    """What was taught first, then what was to be kept."""
    changes: tuple[Change, ...]
    """A few of each exam: what was to be kept and is forgotten comes first."""

    @property
    def num_turned(self) -> int:
        """Answers that turned, shown or not."""
        return sum(e.num_learned + e.num_forgotten for e in self.exams)

    def pooled(self, *, is_retention: bool) -> ExamChange | None:
        """All exams of what was taught, or of what was to be kept, as one; None without items.

        Choice exams ask what leaf exams ask, again: they are left out where those are there.
        """
        of_kind = [e for e in self.exams if e.is_retention == is_retention]
        if any(e.exam == LEAVES for e in of_kind):
            of_kind = [e for e in of_kind if e.exam != CHOICES]
        num_items = sum(e.difference.num_pairs for e in of_kind)
        if not num_items:
            return None
        learned = sum(e.num_learned for e in of_kind)
        forgotten = sum(e.num_forgotten for e in of_kind)
        name = "all that is to be kept" if is_retention else "all that was taught"
        return _change_of(name, is_retention, learned, forgotten, num_items)


def exam_of_all_leaves(item: ExamItem) -> str:
    """The exam of a file by its name; what the leaves ask as one exam."""
    if item.origin == "file":
        return item.exam
    return CHOICES if item.match == "choice" else LEAVES


def exam_of_leaf_group(item: ExamItem) -> str:
    """What the leaves ask by the first two folders of their paths."""
    if item.origin == "file" or not item.leaf:
        return exam_of_all_leaves(item)
    group = "/".join(item.leaf.split("/")[:2])
    return f"{group} ({CHOICES})" if item.match == "choice" else group


class _Pair(NamedTuple):
    item: ExamItem
    before: Answer
    after: Answer

    @property
    def is_changed(self) -> bool:
        return self.before.is_right != self.after.is_right


def find_turns(
    folder: Path,
    checkpoints: Sequence[str],
    items: Iterable[ExamItem],
    exam_of: Callable[[ExamItem], str] = exam_of_all_leaves,
    *,
    max_per_exam: int | None = MAX_CHANGES_PER_EXAM,
) -> tuple[CheckpointChanges, ...]:
    """Each phase, then each preference round, against the one before; where there are several, also
    the result, which is named last, against the first.

    `folder` is that of the answers; controls are passed over, since nothing starts from them.
    `exam_of` names the row an item counts in; `max_per_exam` bounds the answers given as text.
    """
    steps = list(pairwise(_in_order_made(checkpoints)))
    if len(checkpoints) > 1 and (whole := (checkpoints[0], checkpoints[-1])) not in steps:
        steps.append(whole)
    items = list(items)
    said = {name: _answers(folder, name) for name in {name for step in steps for name in step}}
    exams = {item.id: exam_of(item) for item in items}
    return tuple(
        turn_between(
            (before, said[before]),
            (after, said[after]),
            items,
            lambda item: exams[item.id],
            max_per_exam=max_per_exam,
        )
        for before, after in steps
    )


def _in_order_made(checkpoints: Sequence[str]) -> list[str]:
    """Rounds by their number: the run names the released one last. Without the start, which is
    called `sft` where it is released again."""
    rounds = sorted(
        (int(number[1]), name) for name in checkpoints if (number := _ROUND.fullmatch(name))
    )
    others = [n for n in checkpoints if not (_ROUND.fullmatch(n) or is_control(n) or n == SFT)]
    return [*others, *(name for _, name in rounds)]


def is_control(checkpoint: str) -> bool:
    """Whether it was tuned on a random pick: nothing starts from it."""
    return _CONTROL.fullmatch(checkpoint) is not None


def turn_between(
    before: tuple[str, Mapping[str, Answer]],
    after: tuple[str, Mapping[str, Answer]],
    items: Iterable[ExamItem],
    exam_of: Callable[[ExamItem], str],
    *,
    max_per_exam: int | None,
) -> CheckpointChanges:
    """From one model to another, each with its name and its answers by item."""
    of_exams: defaultdict[str, list[_Pair]] = defaultdict(list)
    for item in items:
        first, second = before[1].get(item.id), after[1].get(item.id)
        if first is None or second is None or first.is_right is None or second.is_right is None:
            continue
        of_exams[exam_of(item)].append(_Pair(item, first, second))
    exams = [_exam_change(exam, pairs) for exam, pairs in of_exams.items()]
    changes = [change for pairs in of_exams.values() for change in _some(pairs, max_per_exam)]
    return CheckpointChanges(
        before=before[0],
        after=after[0],
        exams=tuple(sorted(exams, key=lambda e: (e.is_retention, e.exam != LEAVES))),
        changes=tuple(sorted(changes, key=lambda c: (not c.is_retention, c.learned, c.exam))),
    )


def _exam_change(exam: str, pairs: Sequence[_Pair]) -> ExamChange:
    learned = sum(pair.is_changed and bool(pair.after.is_right) for pair in pairs)
    forgotten = sum(pair.is_changed and bool(pair.before.is_right) for pair in pairs)
    return _change_of(exam, pairs[0].item.is_retention, learned, forgotten, len(pairs))


def _change_of(
    exam: str, is_retention: bool, learned: int, forgotten: int, num_items: int
) -> ExamChange:
    return ExamChange(
        exam=exam,
        is_retention=is_retention,
        num_learned=learned,
        num_forgotten=forgotten,
        difference=Difference(
            value=(learned - forgotten) / num_items,
            interval=paired_shares_interval(learned, forgotten, num_items),
            num_pairs=num_items,
        ),
    )


def _some(pairs: Sequence[_Pair], max_per_exam: int | None) -> Iterator[Change]:
    counts: defaultdict[tuple[str, bool], int] = defaultdict(int)
    for item, before, after in (pair for pair in pairs if pair.is_changed):
        key = (item.exam, bool(after.is_right))
        counts[key] += 1
        if max_per_exam is None or counts[key] <= max_per_exam:
            yield Change(
                exam=item.exam,
                question=item.question,
                before=before.text,
                after=after.text,
                reference=item.reference,
                learned=bool(after.is_right),
                is_retention=item.is_retention,
            )


def _answers(folder: Path, checkpoint: str) -> dict[str, Answer]:
    path = folder / f"{checkpoint}.jsonl.zst"
    return {a.item: a for a in read_rows(path, Answer)} if path.exists() else {}
