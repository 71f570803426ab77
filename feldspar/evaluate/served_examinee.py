"""The model of `evaluate.server` under examination: an endpoint's, a command's, or a folder's.

What it says is kept in the journal: whatever dies, no question is put twice.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from feldspar.config import BenchmarkConfig, StudentConfig
from feldspar.errors import TeacherError
from feldspar.evaluate.examinee import Conditions, GivenAnswer, PosedQuestion, file_name
from feldspar.keys import content_key
from feldspar.models.model import CannotScore, Continuations
from feldspar.progress import SILENT, Progress, Task
from feldspar.student.model import load_template
from feldspar.student.scoring.log_probs import AnswerLogProb, AnswerRow
from feldspar.student.template.render import Template
from feldspar.teacher import Refused, Teacher

RUNS_PER_SEED = 1000
"""Draws of one recipe's seed: each of its runs has one."""
SEEDS_APART = 2**20
SCORE_STAGE = "exam-log-probability"


class ServedExaminee:
    """A model that is asked over chat, through its server's own template.

    `tokenizer_path`: a folder with its tokenizer and chat template, by which the token ids of
    given answers are known.
    """

    template = "served, the server's template"

    def __init__(
        self, model: Teacher, name: str | None = None, tokenizer_path: str | None = None
    ) -> None:
        self.name = name or model.model
        self._model = model
        self._template: Template | None = None
        if tokenizer_path is not None:
            how = StudentConfig(base=tokenizer_path, template="own")
            self._template = load_template(tokenizer_path, how)

    @property
    def key(self) -> str:
        """Of the model and its revision, the tokenizer and the row's name; never of an address."""
        template = "" if self._template is None else self._template.key
        return content_key(self._model.key, template, self.name)

    @property
    def folder_name(self) -> str:
        return file_name(self.name)

    def answer(
        self, questions: Sequence[PosedQuestion], how: Conditions, progress: Progress = SILENT
    ) -> list[GivenAnswer]:
        """Raises TeacherError where the server gives none: nothing is rated in its place."""
        return asyncio.run(self._answer_all(questions, how, progress))

    def log_probs(
        self, rows: Sequence[AnswerRow], progress: Progress = SILENT
    ) -> list[AnswerLogProb]:
        """Raises CannotScore where no tokenizer is named, or the server returns none."""
        if self._template is None:
            raise CannotScore(
                "its tokenizer is not known; name a folder with it in evaluate.server_tokenizer"
            )
        template = self._template
        asked = []
        for messages, group in groupby(rows, key=lambda row: row.messages):
            answers = [template.render_answer(messages, r.answer, ended=r.ended) for r in group]
            asked.append(Continuations(template.render_prompt(messages), answers))
        return asyncio.run(self._score_all(asked, progress))

    def lm(self, config: BenchmarkConfig, progress: Progress = SILENT) -> Any:
        from feldspar.evaluate.benchmarks.served_lm import ServedLM

        return ServedLM(self._model.bare_model, progress)

    async def _answer_all(
        self, questions: Sequence[PosedQuestion], how: Conditions, progress: Progress
    ) -> list[GivenAnswer]:
        with progress.task(f"answers of {self._model.model}", len(questions), "answers") as task:
            async with self._model:
                asked = [self._answer(question, how, task) for question in questions]
                return await asyncio.gather(*asked)

    async def _answer(self, question: PosedQuestion, how: Conditions, task: Task) -> GivenAnswer:
        # Nothing is asked twice at temperature 0.
        draw = how.seed % SEEDS_APART * RUNS_PER_SEED + question.run - 1 if how.temperature else 0
        try:
            reply = await self._model.ask(
                question.messages,
                stage=how.stage,
                draw=draw,
                temperature=how.temperature,
                max_tokens=how.max_new_tokens,
                may_grow=False,
                may_be_empty=True,
            )
        except Refused as refusal:
            raise TeacherError(
                f"{self._model.model} {self._model.place} does not answer {question.title} "
                f"({refusal}); give its server more context, or lower {how.more_room}: without an "
                "answer there is no score"
            ) from refusal
        task.advance(1)
        return GivenAnswer(reply.text, reply.finish_reason != "length")

    async def _score_all(
        self, rows: Sequence[Continuations], progress: Progress
    ) -> list[AnswerLogProb]:
        async with self._model:
            try:
                scored = await self._model.score(rows, stage=SCORE_STAGE, progress=progress)
            except Refused as refusal:
                raise TeacherError(
                    f"{self._model.model} {self._model.place} does not read a reference answer "
                    f"({refusal}); give its server more context, or leave out "
                    "evaluate.server_tokenizer: accuracies need no log-probabilities"
                ) from refusal
        return [AnswerLogProb(*one) for of_row in scored for one in of_row]
