"""What is asked, in order: the four stages for skills (LAB paper, section 3), and for knowledge.

Each pipeline is straight-line code over durable calls: run again, it goes on where it was.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterator
from typing import NamedTuple

from feldspar.config import Criterion, GenerateConfig
from feldspar.generate.custom import CustomPipelines
from feldspar.generate.draft import Draft, Rejected, SampleRequest
from feldspar.generate.prompting import read_prompts
from feldspar.generate.stages import STAGE_OF_CRITERION, StageName
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
    elif request.leaf.branch == "knowledge":
        yield PlannedCall("knowledge-pairs", 1, count)
        criteria = ("faithful", "relevant")
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
    shown = await writers.render_chunk(request) if request.rendering else request.chunk.text
    pairs = await writers.write_blocks("knowledge-pairs", request, request.count, document=shown)
    drafts = [
        Draft(
            request=request, index=i, question=question, answer=answer, context=request.chunk.text
        )
        for i, (question, answer) in enumerate(pairs)
    ]
    stages = (_judge_pair, _show_among) if request.kind == "retrieval" else (_judge_pair,)
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
    numbered = (f"Passage {number}:\n{text}" for number, text in enumerate(passages, start=1))
    draft.context = "\n\n".join(numbered)
