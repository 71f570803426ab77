"""What people said of a run's samples, where the judge disagrees, and what a mix honours."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feldspar.generate import JudgeAndPeople, judge_and_people
from feldspar.generate.filters import Decontaminator
from feldspar.records import Sample
from feldspar.reviews import (
    ReviewCounts,
    Reviews,
    SettledReview,
    honour,
    read_honoured,
    review_key,
)
from feldspar.views.run_files import RunFiles
from feldspar.views.sample_index import SampleIndex

MAX_SHOWN = 50


class ReviewedSample(NamedTuple):
    """A sample, and what is said of it; nothing yet where it is None."""

    sample: Sample
    key: str
    review: SettledReview | None


class Reviewer(NamedTuple):
    """How many samples someone's last word is of, by verdict."""

    name: str
    num_accepted: int
    num_rejected: int
    num_edited: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReviewsView:
    next_mix: ReviewCounts
    is_honoured: bool
    """Whether the last mix was made with just these decisions."""
    reviewers: tuple[Reviewer, ...]
    conflicts: tuple[ReviewedSample, ...]
    people: JudgeAndPeople | None
    num_samples: int


class _Samples:
    """What was reviewed, as samples that decisions are carried out on."""

    key = ""

    def __init__(self, samples: Sequence[Sample]) -> None:
        self._samples = samples

    def __iter__(self) -> Iterator[Sample]:
        return iter(self._samples)


def with_reviews(samples: Sequence[Sample], reviews: Reviews) -> list[ReviewedSample]:
    """Each sample with what is said of it."""
    keys = [review_key(sample) for sample in samples]
    return [ReviewedSample(s, key, reviews.get(key)) for s, key in zip(samples, keys, strict=True)]


def reviews_of(run: RunFiles, index: SampleIndex | None, reviews: Reviews) -> ReviewsView:
    """Raises RunError where what the last mix noted is damaged."""
    samples = index.reviewed(reviews) if index else ()
    cleaning = Decontaminator(run.items if run.recipe.generate.decontaminate else ())
    counts = honour(_Samples(samples), reviews, cleaning.find_item).counts
    noted = read_honoured(run.path) or ReviewCounts()
    conflicts = [s for s in with_reviews(samples, reviews) if s.review and s.review.is_conflict]
    return ReviewsView(
        next_mix=counts,
        is_honoured=noted.changes_key == counts.changes_key,
        reviewers=tuple(_reviewers(reviews)),
        conflicts=tuple(conflicts[:MAX_SHOWN]),
        people=judge_and_people(samples, reviews),
        num_samples=len(run.samples) if run.samples is not None else 0,
    )


def _reviewers(reviews: Reviews) -> Iterator[Reviewer]:
    counts: Counter[tuple[str, str]] = Counter(
        (d.reviewer, d.verdict) for settled in reviews.values() for d in settled.decisions
    )
    for name in sorted({reviewer for reviewer, _ in counts}):
        yield Reviewer(name, *(counts[name, v] for v in ("accepted", "rejected", "edited")))
