"""People's decisions on samples: carried out, and compared with what the judge said."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from feldspar.config import GenerateConfig
from feldspar.generate.filters import Decontaminator
from feldspar.records import ExamItem, Interval, Sample
from feldspar.reviews import (
    KeyedSamples,
    ReviewedSamples,
    Reviews,
    honour,
    is_judged_out,
    read_reviews,
    review_files,
    review_key,
)
from feldspar.runs import open_step, read_recipe_of
from feldspar.stats.intervals import proportion_interval

MAX_DISAGREEMENTS = 200


def review_samples(
    samples: KeyedSamples, run_path: Path, avoid: Iterable[ExamItem], config: GenerateConfig
) -> ReviewedSamples:
    """A run's samples as people left them; what they wrote is cleaned of exam questions as well.

    Raises RunError where a file of decisions is damaged.
    """
    reviews = read_reviews(run_path)
    cleaning = Decontaminator(avoid if reviews and config.decontaminate else ())
    return honour(samples, reviews, cleaning.find_item)


def reviews_of_run(run_path: Path) -> ReviewedSamples | None:
    """A run's samples as its next mix will have them; None where nobody reviewed any."""
    samples = open_step(run_path, "samples")
    if samples is None or not review_files(run_path):
        return None
    asked = [rows for name in ("own-exams", "leaf-exams") if (rows := open_step(run_path, name))]
    config = read_recipe_of(run_path).generate
    return review_samples(samples, run_path, chain.from_iterable(asked), config)


@dataclass(frozen=True, slots=True, kw_only=True)
class Disagreement:
    """A sample that judge and people see differently."""

    id: str
    leaf: str
    question: str
    judge: str
    """`kept`, or why the judge rejected it."""
    people: str
    """`rejected: REASON`, `edited: NOTE` or `accepted`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgeAndPeople:
    """How often the judge and the reviewers agree on whether a sample is good as it is."""

    num_both_keep: int
    num_judge_only: int
    """Kept by the judge, rejected or edited by people: it was too lenient."""
    num_people_only: int
    """Rejected by the judge, accepted by people: it was too strict."""
    num_both_reject: int
    agreement: float
    interval: Interval
    kappa: float | None
    """Cohen's: 0 is chance, 1 is always; None where either says the same of all samples."""
    disagreements: tuple[Disagreement, ...]

    @property
    def num_samples(self) -> int:
        return (
            self.num_both_keep + self.num_judge_only + self.num_people_only + self.num_both_reject
        )


def judge_and_people(samples: Iterable[Sample], reviews: Reviews) -> JudgeAndPeople | None:
    """Of the samples that were reviewed and that a judge decided on; None where there are none."""
    counts: Counter[tuple[bool, bool]] = Counter()
    found: list[Disagreement] = []
    for sample in samples if reviews else ():
        settled = reviews.get(review_key(sample))
        if settled is None or not (sample.is_kept or is_judged_out(sample)):
            continue
        decision = settled.decision
        is_good = decision.verdict == "accepted"
        counts[sample.is_kept, is_good] += 1
        if sample.is_kept != is_good and len(found) < MAX_DISAGREEMENTS:
            why = f": {decision.reason}" if decision.reason else ""
            disagreement = Disagreement(
                id=sample.id,
                leaf=sample.leaf,
                question=sample.question,
                judge=sample.rejected_because or "kept",
                people=f"{decision.verdict}{why}",
            )
            found.append(disagreement)
    total = counts.total()
    if not total:
        return None
    num_agreed = counts[True, True] + counts[False, False]
    return JudgeAndPeople(
        num_both_keep=counts[True, True],
        num_judge_only=counts[True, False],
        num_people_only=counts[False, True],
        num_both_reject=counts[False, False],
        agreement=num_agreed / total,
        interval=proportion_interval(num_agreed, total),
        kappa=_kappa(counts),
        disagreements=tuple(found),
    )


def _kappa(counts: Counter[tuple[bool, bool]]) -> float | None:
    """Agreement beyond what two raters with these habits reach by chance (Cohen, 1960)."""
    total = counts.total()
    judge = (counts[True, True] + counts[True, False]) / total
    people = (counts[True, True] + counts[False, True]) / total
    by_chance = judge * people + (1 - judge) * (1 - people)
    if by_chance == 1:
        return None
    return ((counts[True, True] + counts[False, False]) / total - by_chance) / (1 - by_chance)
