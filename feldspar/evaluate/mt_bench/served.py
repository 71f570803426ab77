"""A served model's answers to MT-Bench: the same conversations as a checkpoint's, as durable calls.

Every answer is kept in the teacher's journal: whatever dies, no question is asked twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

from feldspar.errors import TeacherError
from feldspar.evaluate.mt_bench.answers import Answers, Drawing, TurnAnswer, conversation
from feldspar.evaluate.mt_bench.files import Question, temperature_of
from feldspar.progress import SILENT, Progress, Task
from feldspar.runs import write_rows
from feldspar.teacher import Refused, Teacher

STAGE = "mt-bench-answer"
RUNS_PER_SEED = 1000
"""Draws of one recipe's seed: each of its runs has one."""
SEEDS_APART = 2**20


def answer_served(
    model: Teacher,
    questions: Sequence[Question],
    drawing: Drawing,
    *,
    num_runs: int,
    kept_path: Path,
    progress: Progress = SILENT,
) -> list[Answers]:
    """Both turns of every question, one set of answers a run, written to `kept_path/run-N`.

    Nothing is asked twice at temperature 0. An answer ends at `max_new_tokens`, as a checkpoint's
    does. Raises TeacherError where the server gives none: nothing is rated in its place.
    """
    found = asyncio.run(_all_runs(model, questions, drawing, num_runs, progress))
    kept_path.mkdir(parents=True, exist_ok=True)
    for run, answers in enumerate(found, start=1):
        write_rows(kept_path / f"run-{run}.jsonl.zst", answers)
    return [{(one.question, one.turn): one.text for one in answers} for answers in found]


async def _all_runs(
    model: Teacher,
    questions: Sequence[Question],
    drawing: Drawing,
    num_runs: int,
    progress: Progress,
) -> list[list[TurnAnswer]]:
    num_answers = num_runs * sum(len(question.turns) for question in questions)
    with progress.task(f"answers of {model.model}", num_answers, "answers") as task:
        async with model:
            of_runs = [
                [_answer(model, question, drawing, run, task) for question in questions]
                for run in range(1, num_runs + 1)
            ]
            found = await asyncio.gather(*(asyncio.gather(*of_run) for of_run in of_runs))
    return [[turn for turns in of_run for turn in turns] for of_run in found]


async def _answer(
    model: Teacher, question: Question, drawing: Drawing, run: int, task: Task
) -> list[TurnAnswer]:
    """A question's turns, one after the other: each sees what the model itself said before."""
    temperature = temperature_of(question)
    draw = drawing.seed % SEEDS_APART * RUNS_PER_SEED + run - 1 if temperature > 0 else 0
    before: Answers = {}
    answers = []
    for turn in range(1, len(question.turns) + 1):
        try:
            reply = await model.ask(
                conversation(question, before, turn),
                stage=STAGE,
                draw=draw,
                temperature=temperature,
                max_tokens=drawing.max_new_tokens,
                may_grow=False,
            )
        except Refused as refusal:
            raise TeacherError(
                f"{model.model} {model.place} does not answer MT-Bench's question "
                f"{question.id}, turn {turn} ({refusal}); give its server more context, or lower "
                "evaluate.mt_bench.max_new_tokens: without an answer there is no rating"
            ) from refusal
        before[question.id, turn] = reply.text
        ended = reply.finish_reason != "length"
        answers.append(
            TurnAnswer(question=question.id, turn=turn, run=run, text=reply.text, ended=ended)
        )
        task.advance(1)
    return answers
