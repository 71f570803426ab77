"""Why rows fell: per leaf, how many came through each stage, and the reasons with examples."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from pydantic import TypeAdapter

from feldspar.files import write_bytes_whole
from feldspar.generate.coverage import AskedStatements, LeafCoverage, Reach, add_up
from feldspar.generate.draft import SampleRequest
from feldspar.records import Leaf, Sample
from feldspar.stored import read_stored
from feldspar.teacher import Spent

FUNNEL_FILE = "funnel.json"
MAX_EXAMPLES = 3
MAX_EXAMPLE_TEXT = 300
"""Characters of a question or an answer shown in an example."""

FELL_BEFORE = {
    "teacher": "answered",
    "budget": "answered",
    "format": "parsed",
    "judge": "judged",
    "duplicate": "distinct",
    "near-duplicate": "distinct",
    "exam": "clean",
    "language": "clean",
    "length": "clean",
    "target": "kept",
}
LITTLE = 0.4
"""Kept part of what was asked for, below which a leaf gets a hint."""
LEAST_ASKED = 8
MENDS = {
    "judge: not fit": "say in task_description what belongs to the skill and what does not, and "
    "show seeds that differ from each other",
    "judge: answer rated": "show seeds whose answers give every step, or take a stronger teacher; "
    "`feldspar calibrate` tells whether the judge is to blame",
    "judge: not faithful": "the teacher adds to its passages: show seeds whose answers keep to "
    "theirs, and cut larger chunks if facts are torn apart (taxonomy.chunk_tokens)",
    "judge: not relevant": "questions lean on their passage or miss the subject: name the subject "
    "in every seed's question, and say in task_description what it is",
    "judge: unreadable": "the judge does not keep the form: raise generate.max_tokens, or take "
    "another judge",
    "judge: refused": "the judge refuses what it is shown; see the examples, or take another judge",
    "teacher: refused": "the teacher refuses what it is asked; see the examples for its reason",
    "format: cut off": "replies do not fit: raise generate.max_tokens, or lower pairs_per_call",
    "format": "the teacher does not keep the form of a reply: lower pairs_per_call, or take "
    "another teacher",
    "duplicate": "the leaf is asked out: add seeds, or documents, or ask for fewer",
    "near-duplicate": "the leaf is asked out: add seeds that differ in form, or ask for fewer",
    "exam": "the seeds are close to an exam: use others, or take that exam off",
    "language": "say the language in task_description, or show seeds in every language wanted",
    "length": "show seeds with answers of the wanted length, or mend min_answer_words and "
    "max_answer_words",
}
"""What to change, by the start of the reason that most samples fell for."""
_STAGES = ("asked", "answered", "parsed", "judged", "distinct", "clean", "kept")


TOO_FEW = "format: fewer than asked for"
NOTHING = Spent()


class Example(NamedTuple):
    """A sample that fell; `detail` is what stands in brackets behind its reason.

    `reply` is the start of a reply that could not be read, or held fewer samples than were asked
    for: `sample` is empty then.
    """

    sample: str
    question: str
    answer: str
    detail: str
    reply: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Reason:
    """Why samples fell: `judge: not faithful`."""

    reason: str
    count: int
    examples: tuple[Example, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafFunnel:
    """Samples of one leaf that came through each stage, one after the other."""

    leaf: str
    asked: int
    answered: int
    """The teacher did not refuse."""
    parsed: int
    """The reply could be read, and held as many as were asked for."""
    judged: int
    """No judge said no."""
    distinct: int
    clean: int
    """No exam asks it, and it has the language of the seeds and the length that is wanted."""
    kept: int
    reasons: tuple[Reason, ...] = ()
    """The most frequent first."""
    note: str = ""
    """Why a leaf was asked for nothing, or missed its target."""
    hint: str = ""
    """What to change where little is kept."""
    coverage: LeafCoverage | None = None
    """How far the kept questions reach; None for a skill, and in exams."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Funnel:
    leaves: tuple[LeafFunnel, ...]
    spent: Spent = NOTHING
    """By this step and those before it."""

    @property
    def reach(self) -> Reach | None:
        """How far the kept questions reach; None where there are no documents."""
        return add_up(leaf.coverage for leaf in self.leaves)


