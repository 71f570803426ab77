"""Merged weights: how much of what training changed is kept, chosen by exams.

Less of the change forgets less; the first part of it teaches most. Each weight of
`[train.merge]` is written, examined on the items for choosing, and deleted; the chosen one stays.

FOLDER/merge-candidates.jsonl   one line a weight, so that a killed merging goes on
FOLDER/merges.jsonl             one line a decision
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

from feldspar.config import MergeConfig
from feldspar.keys import content_key
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint, ScoreItems
from feldspar.stats.intervals import NUM_RESAMPLES, Difference, paired_difference
from feldspar.stats.merge_curve import MERGES, ComparedMerge, MergeSelection, mark_of
from feldspar.steps import Step, Workspace
from feldspar.stored import read_whole_lines
from feldspar.student.interpolate import interpolate
from feldspar.train.select import append_line, is_as_good, to_values

log = logging.getLogger(__name__)

MERGED = "merged"
"""Name of the checkpoint that comes after the last phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class MergeCandidate:
    """A weight with its marks, item by item in the order of their names; weight 0 is the start."""

    key: str
    weight: float
    digest: str
    learned: tuple[float, ...]
    """Of what is taught."""
    kept: tuple[float, ...]
    """Of what is to be kept; empty where no exam asks for that."""


class MergeChoice(NamedTuple):
    candidate: MergeCandidate
    reason: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Examiners:
    """What weights are chosen by."""

    learned: ScoreItems
    kept: ScoreItems | None
    """None where no exam has items of what is to be kept."""
    min_items: int
    """With fewer of what is learned, all of the change is kept."""


def merge_trained(
    workspace: Workspace,
    start: Checkpoint,
    end: Checkpoint,
    config: MergeConfig,
    *,
    learned: ScoreItems,
    kept: ScoreItems | None,
    min_selection_items: int,
) -> Iterator[Checkpoint]:
    """Merge what all phases made with `start`; gives the chosen checkpoint, called `merged`.

    Raises TrainingError where the two are not of one model.
    """
    examiners = Examiners(learned=learned, kept=kept, min_items=min_selection_items)
    named = replace(end, phase=MERGED)
    yield merge(start, named, config, examiners, workspace.folder, workspace.folder / MERGED,
                progress=workspace.progress)  # fmt: skip


MERGED_STEP = Step("merged", merge_trained, version=1)


def merge(
    start: Checkpoint,
    end: Checkpoint,
    config: MergeConfig,
    examiners: Examiners,
    folder: Path,
    path: Path,
    *,
    progress: Progress = SILENT,
) -> Checkpoint:
    """Try the weights, choose, and write the chosen model to `path`; what was done is found again.

    `folder` has the lines about it.
    """
    key = content_key(start, end, config, examiners.learned, examiners.kept, examiners.min_items)
    for done in read_whole_lines(folder / MERGES, MergeSelection):
        if done.key == key and (not done.path or (folder / done.path).is_dir()):
            return _checkpoint(done, end, folder)
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = _MergeTrial(start, end, examiners, key, folder / "merge-candidates.jsonl")
    origin = trial.mark(0.0, path)
    candidates = []
    with progress.task(f"merging {end.phase}", len(config.weights), "weights") as task:
        for weight in sorted(config.weights):
            candidates.append(trial.mark(weight, path))
            task.advance()
    choice = choose_weight(candidates, min_items=examiners.min_items)
    chosen = trial.write(choice.candidate.weight, path)
    is_end = chosen.path == end.path
    selection = MergeSelection(
        key=key,
        phase=end.phase,
        weight=choice.candidate.weight,
        path="" if is_end else path.relative_to(folder).as_posix(),
        digest=chosen.digest,
        reason=choice.reason,
        curve=_curve([origin, *candidates]),
    )
    append_line(folder / MERGES, selection)
    log.info("%s: weight %s: %s", end.phase, selection.weight, selection.reason)
    return chosen


