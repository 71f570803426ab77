"""Multiple-choice questions for a leaf's exam: what it asks anyway, beside wrong answers.

The teacher writes these, and the judge says whether all of them are wrong and the right one is not.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace

from feldspar.generate.draft import Draft, Rejected, SampleRequest
from feldspar.generate.stages import StageName
from feldspar.generate.writers import Writers
from feldspar.records import ExamItem, Leaf
from feldspar.text import normalise

CHOICE_STAGES: tuple[StageName, ...] = ("exam-choices", "judge-choices")
"""What is asked for each question."""


async def choice_items(
    leaf: Leaf, items: Sequence[ExamItem], writers: Writers, draw: int
) -> list[ExamItem]:
    """A multiple-choice item of each reported one, where teacher and judge allow it.

    The others choose checkpoints by what is said, and would be asked in two ways.
    """
    reported = [item for item in items if item.use == "report"]
    made = await asyncio.gather(*(_choice_item(leaf, item, writers, draw) for item in reported))
    return [item for item in made if item is not None]


def choice_request(leaf: Leaf, count: int, draw: int, num_shown: int) -> SampleRequest:
    """The call for wrong answers: shows some of the leaf's seeds, for their form."""
    return SampleRequest(leaf=leaf, seeds=leaf.seeds[:num_shown], count=count, draw=draw)


async def _choice_item(leaf: Leaf, item: ExamItem, writers: Writers, draw: int) -> ExamItem | None:
    config = writers.config
    request = choice_request(leaf, config.exam_choices, draw, config.seeds_per_prompt)
    draft = Draft(
        request=request,
        index=0,
        question=item.question,
        answer=item.reference,
        context=item.context,
    )
    try:
        blocks = await writers.write_blocks(
            "exam-choices",
            request,
            request.count,
            question=item.question,
            answer=item.reference,
            context=item.context,
        )
        by_words = {normalise(text): text for (text,) in blocks}
        by_words.pop(normalise(item.reference), None)
        choices = tuple(by_words.values())
        if not choices:
            return None
        await writers.judge("judge-choices", draft, choices=choices)
    except Rejected:
        return None
    exam = f"choices:{leaf.path}"
    content = repr((exam, item.id, choices))
    return replace(
        item,
        id=hashlib.sha256(content.encode()).hexdigest()[:16],
        exam=exam,
        accepted=(),
        match="choice",
        choices=choices,
    )