@dataclass(slots=True)
class Tally:
    """Counts one leaf's samples."""

    leaf: Leaf
    note: str = ""
    coverage: AskedStatements | None = None
    """Of a leaf of knowledge whose samples are for training."""
    asked: int = 0
    _fell: Counter[str] = field(default_factory=Counter)
    _reasons: Counter[str] = field(default_factory=Counter)
    _examples: defaultdict[str, list[Example]] = field(default_factory=lambda: defaultdict(list))

    def add(
        self, request: SampleRequest, samples: Sequence[Sample], unread: dict[str, str]
    ) -> None:
        """Count what came of one call: a failed call's only row stands for all that were asked.

        Takes from `unread` the replies that are about these samples.
        """
        # A pipeline of the user's own may give more than it was asked for.
        self.asked += max(request.count, len(samples))
        missing = max(0, request.count - len(samples))
        for sample in samples:
            if self.coverage is not None:
                self.coverage.add(sample)
            has_failed = not sample.question and not sample.context
            reply = unread.pop(sample.id, "")
            self._count(sample, request.count if has_failed else 1, reply)
            missing = 0 if has_failed else missing
        reply = unread.pop(request.key, "")
        if missing:
            self._fell["parsed"] += missing
            self._reasons[TOO_FEW] += missing
            if reply:
                self._show(TOO_FEW, Example("", "", "", "", reply))

    def finish(self) -> LeafFunnel:
        left = self.asked
        through: dict[str, int] = {}
        for stage in _STAGES:
            left -= self._fell[stage]
            through[stage] = left
        reasons = tuple(
            Reason(reason=reason, count=count, examples=tuple(self._examples[reason]))
            for reason, count in sorted(self._reasons.items(), key=lambda item: (-item[1], item[0]))
        )
        hint = _hint(through["asked"], through["kept"], reasons)
        return LeafFunnel(
            leaf=self.leaf.path,
            note=self.note,
            hint=hint,
            reasons=reasons,
            coverage=self.coverage.summary() if self.coverage else None,
            **through,
        )

    def _count(self, sample: Sample, weight: int, reply: str) -> None:
        if sample.rejected_because is None:
            return
        reason, _, detail = sample.rejected_because.partition(" (")
        # A pipeline of the user's own may have reasons of its own.
        self._fell[FELL_BEFORE.get(reason.partition(":")[0], "judged")] += weight
        self._reasons[reason] += weight
        question, answer = sample.question[:MAX_EXAMPLE_TEXT], sample.answer[:MAX_EXAMPLE_TEXT]
        self._show(reason, Example(sample.id, question, answer, detail.removesuffix(")"), reply))

    def _show(self, reason: str, example: Example) -> None:
        if len(self._examples[reason]) < MAX_EXAMPLES:
            self._examples[reason].append(example)


def _hint(num_asked: int, num_kept: int, reasons: Sequence[Reason]) -> str:
    """The mend for the most frequent reason, where little is kept."""
    if num_asked < LEAST_ASKED or num_kept >= LITTLE * num_asked:
        return ""
    for reason in reasons:
        for start, mend in MENDS.items():
            if reason.reason.startswith(start):
                share = reason.count / num_asked
                return f"{share:.0%} fell for {reason.reason!r}: {mend}"
    return ""


def read_funnel(path: Path) -> Funnel:
    """The funnel that a step wrote to `path`, its `funnel.json`. Raises RunError."""
    return read_stored(path, Funnel)


def write_funnel(path: Path, leaves: Sequence[LeafFunnel], spent: Spent) -> None:
    """Write a step's funnel, whole."""
    # Answers are added up as they come, and the last digits of a sum depend on the order.
    funnel = Funnel(leaves=tuple(leaves), spent=spent._replace(cost=round(spent.cost, 6)))
    write_bytes_whole(path, TypeAdapter(Funnel).dump_json(funnel, indent=1) + b"\n", is_shared=True)