def choose_weight(candidates: Sequence[MergeCandidate], *, min_items: int) -> MergeChoice:
    """The least weight that has learned enough and, of those, kept as much as the one that kept
    most, by one standard error of the paired differences (docs/decisions/043).

    Enough is as much as the best, by one standard error; or a loss that is within noise
    where more is kept beyond noise, and at least as much more.
    """
    whole = max(candidates, key=lambda c: c.weight)
    if len(candidates) == 1:
        return MergeChoice(whole, "the only weight of train.merge.weights")
    if len(whole.learned) < min_items:
        reason = (
            f"the largest weight: {len(whole.learned)} items to choose by, "
            f"fewer than the {min_items} of evaluate.min_selection_items"
        )
        return MergeChoice(whole, reason)
    best = max(candidates, key=lambda c: (fmean(c.learned), -c.weight))
    able = [c for c in candidates if _has_learned_enough(c, best)]
    about = "no exam asks for what is to be kept"
    if whole.kept:
        keeper = max(able, key=lambda c: (fmean(c.kept), -c.weight))
        able = [c for c in able if is_as_good(c.kept, keeper.kept)]
    chosen = min(able, key=lambda c: c.weight)
    if whole.kept:
        about = f"kept {fmean(chosen.kept):.3f} over {len(chosen.kept)}, {_beside(chosen, whole)}"
    reason = (
        f"the least that has learned enough and kept as much as any of these: learned "
        f"{fmean(chosen.learned):.3f} over {len(chosen.learned)} items "
        f"({fmean(best.learned):.3f} the best, weight {best.weight:g}); {about}"
    )
    return MergeChoice(chosen, reason)


def _has_learned_enough(candidate: MergeCandidate, best: MergeCandidate) -> bool:
    if is_as_good(candidate.learned, best.learned):
        return True
    learned = _difference(best.learned, candidate.learned)
    kept = _difference(best.kept, candidate.kept)
    if learned is None or kept is None:
        return False
    return learned.interval.high >= 0 and kept.interval.low > 0 and kept.value >= -learned.value


def _beside(chosen: MergeCandidate, whole: MergeCandidate) -> str:
    change = paired_difference(whole.kept, chosen.kept, NUM_RESAMPLES, seed=0)
    low, high = change.interval
    return f"{change.value:+.3f} [{low:+.3f}, {high:+.3f}] to weight {whole.weight:g}"


class _MergeTrial:
    """The weights that are tried between two checkpoints."""

    def __init__(
        self, start: Checkpoint, end: Checkpoint, examiners: Examiners, key: str, lines: Path
    ) -> None:
        self._start, self._end, self._examiners = start, end, examiners
        self._key, self._lines = key, lines

    def mark(self, weight: float, path: Path) -> MergeCandidate:
        """Write a weight's model, have it examined, and delete it; or find its marks."""
        for known in read_whole_lines(self._lines, MergeCandidate):
            if known.key == self._key and known.weight == weight:
                return known
        trial = path.with_name(f"{path.name}-{weight:g}")
        checkpoint = self.write(weight, trial)
        kept = self._examiners.kept
        candidate = MergeCandidate(
            key=self._key,
            weight=weight,
            digest=checkpoint.digest,
            learned=to_values(self._examiners.learned.values(checkpoint)),
            kept=to_values(kept.values(checkpoint)) if kept else (),
        )
        append_line(self._lines, candidate)
        shutil.rmtree(trial, ignore_errors=True)
        return candidate

    def write(self, weight: float, path: Path) -> Checkpoint:
        """The model of a weight: the start or the end itself where it is one of these."""
        if weight in (0.0, 1.0):
            return self._end if weight else self._start
        return interpolate(self._start, self._end, weight, path)


def _curve(points: Sequence[MergeCandidate]) -> tuple[ComparedMerge, ...]:
    whole = max(points, key=lambda c: c.weight)
    return tuple(
        ComparedMerge(
            weight=point.weight,
            learned=mark_of(point.learned),
            kept=mark_of(point.kept),
            learned_to_whole=_difference(whole.learned, point.learned),
            kept_to_whole=_difference(whole.kept, point.kept),
        )
        for point in points
    )


def _difference(before: Sequence[float], after: Sequence[float]) -> Difference | None:
    return paired_difference(before, after, NUM_RESAMPLES, seed=0) if before else None


def _checkpoint(selection: MergeSelection, end: Checkpoint, folder: Path) -> Checkpoint:
    path = str(folder / selection.path) if selection.path else end.path
    return replace(end, path=path, digest=selection.digest)
