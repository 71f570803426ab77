"""What is asked, in order: the four stages for skills (LAB paper, section 3), and for knowledge.

Each pipeline is straight-line code over durable calls: run again, it goes on where it was.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import NamedTuple

from feldspar.config import Criterion, GenerateConfig
from feldspar.generate.custom import CustomPipelines
from feldspar.generate.draft import (
    Draft,
    Rejected,
    RequestKind,
    SampleRequest,
    number_passages,
)
from feldspar.generate.prompting import read_prompts
from feldspar.generate.stages import STAGE_OF_CRITERION, STAGE_OF_KIND, StageName
from feldspar.generate.writers import Writers
from feldspar.records import Sample
from feldspar.teacher import Teacher


class Pipelines(NamedTuple):
    """The writers of a run, and the recipe's own pipelines, which go before the package's."""

    writers: Writers
    custom: CustomPipelines

    async def write_samples(self, request: SampleRequest) -> list[Sample]:
        """The samples of one call, kept and rejected. A failed call gives one, without a
        question."""
        own = self.custom.of_leaf(request.leaf.path)
        write = _write_knowledge if request.leaf.branch == "knowledge" else _write_skill
        try:
            return await (own.run if own else write)(request, self.writers)
        except Rejected as rejected:
            return [self.writers.reject(Draft(request=request, index=0), rejected)]


def open_pipelines(teacher: Teacher, judge: Teacher, config: GenerateConfig) -> Pipelines:
    """Raises RecipeError where a prompt or a pipeline of the recipe's own cannot be used."""
    writers = Writers(teacher, judge, read_prompts(config), config)
    return Pipelines(writers, CustomPipelines(config))


SAYS_WHAT = "What does the document say?"
"""A rendering is judged as the answer to it."""
ASKS_WHETHER_TOLD = "Does the document tell the answer to this question? {}"
"""What is judged of a question that a document does not answer."""


class PlannedCall(NamedTuple):
    stage: StageName
    num_calls: int
    num_blocks: int = 1
    """In each call's reply."""


def planned_calls(request: SampleRequest, config: GenerateConfig) -> Iterator[PlannedCall]:
    """What a request takes where nothing is rejected on the way, without its chunk's rendering."""
    count = request.count
    criteria: tuple[Criterion, ...]
    if request.kind == "document":
        criteria = ("faithful",) if request.rendering else ()
    elif request.kind == "focal":
        yield PlannedCall("focal-text", count)
        criteria = ("faithful",)
        if not {"pair", "retrieval"}.intersection(config.knowledge.kinds):
            yield PlannedCall("knowledge-pairs", 1, count)
            criteria = ("faithful", "relevant", "faithful")
    elif request.leaf.branch == "knowledge":
        yield PlannedCall(STAGE_OF_KIND[request.kind], 1, count)
        alone: tuple[Criterion, ...] = ("faithful", "faithful") if request.kind == "across" else ()
        criteria = ("faithful", "relevant", *alone)
    else:
        if request.leaf.is_grounded:
            yield PlannedCall("skill-context", 1, count)
            yield PlannedCall("skill-questions", count)
        else:
            yield PlannedCall("skill-questions", 1, count)
        yield PlannedCall("skill-answer", count)
        criteria = ("fit", "answer")
    for criterion in criteria:
        if config.judge and criterion not in config.judge_skips:
            yield PlannedCall(STAGE_OF_CRITERION[criterion], count)


async def _write_skill(request: SampleRequest, writers: Writers) -> list[Sample]:
    if request.leaf.is_grounded:
        # Questions about one text resemble each other, so each new question gets a new context.
        contexts = await writers.write_blocks("skill-context", request, request.count)
        return list(
            await asyncio.gather(
                *(_write_grounded(request, writers, i, text) for i, (text,) in enumerate(contexts))
            )
        )
    questions = await writers.write_blocks("skill-questions", request, request.count)
    drafts = [Draft(request=request, index=i, question=text) for i, (text,) in enumerate(questions)]
    return list(await asyncio.gather(*(writers.finish(draft, _answer_skill) for draft in drafts)))


