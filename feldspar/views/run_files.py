"""What a run directory holds, read when it is asked for and typed; also of a run that goes on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.generate.funnel import FUNNEL_FILE, Funnel, read_funnel
from feldspar.records import (
    Answer,
    Checkpoint,
    ExamItem,
    Leaf,
    Phase,
    PhaseTraining,
    Sample,
    Score,
    Touched,
)
from feldspar.runs import Rows, open_step, read_recipe_of, read_rows, result_of
from feldspar.stored import adapter_of, reading
from feldspar.train.select import Selection

R = TypeVar("R")

STEP_TITLES = {
    "own-exams": "read your exams",
    "leaves": "read the taxonomy",
    "calibration": "try the judge on seeds",
    "leaf-exams": "write the leaves' exams",
    "samples": "write and judge samples",
    "own-voice": "have the base say the answers in its own words",
    "base-replay": "sample general data from the base",
    "phases": "mix the phases",
    "trained": "train the phases",
    "merged": "merge what was trained with its start",
    "preferred": "tune on preferences",
    "scores": "score every checkpoint",
    "served-exams": "ask the served model the exams",
    "general": "ask for general knowledge",
    "benchmarks": "run the benchmarks",
    "mt-bench": "rate chats by MT-Bench",
    "retrieval": "ask the exams with passages",
    "judged": "judge long answers",
    "touched": "look for exam items in what was trained on",
    "untouched": "score without those",
}
"""What each step of a run does, in the order of flow.py."""


@dataclass(frozen=True, slots=True, kw_only=True)
class SourceStep:
    """A source's part of an optimizer step."""

    loss: float
    """Nats a supervised token."""
    samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingStep:
    """A line of metrics.jsonl."""

    phase: str
    step: int
    loss: float | None = None
    """None on a line of held-out rows."""
    grad_norm: float | None = None
    sources: dict[str, SourceStep] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundFigures:
    """What a line of rounds.jsonl says of a preference round. Rewards in nats."""

    phase: str
    released: bool
    best_reward: float
    mean_reward: float
    random_reward: float
    best_tokens: float
    mean_tokens: float
    length_correlation: float
    num_prompts: int
    num_picked: int
    held_out_before: float
    held_out_after: float
    change_low: float
    change_high: float
    withheld: str = ""
    """Why it may not be released; empty where it may."""
    held_out_control: float | None = None
    scores: dict[str, list[Score]] = field(default_factory=dict)
    domains: dict[str, int] = field(default_factory=dict)
    """Prompts by the domain whose prompt the reward pair read."""


class RunFiles:
    """One run, for readers. What it has not come to yet is empty.

    Raises RunError where something is damaged.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = path.name

    @cached_property
    def recipe(self) -> Recipe:
        return read_recipe_of(self.path)

    @cached_property
    def recipe_text(self) -> str:
        return (self.path / "recipe.json").read_text(encoding="utf-8")

    @cached_property
    def steps(self) -> dict[str, Rows[Any]]:
        """The finished steps that pages show."""
        return {n: rows for n in STEP_TITLES if (rows := open_step(self.path, n)) is not None}

    @cached_property
    def leaves(self) -> tuple[Leaf, ...]:
        return self._all("leaves", Leaf)

    @cached_property
    def items(self) -> tuple[ExamItem, ...]:
        return (*self._all("own-exams", ExamItem), *self._all("leaf-exams", ExamItem))

    @cached_property
    def scores(self) -> tuple[Score, ...]:
        return self._all("scores", Score)

    @cached_property
    def touched(self) -> tuple[Touched, ...]:
        return self._all("touched", Touched)

    @cached_property
    def phases(self) -> tuple[Phase, ...]:
        return self._all("phases", Phase)

    @cached_property
    def trained_as(self) -> dict[str, PhaseTraining]:
        """Phase -> how it is trained."""
        return {p.name: p for p in self.recipe.train.of_phases()}

    @cached_property
    def checkpoints(self) -> tuple[Checkpoint, ...]:
        """Of phases and rounds, in their order; the released one is last."""
        return (*self._all("trained", Checkpoint), *self._all("preferred", Checkpoint))

    @cached_property
    def result(self) -> Checkpoint | None:
        """The released model; None before anything is trained."""
        try:
            return result_of(self.path)
        except RunError:
            if self.checkpoints:
                raise
            return None

    @cached_property
    def funnel(self) -> Funnel | None:
        rows = self.steps.get("samples")
        path = rows.file(FUNNEL_FILE) if rows is not None else None
        return read_funnel(path) if path is not None and path.exists() else None

    @cached_property
    def selections(self) -> tuple[Selection, ...]:
        return tuple(self.lines("trained", "selections.jsonl", Selection))

    @cached_property
    def metrics(self) -> tuple[TrainingStep, ...]:
        return tuple(self.lines("trained", "metrics.jsonl", TrainingStep))

    @cached_property
    def rounds(self) -> tuple[RoundFigures, ...]:
        return tuple(self.lines("preferred", "rounds.jsonl", RoundFigures))

    @property
    def samples(self) -> Rows[Sample] | None:
        return self.steps.get("samples")

    @property
    def is_scored(self) -> bool:
        return "scores" in self.steps

    @cached_property
    def answers_path(self) -> Path | None:
        """Folder of the checkpoints' answers."""
        return self.steps["scores"].files("answers") if self.is_scored else None

    def answers_of(self, checkpoint: str) -> dict[str, Answer]:
        """What a checkpoint said in the exams, by item."""
        assert self.answers_path is not None
        path = self.answers_path / f"{checkpoint}.jsonl.zst"
        return {answer.item: answer for answer in read_rows(path, Answer)}

    @cached_property
    def first_and_last(self) -> tuple[str, str] | None:
        """Names, in scores, of the base and of the released model."""
        named = list(dict.fromkeys(s.checkpoint for s in self.scores))
        if not named or self.result is None:
            return None
        return named[0], self.result.phase if self.result.phase in named else named[-1]

    def lines(self, step: str, name: str, kind: type[R]) -> Sequence[R]:
        """Records of a step's JSON-lines file; none where there is no such file."""
        rows = self.steps.get(step)
        if rows is None or not (path := rows.file(name)).exists():
            return ()
        adapter = adapter_of(kind)
        with reading(path):
            return [adapter.validate_json(line) for line in path.read_bytes().split(b"\n") if line]

    def _all(self, step: str, kind: type[R]) -> tuple[R, ...]:
        rows = tuple(self.steps.get(step, ()))
        assert all(isinstance(row, kind) for row in rows), step
        return rows
