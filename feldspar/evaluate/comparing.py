"""Two checkpoints over the same exam items, of one run or of two: paired differences."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from feldspar.errors import RunError
from feldspar.evaluate.scores import Comparison, compare
from feldspar.records import Answer, ExamItem
from feldspar.runs import open_step, read_recipe_of, read_rows, result_of

BASE = "base"


@dataclass(frozen=True, slots=True, kw_only=True)
class Scored:
    """A checkpoint's answers to the exams of its run."""

    name: str
    """`RUN@CHECKPOINT`."""
    items: dict[str, ExamItem]
    answers: tuple[Answer, ...]


def open_scored(run_path: Path, checkpoint: str | None = None) -> Scored:
    """The answers of a run's checkpoint, by its name in the report; its result where none is named.

    Raises RunError when the run was not scored so far, or has no such checkpoint.
    """
    scores = open_step(run_path, "scores")
    if scores is None:
        raise RunError(f"{run_path} is not scored yet; `feldspar run` its recipe to the end")
    checkpoint = checkpoint or result_of(run_path).phase
    path = scores.folder / "answers" / f"{checkpoint}.jsonl.zst"
    if not path.is_file():
        there = ", ".join(sorted(p.name.split(".")[0] for p in path.parent.glob("*.zst")))
        raise RunError(f"{run_path} scored no checkpoint {checkpoint!r}; there are: {there}")
    steps = [open_step(run_path, name) or () for name in ("own-exams", "leaf-exams")]
    return Scored(
        name=f"{run_path.name}@{checkpoint}",
        items={item.id: item for step in steps for item in step},
        answers=tuple(read_rows(path, Answer)),
    )


def compare_scored(before: Scored, after: Scored, run_path: Path) -> list[Comparison]:
    """Differences `after - before` over the items that both answered, whole exams only.

    Raises RunError when there is no such item.
    """
    config = read_recipe_of(run_path)
    items = [item for item in before.items.values() if item.id in after.items]
    found = compare(
        items,
        before.answers,
        after.answers,
        num_resamples=config.evaluate.num_resamples,
        seed=config.seed,
    )
    if not found:
        raise RunError(f"{before.name} and {after.name} have no exam item in common")
    return [comparison for comparison in found if not comparison.leaf]
