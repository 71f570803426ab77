"""What people say of samples: accepted, rejected, edited; beside a run, a file for each reviewer.

    runs/NAME/reviews/anna.jsonl

    {"sample": "9f2c1e7ab0d45a61", "verdict": "rejected", "reviewer": "anna", "reason": "wrong",
     "at": "2026-11-28T20:14:49Z", "leaf": "knowledge/town", "asked": "Who bakes?"}

A decision is known by its sample's content, so that it holds for the same row of a new generation.
Files only grow. All files of the folder are read, so those of two reviewers merge by lying there.
"""

from __future__ import annotations

import json
import os
import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from feldspar.errors import RunError
from feldspar.files import write_json
from feldspar.keys import content_key
from feldspar.records import Sample
from feldspar.stored import damaged, read_stored, reading, what_is_wrong

ReviewVerdict = Literal["accepted", "rejected", "edited", "withdrawn"]
REVIEWS = "reviews"
"""Folder of the decisions in a run."""
HONOURED = "reviewed.json"
"""In a run: what its last mix made of the decisions."""
MAX_LETTERS = 20_000
"""Of a question or an answer that someone wrote."""
LOCK_SECONDS = 10
_NAME = re.compile(r"\w[\w.@+-]{0,63}")
_CURE = "mend that line or delete it"


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewDecision:
    """What one reviewer said of one sample at one time; `withdrawn` takes the earlier ones back."""

    sample: str
    """Key of its content."""
    verdict: ReviewVerdict
    reviewer: str
    at: datetime
    leaf: str = ""
    """For people who read the file, as is `asked`."""
    asked: str = ""
    """Its question, as it was."""
    reason: str = ""
    """Why it was rejected, or a note on what was edited."""
    question: str = ""
    """With `edited`: as it is to be; empty for the sample's own."""
    answer: str = ""

    def __post_init__(self) -> None:
        if self.at.tzinfo is None:
            raise ValueError(f"at must have a time zone, got {self.at.isoformat()}")
        if self.verdict == "edited" and not self.answer.strip():
            raise ValueError("an edited sample needs an answer")
        if self.verdict == "rejected" and not self.reason.strip():
            raise ValueError("say why it is rejected")


_DECISION = TypeAdapter(ReviewDecision)


@dataclass(frozen=True, slots=True, kw_only=True)
class SettledReview:
    """What all reviewers together say of a sample.

    One that anybody rejects is rejected; else the newest edit counts; else it is accepted.
    """

    decisions: tuple[ReviewDecision, ...]
    """The last of each reviewer, the newest last; never empty."""

    @property
    def decision(self) -> ReviewDecision:
        """The one that counts."""
        for verdict in ("rejected", "edited"):
            if found := [d for d in self.decisions if d.verdict == verdict]:
                return found[-1]
        return self.decisions[-1]

    @property
    def verdict(self) -> ReviewVerdict:
        return self.decision.verdict

    @property
    def is_conflict(self) -> bool:
        """Whether reviewers want different things."""
        return len({(d.verdict, d.question, d.answer) for d in self.decisions}) > 1


Reviews = Mapping[str, SettledReview]
"""By the key of the sample's content."""


def review_key(sample: Sample) -> str:
    """What a sample is known by in decisions: leaf, kind, context, question and answer."""
    content = (sample.leaf, sample.kind, sample.context, sample.question, sample.answer)
    return content_key(content)[:16]


def check_reviewer(name: str) -> str:
    """The same name. Raises RunError where it cannot name a file."""
    if not _NAME.fullmatch(name):
        raise RunError(
            f"{name!r} is no name for a reviewer: letters, digits and . _ @ + - only, at most 64; "
            "give --reviewer another"
        )
    return name


def review_files(run_path: Path) -> list[Path]:
    """The files of decisions, of all reviewers. Raises RunError where there is no folder but
    something else, and OSError where it cannot be looked into."""
    folder = run_path / REVIEWS
    if not folder.exists():
        return []
    if not folder.is_dir():
        raise damaged(folder, "it is no folder", "move it away")
    return sorted(path for path in folder.iterdir() if path.suffix == ".jsonl")


