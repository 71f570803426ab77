"""Who is asked and in what words: one call of a pipeline, and the reasons it may reject with."""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar

from feldspar.config import GenerateConfig, Rendering
from feldspar.generate.borrowed import POOLED_TASK
from feldspar.generate.custom import CustomPipelines, Rejected
from feldspar.generate.prompting import Prompts, Stage, Value, unquote_sections
from feldspar.generate.replies import Field, read_blocks
from feldspar.records import Chunk, Judgment, Leaf, Message, Sample, SampleKind, Seed
from feldspar.teacher import (
    RATING,
    VERDICT,
    BudgetSpent,
    Form,
    Refused,
    Reply,
    Teacher,
    ask_judge,
)

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

_URGENCY: dict[str, int] = {
    "skill-context": 0,
    "skill-questions": 0,
    "knowledge-pairs": 0,
    "render-summary": 0,
    "render-facts": 0,
    "render-study": 0,
    "judge-question": 2,
    "skill-answer": 3,
    "exam-choices": 3,
    "judge-choices": 4,
    "judge-faithful": 3,
    "judge-answer": 4,
    "judge-relevant": 4,
}
"""Late stages first, so that samples are finished rather than begun. What begins one is equally
urgent in all leaves; a question about a context that was just written has begun already."""
OWN_JUDGE_URGENCY = 3
"""Of a judge's call in a pipeline of the user's own."""


RENDER_STAGES: dict[Rendering, Stage] = {
    "summary": "render-summary",
    "facts": "render-facts",
    "study": "render-study",
}
DRAWS_PER_SEED = 2**20
"""Draws that one seed of a recipe may use."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One call for new samples: a leaf, the seeds shown, and the draw; a chunk for knowledge."""

    leaf: Leaf
    seeds: tuple[Seed, ...]
    count: int
    """Samples asked for."""
    draw: int
    chunk: Chunk | None = None
    rendering: Rendering | None = None
    """Form of the chunk that is asked about; None for the chunk itself."""
    kind: SampleKind = "pair"
    others: tuple[Chunk, ...] = ()
    """Chunks that a retrieval sample shows beside its own."""
    is_pooled: bool = False
    """Whether the seeds shown are from anywhere."""

    @property
    def task(self) -> str:
        """What the prompts call the leaf."""
        if self.is_pooled:
            return POOLED_TASK
        return self.leaf.task_description or self.leaf.path.rsplit("/", 1)[-1].replace("_", " ")


@dataclass(slots=True, kw_only=True)
class Draft:
    """A sample in the making."""

    work: Work
    index: int
    """Its place among the samples of one call."""
    question: str = ""
    answer: str = ""
    context: str | None = None
    judgments: list[Judgment] = field(default_factory=list)

    def finish(self, teacher_key: str, rejected_because: str | None) -> Sample:
        leaf, chunk = self.work.leaf, self.work.chunk
        chunk_id = chunk.id if chunk else None
        place = (leaf.path, self.work.draw, self.index, chunk_id)
        content: tuple[object, ...] = (*place, self.question, self.answer, self.context)
        # Samples of different kinds, or of two renderings, may say the same.
        if self.work.kind != "pair" or self.work.rendering:
            content = (*content, self.work.kind, self.work.rendering)
        return Sample(
            id=hashlib.sha256(repr(content).encode()).hexdigest()[:16],
            leaf=leaf.path,
            branch=leaf.branch,
            question=self.question,
            answer=self.answer,
            context=self.context,
            chunk=chunk_id,
            seeds=tuple(seed.id for seed in self.work.seeds),
            teacher=teacher_key,
            draw=self.work.draw,
            judgments=tuple(self.judgments),
            rejected_because=rejected_because,
            kind=self.work.kind,
            rendering=self.work.rendering or "",
        )


