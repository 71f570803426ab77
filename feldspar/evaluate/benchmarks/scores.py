"""What benchmarks gave, as figures: of each task, and of a group by items and by tasks."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from feldspar.records import Interval, Score
from feldspar.stats.intervals import Z_95, proportion_interval


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchmarkItem:
    """One scored item: what was asked, what is right, what the model chose or wrote."""

    id: str
    task: str
    question: str
    reference: str
    said: str
    value: float | None
    """1 right, 0 wrong, or the metric's; None where only the whole has one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskResult:
    name: str
    metric: str
    value: float
    stderr: float | None
    """lm_eval's standard error."""
    way: str = ""
    """What its settings are to add on how the model was asked; behind a `;` where that changes no
    score."""
    items: tuple[BenchmarkItem, ...]
    items_path: Path
    items_name: str


def benchmark_scores(
    model: str, benchmark: str, results: Sequence[TaskResult], *, settings: str, folder: Path
) -> Iterator[Score]:
    """The benchmark's own figure first; then, of a group, the mean over tasks and each task.

    A group's figure is over all its items, as lm_eval weighs it (`mmlu`); `mmlu: mean of tasks`
    weighs each task alike, as others do: 57 subjects of 100 to 1534 items make a difference.
    """
    if len(results) == 1:
        yield _task_score(model, benchmark, results[0], settings, folder)
        return
    # Tasks of several metrics have no figure in common: each speaks for itself.
    if len({result.metric for result in results}) == 1:
        yield from _of_group(model, benchmark, results, settings, folder)
    for result in results:
        exam = f"{benchmark}: {result.name.removeprefix(f'{benchmark}_')}"
        yield _task_score(model, exam, result, settings, folder)


def _of_group(
    model: str, benchmark: str, results: Sequence[TaskResult], settings: str, folder: Path
) -> Iterator[Score]:
    metric = results[0].metric
    values = [i.value for r in results for i in r.items if i.value is not None]
    if values and set(values) <= {0.0, 1.0}:
        yield _score(model, benchmark, metric, values, settings, str(folder))
    mean = statistics.fmean(r.value for r in results)
    errors = [r.stderr for r in results if r.stderr is not None]
    stderr = math.sqrt(sum(e * e for e in errors)) / len(results)
    yield Score(
        checkpoint=model,
        exam=f"{benchmark}: mean of tasks",
        metric=metric,
        value=mean,
        interval=Interval(mean - Z_95 * stderr, mean + Z_95 * stderr),
        num_items=sum(len(r.items) for r in results),
        settings=settings,
        answers_path=str(folder),
    )


def _task_score(model: str, exam: str, result: TaskResult, settings: str, folder: Path) -> Score:
    values = [i.value for i in result.items if i.value is not None]
    path = str(folder / result.items_name)
    if len(values) == len(result.items) and set(values) <= {0.0, 1.0}:
        return _score(model, exam, result.metric, values, settings, path)
    half = Z_95 * (result.stderr or 0.0)
    return Score(
        checkpoint=model,
        exam=exam,
        metric=result.metric,
        value=result.value,
        interval=Interval(result.value - half, result.value + half),
        num_items=len(result.items),
        settings=settings,
        answers_path=path,
    )


def _score(
    model: str, exam: str, metric: str, values: Sequence[float], settings: str, path: str
) -> Score:
    """Of shares: Wilson's interval, which stays honest at 0 and 1."""
    value = statistics.fmean(values)
    return Score(
        checkpoint=model,
        exam=exam,
        metric=metric,
        value=value,
        interval=proportion_interval(round(sum(values)), len(values)),
        num_items=len(values),
        settings=settings,
        answers_path=path,
    )
