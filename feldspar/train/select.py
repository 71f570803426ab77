"""Which checkpoint of a phase goes on: candidates, their scores, and the decision, on disk."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter

from feldspar.files import write_bytes_whole
from feldspar.records import Checkpoint
from feldspar.stats.intervals import (
    NUM_RESAMPLES,
    Difference,
    paired_difference,
    standard_error,
)
from feldspar.stored import read_whole_lines
from feldspar.train.early import Early

R = TypeVar("R")

_ROUNDING = 1e-12
"""One item of n lost is one standard error to the last bit."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseCandidate:
    """A checkpoint of a phase; step 0 is the model that the phase starts from."""

    key: str
    """Of the phase's inputs: a candidate of other inputs does not count."""
    step: int
    digest: str
    values: tuple[float, ...] | None = None
    """By item, in the order of the items' names; None where it was not scored."""

    @property
    def mean(self) -> float:
        """Greater is better; those that were not scored come last."""
        return fmean(self.values) if self.values else float("-inf")

    @property
    def rank(self) -> tuple[float, int]:
        """Greater is better: the mean, then the earlier step; the latest where none is scored."""
        return self.mean, -self.step if self.values else self.step


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedCheckpoint:
    """A candidate beside the phase's start and beside the best: paired, with 95 % intervals."""

    step: int
    digest: str
    value: float | None
    """Mean over the items; None where it was not scored."""
    to_start: Difference | None = None
    """This one minus the start."""
    to_best: Difference | None = None
    """This one minus the best."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Selection:
    """The decision on a phase: one line of selections.jsonl."""

    key: str
    phase: str
    step: int
    """Of the checkpoint chosen."""
    path: str
    """Relative to the folder of selections.jsonl."""
    digest: str
    reason: str
    metric: str
    """`accuracy`, `log-likelihood`, ...; empty where nothing was scored."""
    num_items: int
    start: float | None
    """Of the model the phase started from; None where nothing was scored."""
    candidates: tuple[ComparedCheckpoint, ...]
    num_steps: int
    """Optimizer steps of the whole phase."""
    num_dropped: dict[str, int]
    """Rows left out per source: too long, or with nothing to train on."""
    early: Early | None = None
    """Of its first steps."""
    kept: Difference | None = None
    """The choice minus the start, of what is to be kept; None where no exam asks for that."""


class CheckpointChoice(NamedTuple):
    """The candidate that the next phase starts from, why, and how all of them compare."""

    candidate: PhaseCandidate
    reason: str
    compared: tuple[ComparedCheckpoint, ...]
    is_worse: bool = False
    """Than the phase's start, beyond noise."""


def to_values(of_items: Mapping[str, float]) -> tuple[float, ...]:
    return tuple(of_items[item] for item in sorted(of_items))


def choose(
    candidates: Sequence[PhaseCandidate],
    start: PhaseCandidate | None,
    metric: str,
    *,
    min_items: int,
) -> CheckpointChoice:
    """The earliest candidate that is no more than one standard error below the best, in pairs.

    Among `contenders`, whatever else is on disk (docs/decisions/008). Where nothing was scored, or
    on too few items, the last.
    """
    last = max(candidates, key=lambda c: c.step)
    if start is None or start.values is None:
        return CheckpointChoice(
            last, "the last checkpoint, as the recipe says", _compare(candidates, None)
        )
    num_items = len(start.values)
    if num_items < min_items:
        reason = (
            f"the last checkpoint: {num_items} items to select on, "
            f"fewer than the {min_items} of evaluate.min_selection_items"
        )
        return CheckpointChoice(last, reason, _compare(candidates, start))
    best, chosen = _best(candidates), _simplest(contenders(candidates))
    compared = _compare(candidates, start)
    change = next(c.to_start for c in compared if c.step == chosen.step)
    assert change is not None
    what = f"the best of {len(candidates)}"
    if chosen is not best:
        what = f"the earliest within one standard error of {what} (step {best.step})"
    reason = (
        f"{what}: {metric} {chosen.mean:.3f} over {num_items} items, {start.mean:.3f} at the "
        f"start ({_interval(change)}{_verdict(change)})"
    )
    return CheckpointChoice(chosen, reason, compared, is_worse=change.interval.high < 0)


