"""What arms have learned and kept: pooled over seeds, paired with the first arm, and the front.

All figures are of reported items, which nothing was chosen by. An item of one seed is a value; the
same item under several seeds stays together in the bootstrap.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean

from feldspar.errors import RunError
from feldspar.evaluate.comparing import BASE, Scored, open_scored
from feldspar.evaluate.general.scores import KEPT
from feldspar.evaluate.scores import LEAF_EXAMS
from feldspar.frontier.arms import Arm
from feldspar.records import ExamItem
from feldspar.runs import open_step
from feldspar.stats.intervals import (
    NUM_RESAMPLES,
    Difference,
    cluster_interval,
    paired_difference,
    proportion_interval,
)
from feldspar.stats.merge_curve import MeanMark
from feldspar.stored import reading
from feldspar.train.select import is_as_good
from feldspar.views.frontier import ArmFigures

Values = Mapping[tuple[int, str], float]
"""1 where an item is answered right, else 0, by seed and item."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """An arm's values over all its seeds."""

    arm: Arm
    learned: Values
    kept: Values
    """Empty where no exam asks for what is to be kept."""
    exams: Mapping[str, Values]
    """Every exam that can be matched, by name."""
    trained_tokens: float
    """With a loss, over all phases; mean over seeds."""
    seconds: float
    """Of the steps that the arm itself computed, all seeds together."""
    shared: tuple[str, ...]
    """Steps that an arm before it had made."""


def measure_arm(
    arm: Arm, runs: Sequence[Path], learned_exams: Sequence[str], *, checkpoint: str | None = None
) -> Measured:
    """Read an arm's runs, one a seed. `learned_exams`: exams of what was taught; `leaf exams` are
    the leaves' own. `checkpoint`: another than the runs' results, such as `base`.

    Raises RunError where an exam is not there.
    """
    learned: dict[tuple[int, str], float] = {}
    kept: dict[tuple[int, str], float] = {}
    exams: defaultdict[str, dict[tuple[int, str], float]] = defaultdict(dict)
    tokens, seconds, shared = [], 0.0, set[str]()
    for number, path in enumerate(runs):
        scored = open_scored(path, checkpoint)
        _check_exams(path, scored, learned_exams)
        for answer in scored.answers:
            if answer.is_right is not None:
                item = scored.items[answer.item]
                key, value = (number, item.id), float(answer.is_right)
                exams[_exam(item)][key] = value
                if item.is_retention:
                    kept[key] = value
                elif _exam(item) in learned_exams:
                    learned[key] = value
        # What the base says right of general knowledge is to be kept, in both wordings.
        general = {(number, i.id): i.value for i in scored.items_of(KEPT) if i.value is not None}
        if general:
            kept |= general
            exams[KEPT] |= general
        if checkpoint != BASE:
            tokens.append(_trained_tokens(path))
            own, others = _steps(path)
            seconds += own
            shared |= others
    return Measured(
        arm=arm,
        learned=learned,
        kept=kept,
        exams=exams,
        trained_tokens=fmean(tokens) if tokens else 0.0,
        seconds=seconds,
        shared=tuple(sorted(shared)),
    )


def compare_arms(base: Measured, arms: Sequence[Measured]) -> list[ArmFigures]:
    """The base's row, then the arms'; the first arm is what the others are set against."""
    best = max(arms, key=lambda arm: fmean(arm.learned.values()))
    rows = [_figures(base, None, best, is_on_front=False)]
    points = [(fmean(a.learned.values()), _mean(a.kept)) for a in arms]
    for arm, point in zip(arms, points, strict=True):
        first = None if arm is arms[0] else arms[0]
        rows.append(_figures(arm, first, best, is_on_front=not _is_dominated(point, points)))
    return rows


