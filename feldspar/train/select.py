"""Which checkpoint of a phase goes on: candidates, their scores, and the decision, on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

from pydantic import TypeAdapter, ValidationError

from feldspar.records import Checkpoint, Score
from feldspar.student.whole import whole_file
from feldspar.train.early import Early

R = TypeVar("R")


class Mark(NamedTuple):
    """Exams taken together: means weighted by items. None where nothing was scored so."""

    accuracy: float | None = None
    log_likelihood: float | None = None
    num_items: int = 0
    """Items behind the accuracy."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Candidate:
    """A checkpoint of a phase with its mark; step 0 is the model the phase starts from."""

    key: str
    """Of the phase's inputs: a candidate of other inputs does not count."""
    step: int
    digest: str
    mark: Mark | None = None
    """None where it was not scored."""

    @property
    def rank(self) -> tuple[float, float, int]:
        """Greater is better: accuracy, then likelihood, then the earlier step (it forgot less)."""
        mark = self.mark or Mark()
        low = float("-inf")
        if mark.accuracy is None:
            return low, low, self.step
        likelihood = low if mark.log_likelihood is None else mark.log_likelihood
        return mark.accuracy, likelihood, -self.step


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
    start: Mark | None
    """Of the model the phase started from; None where nothing was scored."""
    candidates: tuple[Candidate, ...]
    num_steps: int
    """Optimizer steps of the whole phase."""
    num_dropped: dict[str, int]
    """Rows left out per source: too long, or with nothing to train on."""
    early: Early | None = None
    """Of its first steps."""


def to_mark(scores: Iterable[Score]) -> Mark:
    scores = list(scores)
    accuracy, num_items = _mean([s for s in scores if s.metric == "accuracy"])
    likelihood, _ = _mean([s for s in scores if s.metric == "log-likelihood"])
    return Mark(accuracy, likelihood, num_items)


def choose(
    candidates: Sequence[Candidate], start: Mark | None, min_items: int
) -> tuple[Candidate, str]:
    """The candidate that the next phase starts from, and why."""
    last = max(candidates, key=lambda c: c.step)
    if start is None:
        return last, "the last checkpoint, as the recipe says"
    if start.num_items < min_items or start.accuracy is None:
        return last, (
            f"the last checkpoint: {start.num_items} items to select on, "
            f"fewer than the {min_items} of evaluate.min_selection_items"
        )
    best = max(candidates, key=lambda c: c.rank)
    assert best.mark is not None, best
    return best, (
        f"the best of {len(candidates)}: accuracy {best.mark.accuracy:.3f} over "
        f"{start.num_items} items, {start.accuracy:.3f} at the start"
    )


def to_keep(candidates: Sequence[Candidate], keep_best: int) -> set[int]:
    """Steps whose checkpoints stay: the best ones and the latest."""
    best = sorted(candidates, key=lambda c: c.rank, reverse=True)[:keep_best]
    return {c.step for c in best} | {max(c.step for c in candidates)}


def read_lines(path: Path, record: type[R]) -> list[R]:
    """Records of a JSON-lines file; none where there is no file. Torn lines are passed over."""
    adapter = TypeAdapter(record)
    rows = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else []:
        try:
            rows.append(adapter.validate_json(line))
        except ValidationError:
            continue
    return rows


def append_line(path: Path, row: R) -> None:
    """Add a record to a JSON-lines file, which is whole at every moment."""
    rows = [*read_lines(path, type(row)), row]
    adapter = TypeAdapter(type(row))
    with whole_file(path) as beside:
        beside.write_bytes(b"".join(adapter.dump_json(r) + b"\n" for r in rows))


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


def _mean(scores: Sequence[Score]) -> tuple[float | None, int]:
    num_items = sum(s.num_items for s in scores)
    if not num_items:
        return None, 0
    return sum(s.value * s.num_items for s in scores) / num_items, num_items
