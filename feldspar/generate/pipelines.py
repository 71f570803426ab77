"""What is asked, in order: the four stages for skills (LAB paper, section 3), and for knowledge.

Each pipeline is straight-line code over durable calls: run again, it goes on where it was.
"""

from __future__ import annotations

import asyncio
import random

from feldspar.generate.custom import Rejected
from feldspar.generate.replies import Field
from feldspar.generate.writers import Draft, Staff, Work
from feldspar.records import Sample


async def write_samples(work: Work, staff: Staff) -> list[Sample]:
    """The samples of one call, kept and rejected. A failed call gives one, without a question."""
    own = staff.custom.of_leaf(work.leaf.path)
    write = _write_knowledge if work.leaf.branch == "knowledge" else _write_skill
    try:
        return await (own.run if own else write)(work, staff)
    except Rejected as rejected:
        return [Draft(work=work, index=0).finish(staff.teacher.key, rejected.reason)]


async def _write_skill(work: Work, staff: Staff) -> list[Sample]:
    if work.leaf.is_grounded:
        # Questions about one text resemble each other, so each new question gets a new context.
        contexts = await staff.write_blocks("skill-context", ("context",), work, work.count)
        return list(
            await asyncio.gather(
                *(_write_grounded(work, staff, i, text) for i, (text,) in enumerate(contexts))
            )
        )
    questions = await staff.write_blocks("skill-questions", ("question",), work, work.count)
    drafts = [Draft(work=work, index=i, question=text) for i, (text,) in enumerate(questions)]
    return list(await asyncio.gather(*(staff.finish(draft, _answer_skill) for draft in drafts)))


async def _write_grounded(work: Work, staff: Staff, index: int, context: str) -> Sample:
    return await staff.finish(Draft(work=work, index=index, context=context), _answer_grounded)


async def _answer_grounded(draft: Draft, staff: Staff) -> None:
    question = await staff.write_blocks(
        "skill-questions", ("question",), draft.work, 1, context=draft.context
    )
    draft.question = question[0][0]
    await _answer_skill(draft, staff)


async def _answer_skill(draft: Draft, staff: Staff) -> None:
    await staff.judge_yes("judge-question", "fit", draft)
    await staff.write_answer(draft)
    await staff.judge_rating("judge-answer", "answer", draft)


async def _write_knowledge(work: Work, staff: Staff) -> list[Sample]:
    assert work.chunk is not None, work
    if work.kind == "document":
        # The text is no teacher's.
        return [Draft(work=work, index=0, answer=work.chunk.text).finish("", None)]
    shown = await staff.render_chunk(work) if work.rendering else work.chunk.text
    fields: tuple[Field, ...] = ("question", "answer")
    pairs = await staff.write_blocks("knowledge-pairs", fields, work, work.count, document=shown)
    drafts = [
        Draft(work=work, index=i, question=question, answer=answer, context=work.chunk.text)
        for i, (question, answer) in enumerate(pairs)
    ]
    stages = (_judge_pair, _show_among) if work.kind == "retrieval" else (_judge_pair,)
    return list(await asyncio.gather(*(staff.finish(draft, *stages) for draft in drafts)))


async def _judge_pair(draft: Draft, staff: Staff) -> None:
    await staff.judge_yes("judge-faithful", "faithful", draft)
    await staff.judge_yes("judge-relevant", "relevant", draft)


async def _show_among(draft: Draft, staff: Staff) -> None:
    """Put the passage among others, in an order of the sample's own."""
    work = draft.work
    assert work.chunk is not None, work
    passages = [work.chunk.text, *(chunk.text for chunk in work.others)]
    random.Random(f"{work.chunk.id} {work.draw} {draft.index}").shuffle(passages)
    numbered = (f"Passage {number}:\n{text}" for number, text in enumerate(passages, start=1))
    draft.context = "\n\n".join(numbered)
