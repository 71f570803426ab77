"""The teacher and the judge of a run: what they are asked, in what words, and what rejects."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeVar

from feldspar.config import GenerateConfig
from feldspar.generate.draft import Draft, Rejected, SampleRequest
from feldspar.generate.prompting import Prompts, Value
from feldspar.generate.quoting import unquote_sections
from feldspar.generate.replies import read_whole
from feldspar.generate.stages import (
    STAGE_OF_RENDERING,
    STAGES,
    Blocks,
    Stage,
    StageName,
    find_stage,
    judge_urgency,
)
from feldspar.records import Judgment, Message, Sample
from feldspar.teacher import RATING, VERDICT, BudgetSpent, Form, Refused, Reply, Teacher, ask_judge

V = TypeVar("V", bool, int)

CREATIVE_FOLDERS = frozenset(
    (
        "writing",
        "roleplay",
        "creative",
        "creativity",
        "poetry",
        "stories",
        "fiction",
        "humor",
        "jokes",
    )
)
"""A skill under one of these is answered by a writer; any other, and all that is grounded, by an
expert."""
DRAWS_PER_SEED = 2**20
"""Draws that one seed of a recipe may use."""
_END = re.compile(r"\[end\]", re.IGNORECASE)
MAX_REPLY_EXAMPLE = 200
"""Characters kept of a reply that cannot be read."""


class Writers:
    """The teacher and the judge of a run, with the prompts they are given."""

    def __init__(
        self, teacher: Teacher, judge: Teacher, prompts: Prompts, config: GenerateConfig
    ) -> None:
        self.teacher = teacher
        self.judge_teacher = judge
        self.config = config
        self.unread: dict[str, str] = {}
        """The start of replies that could not be read, by sample, or by request where a reply had
        fewer blocks than were asked for; until the funnel takes them."""
        self._prompts = prompts

    @property
    def is_spent(self) -> bool:
        """Whether the budget has ended the asking."""
        return bool(self.teacher.budget.reached or self.judge_teacher.budget.reached)

    async def finish(
        self, draft: Draft, *stages: Callable[[Draft, Writers], Awaitable[None]]
    ) -> Sample:
        """Take a draft through its stages, to the end or to the first that rejects it."""
        try:
            for stage in stages:
                await stage(draft, self)
        except Rejected as rejected:
            return self.reject(draft, rejected)
        return draft.finish(self.teacher.key, None)

    def reject(self, draft: Draft, rejected: Rejected) -> Sample:
        """What a draft ends as, with its reason."""
        sample = draft.finish(self.teacher.key, rejected.reason)
        if rejected.reply:
            self.unread[sample.id] = rejected.reply[:MAX_REPLY_EXAMPLE]
        return sample

    async def ask(self, name: str, prompt: str, request: SampleRequest, *, urgency: int = 1) -> str:
        """What the teacher says to a prompt of your own; the journal counts it under `name`.

        Calls of a higher `urgency` go first: let it rise from call to call. Raises Rejected.
        """
        message = Message(role="user", content=prompt)
        return _whole_text(await self._post((message,), name, request.draw, urgency))

    async def judge_by(self, prompt: str, criterion: str, draft: Draft) -> None:
        """Raises Rejected unless the judge ends its reply to your prompt with `Verdict: YES`."""
        if not self.config.judge:
            return
        messages = (Message(role="user", content=prompt),)
        if not await self._judge(messages, f"judge-{criterion}", criterion, draft, VERDICT):
            raise Rejected(f"judge: not {criterion}")

    async def write_blocks(
        self, name: StageName, request: SampleRequest, count: int, **values: Value
    ) -> list[tuple[str, ...]]:
        """Ask for `count` blocks, and once again with a complaint where not one can be read.

        Gives the texts of each, in the order of the stage's fields. Raises Rejected when there is
        none then either.
        """
        stage = find_stage(name)
        form = stage.form
        assert isinstance(form, Blocks), f"{name} is no stage whose reply has blocks"
        messages = self._render(name, request, examples=request.seeds, count=count, **values)
        urgency = _urgency(stage, request, values)
        reply = await self._post(messages, name, request.draw, urgency)
        blocks = _read_blocks(reply, form, count)
        # A reply that was cut off has been asked for with more room already.
        if not blocks and reply.finish_reason != "length":
            complaint = (
                "Your reply has no block that can be read. Do it again, in the form that was asked "
                f"for: {form.wanted}, each alone on its line, with the texts below them."
            )
            again = (
                *messages,
                Message(role="assistant", content=reply.text or "(nothing)"),
                Message(role="user", content=complaint),
            )
            reply = await self._post(again, name, request.draw, urgency)
            blocks = _read_blocks(reply, form, count)
        if not blocks:
            is_cut = reply.finish_reason == "length"
            reason = "format: cut off" if is_cut else "format: no readable block"
            raise Rejected(reason, reply.text)
        if len(blocks) < count:
            self.unread[request.key] = reply.text[:MAX_REPLY_EXAMPLE]
        return blocks

    async def render_chunk(self, request: SampleRequest) -> str:
        """The request's chunk in the request's form: written once, whatever is asked about it."""
        assert request.rendering is not None, request
        name = STAGE_OF_RENDERING[request.rendering]
        # The first draw of the recipe's seed, so that all requests about a chunk ask the same.
        draw = request.draw // DRAWS_PER_SEED * DRAWS_PER_SEED
        messages = self._render(name, request)
        reply = await self._post(messages, name, draw, STAGES[name].urgency)
        return unquote_sections(_whole_text(reply))

    async def write_focal(self, draft: Draft) -> None:
        """Fill in a text that answers a draft's question from its chunk. Raises Rejected."""
        name: StageName = "focal-text"
        messages = self._render(name, draft.request, question=draft.question)
        reply = await self._post(messages, name, draft.request.draw, STAGES[name].urgency)
        draft.answer = unquote_sections(_whole_text(reply))

    async def write_answer(self, draft: Draft) -> None:
        """Fill in the answer to a draft's question. Raises Rejected."""
        request = draft.request
        name: StageName = "skill-answer"
        folders = request.leaf.path.split("/")
        is_creative = not draft.context and CREATIVE_FOLDERS.intersection(folders)
        messages = self._render(
            name,
            request,
            examples=request.seeds,
            question=draft.question,
            context=draft.context,
            persona="creative" if is_creative else "precise",
        )
        reply = await self._post(messages, name, request.draw, STAGES[name].urgency)
        # Set first: what was cut off is kept too, to be seen with its reason.
        draft.answer = unquote_sections(reply.text)
        _whole_text(reply)
        answer = read_whole(reply.text)
        if answer is None:
            raise Rejected("format: markers in the answer", reply.text)
        draft.answer = answer

    async def judge(self, name: StageName, draft: Draft, **values: Value) -> None:
        """Ask the judge by a stage's criterion, where the recipe does not leave it out; of the
        draft, or of what `values` put in place of its parts.

        Raises Rejected unless the verdict is yes, or the rating as high as the recipe wants.
        """
        stage = find_stage(name)
        criterion = stage.criterion
        assert criterion is not None, f"{name} is no stage that asks a judge"
        if self._is_skipped(criterion):
            return
        shown: dict[str, Value] = {
            "examples": draft.request.seeds,
            "context": draft.context,
            "question": draft.question,
            "answer": draft.answer,
        }
        messages = self._render(name, draft.request, **(shown | values))
        if stage.form is RATING:
            rating = await self._judge(messages, name, criterion, draft, RATING)
            if rating < self.config.min_rating:
                raise Rejected(f"judge: {criterion} rated {rating}")
        elif not await self._judge(messages, name, criterion, draft, VERDICT):
            raise Rejected(f"judge: not {criterion}")

    async def answers_alone(self, draft: Draft, passage: str, what: str) -> bool:
        """Whether a passage alone supports a draft's answer, by the judge of faithfulness; False
        where the recipe does not judge by it. The judgment is kept as `what`."""
        if self._is_skipped("faithful"):
            return False
        name: StageName = "judge-faithful"
        messages = self._render(
            name, draft.request, document=passage, question=draft.question, answer=draft.answer
        )
        return await self._judge(messages, name, what, draft, VERDICT)

    def _is_skipped(self, criterion: str) -> bool:
        return not self.config.judge or criterion in self.config.judge_skips

    async def _judge(
        self,
        messages: tuple[Message, ...],
        name: str,
        criterion: str,
        draft: Draft,
        form: Form[V],
    ) -> V:
        try:
            judged = await ask_judge(
                self.judge_teacher,
                messages,
                form,
                stage=name,
                max_tokens=self.config.max_tokens,
                urgency=judge_urgency(name),
            )
        except Refused as refused:
            raise Rejected(f"judge: refused ({refused.reason})") from None
        except BudgetSpent as spent:
            raise Rejected(f"budget: spent ({spent.cap})") from None
        if judged.value is None:
            raise Rejected("judge: unreadable", judged.explanation)
        judgment = Judgment(
            criterion=criterion, value=float(judged.value), explanation=judged.explanation
        )
        draft.judgments.append(judgment)
        return judged.value

    async def _post(
        self, messages: tuple[Message, ...], name: str, draw: int, urgency: int
    ) -> Reply:
        try:
            return await self.teacher.ask(
                messages,
                stage=name,
                draw=draw,
                temperature=self.config.temperature,
                max_tokens=self.config.max_tokens,
                urgency=urgency,
            )
        except Refused as refused:
            raise Rejected(f"teacher: refused ({refused.reason})") from None
        except BudgetSpent as spent:
            raise Rejected(f"budget: spent ({spent.cap})") from None

    def _render(
        self, name: StageName, request: SampleRequest, **values: Value
    ) -> tuple[Message, ...]:
        values.setdefault("document", request.passage if request.chunk else None)
        return self._prompts.of_leaf(request.leaf.path).render(
            name, task=request.task, domain=request.leaf.domain, **values
        )


def _urgency(stage: Stage, request: SampleRequest, values: Mapping[str, Value]) -> int:
    has_begun = values.get("context") is not None or request.rendering is not None
    return stage.urgency or int(has_begun)


def _read_blocks(reply: Reply, form: Blocks, count: int) -> list[tuple[str, ...]]:
    text = reply.text
    if reply.finish_reason == "length":
        # The last block of a reply that was cut off is not to be trusted.
        ends = [found.end() for found in _END.finditer(text)]
        text = text[: ends[-1]] if ends else ""
    return form.parse(text, count)


def _whole_text(reply: Reply) -> str:
    """Raises Rejected where there is none, or not all of it."""
    if reply.finish_reason == "length":
        raise Rejected("format: cut off", reply.text)
    if not reply.text:
        raise Rejected("format: empty answer")
    return reply.text
