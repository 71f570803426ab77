"""Whoever is examined: a checkpoint of the run, or the model of `evaluate.server`.

Exams, MT-Bench and benchmarks put the same questions to either and do not know which it is:
`CheckpointExaminee` computes in this process, in batches, as checkpoints are chosen;
`served_examinee.ServedExaminee` asks any model of `models/`, durably.
"""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

from feldspar.config import BenchmarkConfig, StudentConfig
from feldspar.progress import SILENT, Progress
from feldspar.records import Checkpoint, Message
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import Student, load_to_answer
from feldspar.student.scoring.log_probs import (
    AnswerLogProb,
    AnswerRow,
    answer_log_probs,
    text_log_probs,
)


class PosedQuestion(NamedTuple):
    """What is put to an examinee once."""

    key: str
    """Of the question, its turn and its run: what is drawn of a checkpoint depends on it."""
    messages: Sequence[Message]
    title: str
    """For errors: `MT-Bench's question 81, turn 2`."""
    run: int = 1
    """Counts from 1; each run draws other answers."""


class GivenAnswer(NamedTuple):
    """A text, and whether it came to its end by itself."""

    text: str
    ended: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Conditions:
    """How answers are given."""

    stage: str
    """Of durable calls: `exam-answer`."""
    max_new_tokens: int
    seed: int
    temperature: float = 0.0
    more_room: str = "evaluate.max_new_tokens"
    """What the user may lower where a prompt and its answer do not fit."""


class Examinee(Protocol):
    """One model under examination."""

    @property
    def key(self) -> str:
        """Of what decides its answers, by content."""
        ...

    @property
    def name(self) -> str:
        """Of its row among the scores."""
        ...

    @property
    def folder_name(self) -> str:
        """Of what is kept of it: the same for the same model, whatever its row is called."""
        ...

    @property
    def template(self) -> str:
        """For a score's settings: `lab template`."""
        ...

    def answer(
        self, questions: Sequence[PosedQuestion], how: Conditions, progress: Progress = SILENT
    ) -> list[GivenAnswer]:
        """One answer to each, in order."""
        ...

    def log_probs(
        self, rows: Sequence[AnswerRow], progress: Progress = SILENT
    ) -> list[AnswerLogProb]:
        """How likely it finds given answers, in order. Raises CannotScore where it does not say."""
        ...

    def lm(self, config: BenchmarkConfig, progress: Progress = SILENT) -> Any:
        """An lm_eval `LM`, asked as a benchmark is to be; `way` says what its settings are to add,
        once it was asked. Needs lm_eval."""
        ...


class CheckpointExaminee:
    """A checkpoint, loaded when it is first asked."""

    def __init__(self, name: str, checkpoint: Checkpoint, student: StudentConfig) -> None:
        self.name = name
        self.template = f"{student.template} template"
        self._checkpoint, self._student = checkpoint, student

    @property
    def key(self) -> str:
        how = self._student
        return f"{self._checkpoint.digest} {how.dtype} {how.template} {how.system_prompt!r}"

    @property
    def folder_name(self) -> str:
        return self._checkpoint.digest[:16]

    def answer(
        self, questions: Sequence[PosedQuestion], how: Conditions, progress: Progress = SILENT
    ) -> list[GivenAnswer]:
        drawn = sample_answers(
            self._loaded,
            [question.messages for question in questions],
            keys=[question.key for question in questions],
            temperature=how.temperature,
            max_new_tokens=how.max_new_tokens,
            seed=how.seed,
            progress=progress,
        )
        return [GivenAnswer(only.text, only.ended) for (only,) in drawn]

    def log_probs(
        self, rows: Sequence[AnswerRow], progress: Progress = SILENT
    ) -> list[AnswerLogProb]:
        return answer_log_probs(self._loaded, rows, progress=progress)

    def text_log_probs(
        self, texts: Sequence[str], progress: Progress = SILENT
    ) -> list[AnswerLogProb]:
        """How likely it finds texts without any template, each given its first token."""
        return text_log_probs(self._loaded, texts, progress)

    def lm(self, config: BenchmarkConfig, progress: Progress = SILENT) -> Any:
        from feldspar.evaluate.benchmarks.student_lm import StudentLM

        return StudentLM(
            self._checkpoint.path,
            self._student,
            chat_template=config.chat_template,
            progress=progress,
        )

    @functools.cached_property
    def _loaded(self) -> Student:
        return load_to_answer(self._checkpoint.path, self._student)


def all_examinees(
    named: Iterable[tuple[str, Checkpoint]], student: StudentConfig, served: Examinee | None
) -> Iterator[Examinee]:
    """The checkpoints, then the served model. One at a time: only one is loaded."""
    for name, checkpoint in named:
        yield CheckpointExaminee(name, checkpoint, student)
    if served is not None:
        yield served


def row_name(model: str, checkpoints: Iterable[str]) -> str:
    """The model's own name, or `served NAME` where a checkpoint of the run is called so."""
    return f"served {model}" if model in checkpoints else model


def file_name(model: str) -> str:
    """`owner__name` of `owner/name`: a name to be part of a path."""
    return model.replace("/", "__")