def read_decisions(path: Path) -> list[ReviewDecision]:
    """A file's decisions. A last line that was cut was being written, and is left out.

    Within a file no decision of a reviewer is older than the one before it: clocks are set back.
    Raises RunError with the line that is damaged.
    """
    with reading(path, _CURE):
        *lines, last = path.read_bytes().split(b"\n")
    # Some editors end a file without a line end.
    lines += [last] if _is_whole(last) else []
    found: list[ReviewDecision] = []
    newest: dict[str, datetime] = {}
    for number, line in enumerate(lines, start=1):
        try:
            decision = _DECISION.validate_json(line)
            at = newest[decision.reviewer] = max(
                decision.at, newest.get(decision.reviewer, decision.at)
            )
            found.append(decision if at == decision.at else replace(decision, at=at))
        except ValueError as error:
            raise damaged(path, f"line {number}: {what_is_wrong(error)[:200]}", _CURE) from error
    return found


def read_reviews(run_path: Path) -> dict[str, SettledReview]:
    """What is said of each sample, by all files together. Raises RunError where one is damaged."""
    return settle(d for path in review_files(run_path) for d in read_decisions(path))


def settle(decisions: Iterable[ReviewDecision]) -> dict[str, SettledReview]:
    """The last word of each reviewer on each sample."""
    last: dict[str, dict[str, ReviewDecision]] = {}
    for decision in sorted(decisions, key=lambda d: d.at):
        of_sample = last.setdefault(decision.sample, {})
        of_sample.pop(decision.reviewer, None)
        if decision.verdict != "withdrawn":
            of_sample[decision.reviewer] = decision
    return {
        key: SettledReview(decisions=tuple(said.values())) for key, said in last.items() if said
    }


def add_decision(run_path: Path, decision: ReviewDecision) -> None:
    """Append a decision to its reviewer's file; it is on the disk when this returns."""
    folder = run_path / REVIEWS
    folder.mkdir(exist_ok=True)
    path = folder / f"{check_reviewer(decision.reviewer)}.jsonl"
    try:
        lock = FileLock(folder / f".{decision.reviewer}.lock").acquire(timeout=LOCK_SECONDS)
    except Timeout:
        raise RunError(f"{path} is being written by another process; wait for it") from None
    with lock, path.open("ab") as file:
        _end_last_line(path)
        file.write(_DECISION.dump_json(decision, exclude_defaults=True) + b"\n")
        file.flush()
        os.fsync(file.fileno())


def _end_last_line(path: Path) -> None:
    """Cut off a last line whose writer died, and end one that an editor did not, or the next one
    would be joined to it."""
    content = path.read_bytes()
    whole = content.rfind(b"\n") + 1
    if _is_whole(content[whole:]):
        with path.open("ab") as file:
            file.write(b"\n")
    elif whole < len(content):
        os.truncate(path, whole)


def _is_whole(line: bytes) -> bool:
    """Whether a line without its end is an object to its last brace."""
    try:
        return isinstance(json.loads(line), dict)
    except (ValueError, RecursionError):
        return False


class KeyedSamples(Protocol):
    """Samples that are gone through more than once, and a key of their content."""

    key: str

    def __iter__(self) -> Iterator[Sample]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewCounts:
    """What a mix made of the decisions. Counts samples."""

    reviewers: tuple[str, ...] = ()
    num_reviewed: int = 0
    """Of the run's samples, that somebody said something of."""
    num_agreed: int = 0
    """Kept before, and accepted."""
    num_left_out: int = 0
    """Kept before, and rejected by a reviewer."""
    num_edited: int = 0
    """That are trained on as a reviewer wrote them."""
    num_taken_back: int = 0
    """That the judge had rejected and a reviewer accepted or edited."""
    num_in_exams: int = 0
    """Edited or taken back, and left out since an exam asks the same."""
    num_conflicts: int = 0
    num_gone: int = 0
    """Decisions on samples that the run does not have: of an earlier generation."""
    changes_key: str = ""
    """Of what is trained on in another way than without reviews; empty for nothing."""

    @property
    def sentence(self) -> str:
        """`anna and ben reviewed 40 samples: 3 left out, 2 edited, 1 taken back`."""
        parts = [
            f"{number:,} {what}"
            for number, what in (
                (self.num_left_out, "left out"),
                (self.num_edited, "edited"),
                (self.num_taken_back, "taken back from the judge"),
                (self.num_in_exams, "not used since an exam asks them"),
                (self.num_agreed, "accepted as they are"),
                (self.num_conflicts, "that reviewers disagree on"),
            )
            if number
        ]
        gone = f" ({self.num_gone:,} more {'is' if self.num_gone == 1 else 'are'} gone)"
        names = " and ".join(self.reviewers)
        samples = "sample" if self.num_reviewed == 1 else "samples"
        said = f": {', '.join(parts)}" if parts else ""
        reviewed = f"{names or 'people'} reviewed {self.num_reviewed:,} {samples}"
        return f"{reviewed}{gone if self.num_gone else ''}{said}"


