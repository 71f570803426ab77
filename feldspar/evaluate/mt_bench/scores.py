"""MT-Bench as figures: the mean rating, its parts, its spread over runs, and judge errors apart."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from feldspar.evaluate.mt_bench.judging import ComparedAnswers, Rated
from feldspar.records import JUDGE_ERRORS, Score
from feldspar.runs import read_rows
from feldspar.stats.intervals import cluster_interval, proportion_interval

EXAM = "mt-bench"
Judged = Sequence[Rated] | Sequence[ComparedAnswers]


def mt_bench_scores(
    name: str, judged: Judged, *, num_resamples: int, seed: int, settings: str, answers_path: str
) -> Iterator[Score]:
    """The mean over all that could be read, turns pooled; the same by category, turn and run.

    Intervals are bootstraps over questions, whose two turns and several runs stay together. Where
    nothing could be read there is no score at all, only the share of judge errors.
    """
    metric = "rating" if all(isinstance(one, Rated) for one in judged) else "win rate"
    readable = [one for one in judged if _value(one) is not None]
    runs = sorted({one.run for one in judged})
    if len(runs) > 1:
        settings += f"; {_spread(readable, runs)}"
    shared = {"checkpoint": name, "settings": settings, "answers_path": answers_path}
    for exam, holds in _groups(judged, runs).items():
        values = {
            q: [v for one in readable if one.question == q and holds(one)
                if (v := _value(one)) is not None]
            for q in dict.fromkeys(one.question for one in readable)
        }  # fmt: skip
        clusters = [ratings for ratings in values.values() if ratings]
        if clusters:
            flat = [rating for ratings in clusters for rating in ratings]
            yield Score(
                **shared,
                exam=exam,
                metric=metric,
                value=statistics.fmean(flat),
                interval=cluster_interval(clusters, num_resamples, seed),
                num_items=len(flat),
            )
    num_errors = len(judged) - len(readable)
    yield Score(
        **shared,
        exam=EXAM,
        metric=JUDGE_ERRORS,
        value=num_errors / len(judged),
        interval=proportion_interval(num_errors, len(judged)),
        num_items=len(judged),
    )


def values_of_questions(score: Score) -> dict[str, float]:
    """The mean over a question's turns and runs, by question, of what is behind a `rating` or a
    `win rate`; nothing of another metric."""
    kinds: dict[str, type[Rated] | type[ComparedAnswers]]
    kinds = {"rating": Rated, "win rate": ComparedAnswers}
    if score.metric not in kinds:
        return {}
    found: defaultdict[str, list[float]] = defaultdict(list)
    for one in read_rows(Path(score.answers_path), kinds[score.metric]):
        if (value := _value(one)) is not None:
            found[str(one.question)].append(value)
    return {question: statistics.fmean(values) for question, values in found.items()}


def _value(one: Rated | ComparedAnswers) -> float | None:
    return one.rating if isinstance(one, Rated) else one.won


def _groups(
    judged: Judged, runs: Sequence[int]
) -> dict[str, Callable[[Rated | ComparedAnswers], bool]]:
    groups: dict[str, Callable[[Rated | ComparedAnswers], bool]] = {EXAM: lambda one: True}
    for category in dict.fromkeys(one.category for one in judged):
        groups[f"{EXAM}: {category}"] = lambda one, c=category: one.category == c  # type: ignore[misc]
    for turn in sorted({one.turn for one in judged}):
        groups[f"{EXAM}: turn {turn}"] = lambda one, t=turn: one.turn == t  # type: ignore[misc]
    if len(runs) > 1:
        for run in runs:
            groups[f"{EXAM}: run {run}"] = lambda one, r=run: one.run == r  # type: ignore[misc]
    return groups


def _spread(readable: Sequence[Rated | ComparedAnswers], runs: Sequence[int]) -> str:
    """`5 runs: mean 7.85, sd 0.06, 7.80 to 7.96`."""
    of_runs = [
        [v for o in readable if o.run == run if (v := _value(o)) is not None] for run in runs
    ]
    means = [statistics.fmean(values) for values in of_runs if values]
    if len(means) < 2:
        return f"{len(runs)} runs, of which {len(means)} could be read"
    mean, deviation = statistics.fmean(means), statistics.stdev(means)
    return (
        f"{len(runs)} runs: mean {mean:.2f}, sd {deviation:.2f}, {min(means):.2f} to "
        f"{max(means):.2f}"
    )