def _figures(
    one: Measured, first: Measured | None, best: Measured, *, is_on_front: bool
) -> ArmFigures:
    both = [key for key in best.learned if key in one.learned]
    # An item's seeds are one item.
    mine, of_best = (_by_item({k: of.learned[k] for k in both}) for of in (one, best))
    return ArmFigures(
        name=one.arm.name,
        settings=one.arm.settings,
        learned=_pooled(one.learned),
        learned_by_seed=_by_seed(one.learned),
        kept=_pooled(one.kept) if one.kept else None,
        kept_by_seed=_by_seed(one.kept),
        exams={exam: _pooled(values) for exam, values in one.exams.items()},
        learned_to_first=_paired(first.learned, one.learned) if first else None,
        kept_to_first=_paired(first.kept, one.kept) if first else None,
        has_learned_as_much=bool(both) and is_as_good(mine, of_best),
        is_on_front=is_on_front,
        trained_tokens=one.trained_tokens,
        seconds=one.seconds,
        shared=one.shared,
    )


def _is_dominated(point: tuple[float, float], points: Sequence[tuple[float, float]]) -> bool:
    learned, kept = point
    return any(other != point and other[0] >= learned and other[1] >= kept for other in points)


def _pooled(values: Values) -> MeanMark:
    clusters: defaultdict[str, list[float]] = defaultdict(list)
    for (_, item), value in values.items():
        clusters[item].append(value)
    mean = fmean(values.values())
    if all(len(cluster) == 1 for cluster in clusters.values()):
        interval = proportion_interval(round(sum(values.values())), len(values))
    else:
        interval = cluster_interval(list(clusters.values()), NUM_RESAMPLES, 0)
        if interval.low == interval.high:
            # Of items that are all alike no other draw differs: what so many items can say.
            interval = proportion_interval(round(mean * len(clusters)), len(clusters))
    return MeanMark(mean, interval, len(values))


def _by_seed(values: Values) -> tuple[float, ...]:
    found: defaultdict[int, list[float]] = defaultdict(list)
    for (number, _), value in values.items():
        found[number].append(value)
    return tuple(fmean(found[number]) for number in sorted(found))


def _paired(before: Values, after: Values) -> Difference | None:
    """Over the items that both were asked; the mean of an item's seeds is one pair."""
    pairs: defaultdict[str, list[tuple[float, float]]] = defaultdict(list)
    for key, value in after.items():
        if key in before:
            pairs[key[1]].append((before[key], value))
    if not pairs:
        return None
    means = [(fmean(b for b, _ in p), fmean(a for _, a in p)) for p in pairs.values()]
    first, second = zip(*means, strict=True)
    return paired_difference(first, second, NUM_RESAMPLES, 0)


def _by_item(values: Values) -> list[float]:
    """The mean of each item's seeds, in the items' order."""
    of_items: defaultdict[str, list[float]] = defaultdict(list)
    for (_, item), value in values.items():
        of_items[item].append(value)
    return [fmean(of_items[item]) for item in sorted(of_items)]


def _mean(values: Values) -> float:
    return fmean(values.values()) if values else 0.0


def _exam(item: ExamItem) -> str:
    return LEAF_EXAMS if item.origin != "file" and item.match != "choice" else item.exam


def _check_exams(path: Path, scored: Scored, wanted: Sequence[str]) -> None:
    there = {_exam(scored.items[a.item]) for a in scored.answers if a.is_right is not None}
    for exam in wanted:
        if exam not in there:
            raise RunError(
                f"{path}: no exam {exam!r} that can be matched; there are: "
                f"{', '.join(sorted(there))}"
            )


def _trained_tokens(path: Path) -> float:
    step = open_step(path, "trained")
    metrics = None if step is None else step.file("metrics.jsonl")
    if metrics is None or not metrics.exists():
        return 0.0
    with reading(metrics):
        lines = [json.loads(line) for line in metrics.read_bytes().splitlines()]
        return float(sum(line.get("supervised_tokens", 0) for line in lines))


def _steps(path: Path) -> tuple[float, set[str]]:
    """Seconds of the steps that a run made itself, and the names of those it found."""
    seconds, shared = 0.0, set()
    for name in sorted(p.name for p in path.glob("steps/*")):
        step = open_step(path, name)
        if step is not None and Path(step.done.run_path).name == path.name:
            seconds += step.seconds
        elif step is not None:
            shared.add(name)
    return seconds, shared