class _Change(NamedTuple):
    """What takes the sample at a place; None where nothing does."""

    place: int
    sample: Sample | None
    of: str
    """Key of the content that was there."""


@dataclass(frozen=True, slots=True)
class ReviewedSamples:
    """Samples as people left them. Their key is that of the samples where nothing was changed."""

    samples: KeyedSamples
    counts: ReviewCounts
    changes: tuple[_Change, ...] = field(repr=False)

    @property
    def key(self) -> str:
        changes = self.counts.changes_key
        return content_key([self.samples.key, changes]) if changes else self.samples.key

    def __iter__(self) -> Iterator[Sample]:
        changed = {change.place: change.sample for change in self.changes}
        for place, sample in enumerate(self.samples):
            now = changed.get(place, sample)
            yield replace(sample, rejected_because="review: rejected") if now is None else now


def honour(
    samples: KeyedSamples, reviews: Reviews, why_not: Callable[[Sample], str | None]
) -> ReviewedSamples:
    """Samples with the decisions on them carried out.

    What a reviewer rejects is out. An edit takes a sample's place. A sample that the judge rejected
    comes back where it is accepted or edited; what other filters rejected does not, since exams and
    duplicates are no matter of opinion. `why_not` says why an edited sample, or one that comes
    back, may not be trained on all the same.
    """
    if not reviews:
        return ReviewedSamples(samples, ReviewCounts(), ())
    counts: Counter[str] = Counter()
    changes: list[_Change] = []
    met: set[str] = set()
    for place, sample in enumerate(samples):
        key = review_key(sample)
        settled = reviews.get(key)
        if settled is None:
            continue
        met.add(key)
        counts["num_reviewed"] += 1
        counts["num_conflicts"] += settled.is_conflict
        now, what = _honoured(sample, settled, why_not)
        if what:
            counts[what] += 1
        if now is not sample:
            changes.append(_Change(place, now, key))
    names = sorted({d.reviewer for key in met for d in reviews[key].decisions})
    counted = ReviewCounts(
        reviewers=tuple(names),
        num_gone=len(reviews) - len(met),
        changes_key=_key_of(changes),
        **counts,
    )
    return ReviewedSamples(samples, counted, tuple(changes))


def _key_of(changes: Iterable[_Change]) -> str:
    told = {c.of: c.sample and [c.sample.question, c.sample.answer] for c in changes}
    return content_key(sorted(told.items())) if told else ""


def _honoured(
    sample: Sample, settled: SettledReview, why_not: Callable[[Sample], str | None]
) -> tuple[Sample | None, str]:
    """What becomes of a sample, and which count that is."""
    decision = settled.decision
    if decision.verdict == "rejected":
        return (None, "num_left_out") if sample.is_kept else (sample, "")
    if not sample.is_kept and not is_judged_out(sample):
        return sample, ""
    if sample.is_kept and decision.verdict == "accepted":
        return sample, "num_agreed"
    now = replace(sample, rejected_because=None)
    if decision.verdict == "edited":
        question = decision.question.strip() and decision.question
        now = replace(now, question=question or sample.question, answer=decision.answer)
    if now == sample:
        return sample, "num_agreed"
    if why_not(now) is not None:
        return None if sample.is_kept else sample, "num_in_exams"
    return now, "num_edited" if sample.is_kept else "num_taken_back"


def is_judged_out(sample: Sample) -> bool:
    """Whether it was a judge that rejected it."""
    return (sample.rejected_because or "").startswith("judge:")


def note_honoured(run_path: Path, counts: ReviewCounts) -> None:
    """Write down what a mix made of the decisions; nothing where there never were any."""
    path = run_path / HONOURED
    if counts.num_reviewed or counts.num_gone or path.exists():
        write_json(path, TypeAdapter(ReviewCounts).dump_python(counts, mode="json"))


def read_honoured(run_path: Path) -> ReviewCounts | None:
    """What the last mix made of the decisions. Raises RunError where it is damaged."""
    path = run_path / HONOURED
    return read_stored(path, ReviewCounts) if path.exists() else None