class Staff:
    """The teacher and the judge of a run, with the prompts they are given."""

    def __init__(
        self, teacher: Teacher, judge: Teacher, prompts: Prompts, config: GenerateConfig
    ) -> None:
        self.teacher = teacher
        self.judge = judge
        self.config = config
        self.custom = CustomPipelines(config)
        self._prompts = prompts

    @property
    def is_spent(self) -> bool:
        """Whether the budget has ended the asking."""
        return bool(self.teacher.budget.reached or self.judge.budget.reached)

    def is_judged_by(self, criterion: str) -> bool:
        return self.config.judge and criterion not in self.config.judge_skips

    async def finish(
        self, draft: Draft, *stages: Callable[[Draft, Staff], Awaitable[None]]
    ) -> Sample:
        """Take a draft through its stages, to the end or to the first that rejects it."""
        try:
            for stage in stages:
                await stage(draft, self)
        except Rejected as rejected:
            return draft.finish(self.teacher.key, rejected.reason)
        return draft.finish(self.teacher.key, None)

    async def ask(self, name: str, prompt: str, work: Work, *, urgency: int = 1) -> str:
        """What the teacher says to a prompt of your own; the journal counts it under `name`.

        Calls of a higher `urgency` go first: let it rise from call to call. Raises Rejected.
        """
        message = Message(role="user", content=prompt)
        reply = await self._post((message,), name, work.draw, urgency)
        if reply.finish_reason == "length":
            raise Rejected("format: cut off")
        if not reply.text:
            raise Rejected("format: empty answer")
        return reply.text

    async def judge_by(self, prompt: str, criterion: str, draft: Draft) -> None:
        """Raises Rejected unless the judge ends its reply to your prompt with `Verdict: YES`."""
        message = Message(role="user", content=prompt)
        if self.config.judge and not await self._judge_messages(
            (message,), f"judge-{criterion}", criterion, draft, VERDICT
        ):
            raise Rejected(f"judge: not {criterion}")

    async def write_blocks(
        self, stage: Stage, fields: tuple[Field, ...], work: Work, count: int, **values: Value
    ) -> list[tuple[str, ...]]:
        """Ask for `count` blocks, and once again with a complaint where not one can be read.

        Raises Rejected when there is none then either.
        """
        messages = self._render(stage, work, examples=work.seeds, count=count, **values)
        urgency = self._urgency(stage, work, values)
        reply = await self._post(messages, stage, work.draw, urgency)
        blocks = _read_reply(reply, fields, count)
        # A reply that was cut off has been asked for with more room already.
        if not blocks and reply.finish_reason != "length":
            marks = ", ".join(f"[{field.capitalize()}]" for field in fields)
            complaint = (
                "Your reply has no block that can be read. Do it again, in the form that was asked "
                f"for: {marks} and [End], each alone on its line, with the texts below them."
            )
            again = (
                *messages,
                Message(role="assistant", content=reply.text or "(nothing)"),
                Message(role="user", content=complaint),
            )
            reply = await self._post(again, stage, work.draw, urgency)
            blocks = _read_reply(reply, fields, count)
        if not blocks:
            is_cut = reply.finish_reason == "length"
            raise Rejected("format: cut off" if is_cut else "format: no readable block")
        return blocks

    async def render_chunk(self, work: Work) -> str:
        """The work's chunk in the work's form: written once, whatever is asked about it."""
        assert work.rendering is not None, work
        stage = RENDER_STAGES[work.rendering]
        # The first draw of the recipe's seed, so that all works of a chunk ask the same.
        draw = work.draw // DRAWS_PER_SEED * DRAWS_PER_SEED
        reply = await self._post(self._render(stage, work), stage, draw, _URGENCY[stage])
        text = unquote_sections(reply.text)
        if reply.finish_reason == "length":
            raise Rejected("format: cut off")
        if not text:
            raise Rejected("format: empty answer")
        return text

    async def write_answer(self, draft: Draft) -> None:
        leaf = draft.work.leaf
        is_creative = not draft.context and CREATIVE_FOLDERS.intersection(leaf.path.split("/"))
        reply = await self._ask(
            "skill-answer",
            draft.work,
            examples=draft.work.seeds,
            question=draft.question,
            context=draft.context,
            persona="creative" if is_creative else "precise",
        )
        draft.answer = unquote_sections(reply.text)
        if reply.finish_reason == "length":
            raise Rejected("format: cut off")
        if not draft.answer:
            raise Rejected("format: empty answer")

    async def judge_yes(self, stage: Stage, criterion: str, draft: Draft) -> None:
        """Raises Rejected unless the judge says yes."""
        if self.is_judged_by(criterion) and not await self._judge(stage, criterion, draft, VERDICT):
            raise Rejected(f"judge: not {criterion}")

    async def judge_rating(self, stage: Stage, criterion: str, draft: Draft) -> None:
        """Raises Rejected when the rating is below the recipe's."""
        if self.is_judged_by(criterion):
            rating = await self._judge(stage, criterion, draft, RATING)
            if rating < self.config.min_rating:
                raise Rejected(f"judge: {criterion} rated {rating}")

    async def judge_choices(self, draft: Draft, choices: tuple[str, ...]) -> None:
        """Raises Rejected unless the judge says that the answer is right and no choice is."""
        messages = self._render(
            "judge-choices",
            draft.work,
            context=draft.context,
            question=draft.question,
            answer=draft.answer,
            choices=choices,
        )
        stage = "judge-choices"
        if not await self._judge_messages(messages, stage, "choices", draft, VERDICT):
            raise Rejected("judge: not choices")

    async def _judge(self, stage: Stage, criterion: str, draft: Draft, form: Form[V]) -> V:
        messages = self._render(
            stage,
            draft.work,
            examples=draft.work.seeds,
            context=draft.context,
            question=draft.question,
            answer=draft.answer,
        )
        return await self._judge_messages(messages, stage, criterion, draft, form)

    async def _judge_messages(
        self,
        messages: tuple[Message, ...],
        name: str,
        criterion: str,
        draft: Draft,
        form: Form[V],
    ) -> V:
        try:
            judged = await ask_judge(
                self.judge,
                messages,
                form,
                stage=name,
                max_tokens=self.config.max_tokens,
                urgency=_URGENCY.get(name, OWN_JUDGE_URGENCY),
            )
        except Refused as refused:
            raise Rejected(f"judge: refused ({refused.reason})") from None
        except BudgetSpent as spent:
            raise Rejected(f"budget: spent ({spent.cap})") from None
        if judged.value is None:
            raise Rejected("judge: unreadable")
        judgment = Judgment(
            criterion=criterion, value=float(judged.value), explanation=judged.explanation
        )
        draft.judgments.append(judgment)
        return judged.value

    async def _ask(self, stage: Stage, work: Work, **values: Value) -> Reply:
        messages = self._render(stage, work, **values)
        return await self._post(messages, stage, work.draw, self._urgency(stage, work, values))

    def _urgency(self, stage: Stage, work: Work, values: Mapping[str, Value]) -> int:
        has_begun = values.get("context") is not None or work.rendering is not None
        return _URGENCY[stage] or int(has_begun)

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

    def _render(self, stage: Stage, work: Work, **values: Value) -> tuple[Message, ...]:
        values.setdefault("document", work.chunk.text if work.chunk else None)
        return self._prompts.of_leaf(work.leaf.path).render(
            stage, task=work.task, domain=work.leaf.domain, **values
        )


def _read_reply(reply: Reply, fields: tuple[Field, ...], count: int) -> list[tuple[str, ...]]:
    text = reply.text
    if reply.finish_reason == "length":
        # The last block of a reply that was cut off is not to be trusted.
        text = text[: text.lower().rfind("[end]") + 5]
    return read_blocks(text, fields, count)
