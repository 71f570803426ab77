"""A model's answers to MT-Bench: two turns, at each category's temperature.

Zheng et al. 2023, "Judging LLM-as-a-Judge with MT-Bench and Chatbot Arena".
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from feldspar.evaluate.examinee import Conditions, Examinee, PosedQuestion
from feldspar.evaluate.mt_bench.files import Question, temperature_of
from feldspar.progress import SILENT, Progress
from feldspar.records import Message
from feldspar.runs import read_rows, write_rows

STAGE = "mt-bench-answer"


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
    examinee: Examinee,
    questions: Sequence[Question],
    drawing: Drawing,
    *,
    num_runs: int,
    kept_path: Path,
    progress: Progress = SILENT,
) -> list[Answers]:
    """Both turns of every question, one set of answers a run; kept under `kept_path` by turn and
    temperature as they come.

    What an earlier try left there is used again. The greedy categories of a later run are those of
    the first: the same question has the same likeliest answer.
    """
    kept_path.mkdir(parents=True, exist_ok=True)
    runs: list[Answers] = [{} for _ in range(num_runs)]
    num_turns = max(len(question.turns) for question in questions)
    for turn in range(1, num_turns + 1):
        for temperature in sorted({temperature_of(question) for question in questions}):
            asked = [
                q for q in questions if temperature_of(q) == temperature and len(q.turns) >= turn
            ]
            if not asked:
                continue
            drawn = range(1, num_runs + 1 if temperature > 0 else 2)
            name = f"runs-{len(drawn)}-turn-{turn}-temperature-{temperature}.jsonl.zst"
            path = kept_path / name
            if not path.exists():
                posed = [(question, run) for run in drawn for question in asked]
                write_rows(path, _answer(examinee, posed, runs, turn, drawing, progress))
            for answer in read_rows(path, TurnAnswer):
                for run in range(1, num_runs + 1) if temperature == 0 else (answer.run,):
                    runs[run - 1][answer.question, turn] = answer.text
    return runs


def conversation(question: Question, before: Answers, turn: int) -> list[Message]:
    """What a model is shown at a turn: the user's turns so far, and its own answers between."""
    messages: list[Message] = []
    for number in range(1, turn):
        messages.append(Message(role="user", content=question.turns[number - 1]))
        messages.append(Message(role="assistant", content=before[question.id, number]))
    return [*messages, Message(role="user", content=question.turns[turn - 1])]


def _answer(
    examinee: Examinee,
    posed: Sequence[tuple[Question, int]],
    runs: Sequence[Answers],
    turn: int,
    drawing: Drawing,
    progress: Progress,
) -> list[TurnAnswer]:
    """The turn's answers to questions of one temperature, each in a run."""
    given = examinee.answer(
        [
            PosedQuestion(
                f"mt-bench {question.id} turn {turn} run {run}",
                conversation(question, runs[run - 1], turn),
                f"MT-Bench's question {question.id}, turn {turn}",
                run,
            )
            for question, run in posed
        ],
        Conditions(
            stage=STAGE,
            max_new_tokens=drawing.max_new_tokens,
            seed=drawing.seed,
            temperature=temperature_of(posed[0][0]),
            more_room="evaluate.mt_bench.max_new_tokens",
        ),
        progress,
    )
    return [
        TurnAnswer(question=question.id, turn=turn, run=run, text=answer.text, ended=answer.ended)
        for (question, run), answer in zip(posed, given, strict=True)
    ]
