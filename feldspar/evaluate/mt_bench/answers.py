"""A student's answers to MT-Bench: two turns, at each category's temperature.

Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from feldspar.evaluate.mt_bench.files import Question, temperature_of
from feldspar.progress import SILENT, Progress
from feldspar.records import Message
from feldspar.runs import read_rows, write_rows
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import Student


@dataclass(frozen=True, slots=True, kw_only=True)
class TurnAnswer:
    """One answer; `turn` and `run` count from 1."""

    question: int
    turn: int
    run: int
    text: str
    ended: bool


class Drawing(NamedTuple):
    """How answers are drawn."""

    max_new_tokens: int
    seed: int


Answers = dict[tuple[int, int], str]
"""Texts by question and turn."""


def answer_questions(
    open_student: Callable[[], Student],
    questions: Sequence[Question],
    drawing: Drawing,
    *,
    run: int,
    kept_path: Path,
    progress: Progress = SILENT,
) -> Answers:
    """Both turns of every question, kept under `kept_path` by turn and temperature as they come.

    What an earlier try left there is used again. The greedy categories of a later run are those of
    the first: the same question has the same likeliest answer.
    """
    kept_path.mkdir(parents=True, exist_ok=True)
    answers: Answers = {}
    num_turns = max(len(question.turns) for question in questions)
    for turn in range(1, num_turns + 1):
        for temperature in sorted({temperature_of(question) for question in questions}):
            asked = [
                q for q in questions if temperature_of(q) == temperature and len(q.turns) >= turn
            ]
            drawn_in = run if temperature > 0 else 1
            path = kept_path / f"run-{drawn_in}-turn-{turn}-temperature-{temperature}.jsonl.zst"
            if not path.exists():
                said = _draw(open_student(), asked, answers, turn, drawn_in, drawing, progress)
                write_rows(path, said)
            for answer in read_rows(path, TurnAnswer):
                answers[answer.question, turn] = answer.text
    return answers


def conversation(question: Question, before: Answers, turn: int) -> list[Message]:
    """What a model is shown at a turn: the user's turns so far, and its own answers between."""
    messages: list[Message] = []
    for number in range(1, turn):
        messages.append(Message(role="user", content=question.turns[number - 1]))
        messages.append(Message(role="assistant", content=before[question.id, number]))
    return [*messages, Message(role="user", content=question.turns[turn - 1])]


def _draw(
    student: Student,
    questions: Sequence[Question],
    before: Answers,
    turn: int,
    run: int,
    drawing: Drawing,
    progress: Progress,
) -> list[TurnAnswer]:
    drawn = sample_answers(
        student,
        [conversation(question, before, turn) for question in questions],
        keys=[f"mt-bench {question.id} turn {turn} run {run}" for question in questions],
        temperature=temperature_of(questions[0]),
        max_new_tokens=drawing.max_new_tokens,
        seed=drawing.seed,
        progress=progress,
    )
    return [
        TurnAnswer(question=q.id, turn=turn, run=run, text=only.text, ended=only.ended)
        for q, (only,) in zip(questions, drawn, strict=True)
    ]