def costs_more_than_it_taught(learned: Difference | None, kept: Difference | None) -> str:
    """What to say of a phase that learned nothing beyond noise, and lost beyond it
    of what is to be kept; else nothing."""
    if learned is None or kept is None or learned.interval.low > 0 or kept.interval.high >= 0:
        return ""
    return (
        f"taught nothing beyond noise ({_interval(learned)} by its own measure) and "
        f"cost what was to be kept ({_interval(kept)} over {kept.num_pairs} items); leave it out, "
        "lower its learning_rate or num_epochs, or set train.merge"
    )


def _interval(change: Difference) -> str:
    low, high = change.interval
    return f"{change.value:+.3f} [{low:+.3f}, {high:+.3f}]"


def contenders(candidates: Sequence[PhaseCandidate]) -> list[PhaseCandidate]:
    """Those that may still be chosen: the best, the one that would be chosen now, the latest.

    `candidates` are all there have been, in their order. One that was passed over when another came
    does not return, so that its checkpoint need not be kept.
    """
    alive: list[PhaseCandidate] = []
    for candidate in candidates:
        alive.append(candidate)
        standing = (_best(alive), _simplest(alive), candidate)
        alive = [c for c in alive if c in standing]
    return alive


def kept_steps(candidates: Sequence[PhaseCandidate], keep_best: int) -> set[int]:
    """Steps whose checkpoints stay on disk: the contenders, and the `keep_best` best ones."""
    best = sorted(candidates, key=lambda c: c.rank, reverse=True)[:keep_best]
    return {c.step for c in (*contenders(candidates), *best)}


def _best(candidates: Sequence[PhaseCandidate]) -> PhaseCandidate:
    return max(candidates, key=lambda c: c.rank)


def is_as_good(values: Sequence[float], best: Sequence[float]) -> bool:
    """Whether they lie no more than one standard error of the paired differences below the best
    (docs/decisions/008)."""
    losses = [b - v for b, v in zip(best, values, strict=True)]
    return fmean(losses) <= standard_error(losses) + _ROUNDING


def _simplest(candidates: Sequence[PhaseCandidate]) -> PhaseCandidate:
    """The one-standard-error rule (Breiman et al. 1984), with the error of paired differences."""
    best = _best(candidates)
    for candidate in sorted(candidates, key=lambda c: c.step):
        if candidate.values and best.values and is_as_good(candidate.values, best.values):
            return candidate
    return best


def _compare(
    candidates: Sequence[PhaseCandidate], start: PhaseCandidate | None
) -> tuple[ComparedCheckpoint, ...]:
    best = _best(candidates)
    return tuple(
        ComparedCheckpoint(
            step=c.step,
            digest=c.digest,
            value=c.mean if c.values else None,
            to_start=_difference(start, c),
            to_best=_difference(best, c),
        )
        for c in candidates
    )


def _difference(before: PhaseCandidate | None, after: PhaseCandidate) -> Difference | None:
    if before is None or not before.values or not after.values:
        return None
    return paired_difference(before.values, after.values, NUM_RESAMPLES, seed=0)


def _verdict(change: Difference) -> str:
    if change.interval.high < 0:
        return ", worse than the start"
    return "" if change.interval.low > 0 else ", not distinguishable from the start"


def append_line(path: Path, row: R) -> None:
    """Add a record to a JSON-lines file, which is whole at every moment."""
    rows = [*read_whole_lines(path, type(row)), row]
    adapter = TypeAdapter(type(row))
    write_bytes_whole(path, b"".join(adapter.dump_json(r) + b"\n" for r in rows))


def step_folder(phase_folder: Path, step: int) -> Path:
    return phase_folder / f"step-{step:06d}"


def delete_others(phase_folder: Path, kept: set[int]) -> None:
    """Delete checkpoints of a phase that are not to be kept."""
    names = {step_folder(phase_folder, step).name for step in kept}
    for folder in phase_folder.glob("step-*"):
        if folder.name not in names:
            shutil.rmtree(folder)


def chosen_checkpoint(here: Path, selection: Selection) -> Checkpoint:
    return Checkpoint(
        path=str(here / selection.path),
        digest=selection.digest,
        phase=selection.phase,
        step=selection.step,
    )