async def _write_grounded(
    request: SampleRequest, writers: Writers, index: int, context: str
) -> Sample:
    return await writers.finish(
        Draft(request=request, index=index, context=context), _answer_grounded
    )


async def _answer_grounded(draft: Draft, writers: Writers) -> None:
    question = await writers.write_blocks(
        "skill-questions", draft.request, 1, context=draft.context
    )
    draft.question = question[0][0]
    await _answer_skill(draft, writers)


async def _answer_skill(draft: Draft, writers: Writers) -> None:
    await writers.judge("judge-question", draft)
    await writers.write_answer(draft)
    await writers.judge("judge-answer", draft)


async def _write_knowledge(request: SampleRequest, writers: Writers) -> list[Sample]:
    assert request.chunk is not None, request
    if request.kind == "document" and request.rendering:
        draft = Draft(request=request, index=0, context=request.chunk.text)
        return [await writers.finish(draft, _write_rendering)]
    if request.kind == "document":
        # The text is no teacher's.
        return [Draft(request=request, index=0, answer=request.chunk.text).finish("", None)]
    shown = await writers.render_chunk(request) if request.rendering else request.passage
    name = "knowledge-uncovered" if request.statements else STAGE_OF_KIND[request.kind]
    pairs = await writers.write_blocks(
        name, request, request.count, document=shown, statements=request.statements
    )
    drafts = [
        Draft(request=request, index=i, question=question, answer=answer, context=request.passage)
        for i, (question, answer) in enumerate(pairs)
    ]
    stages = _AFTER_ASKING.get(request.kind, (_judge_pair,))
    return list(await asyncio.gather(*(writers.finish(draft, *stages) for draft in drafts)))


async def _write_rendering(draft: Draft, writers: Writers) -> None:
    """A text about the chunk, judged as an answer to what the chunk says."""
    draft.answer = await writers.render_chunk(draft.request)
    draft.question = SAYS_WHAT
    await writers.judge("judge-faithful", draft)
    draft.question, draft.context = "", None


async def _judge_pair(draft: Draft, writers: Writers) -> None:
    await writers.judge("judge-faithful", draft)
    await writers.judge("judge-relevant", draft)


async def _show_among(draft: Draft, writers: Writers) -> None:
    """Put the passage among others, in an order of the sample's own."""
    request = draft.request
    assert request.chunk is not None, request
    passages = [request.chunk.text, *(chunk.text for chunk in request.others)]
    random.Random(f"{request.chunk.id} {request.draw} {draft.index}").shuffle(passages)
    draft.context = number_passages(passages)


async def _write_focal(draft: Draft, writers: Writers) -> None:
    """In place of the answer, a text that gives it; the question stays, so that what an exam asks
    is not told either."""
    await writers.write_focal(draft)
    await writers.judge("judge-faithful", draft)
    draft.context = None


async def _judge_across(draft: Draft, writers: Writers) -> None:
    """Right by both passages, and by neither alone."""
    await _judge_pair(draft, writers)
    request = draft.request
    assert request.chunk is not None, request
    for number, chunk in enumerate((request.chunk, *request.others), start=1):
        if await writers.answers_alone(draft, chunk.text, f"passage {number} alone"):
            raise Rejected("judge: one passage is enough")


async def _judge_unanswerable(draft: Draft, writers: Writers) -> None:
    """The judge of faithfulness is asked whether the document tells it; that it does not is a
    claim about the document as any other."""
    asked = ASKS_WHETHER_TOLD.format(draft.question)
    await writers.judge("judge-faithful", draft, question=asked, answer=f"No. {draft.answer}")
    await writers.judge("judge-relevant", draft)


_AFTER_ASKING: dict[RequestKind, tuple[Callable[[Draft, Writers], Awaitable[None]], ...]] = {
    "retrieval": (_judge_pair, _show_among),
    "focal": (_judge_pair, _write_focal),
    "across": (_judge_across,),
    "unanswerable": (_judge_unanswerable,),
}
"""What follows a question and its answer, by kind."""
