"""Multiple-choice questions for a leaf's exam: what it asks anyway, beside wrong answers.

The teacher writes these, and the judge says whether all of them are wrong and the right one is not.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Sequence
from dataclasses import replace

from feldspar.generate.custom import Rejected
from feldspar.generate.writers import Draft, Staff, Work
from feldspar.records import ExamItem, Leaf
from feldspar.text import normalise


async def choice_items(
    leaf: Leaf, items: Sequence[ExamItem], staff: Staff, draw: int
) -> list[ExamItem]:
    """A multiple-choice item of each reported one, where teacher and judge allow it.

    The others choose checkpoints by what is said, and would be asked in two ways.
    """
    reported = [item for item in items if item.use == "report"]
    made = await asyncio.gather(*(_choice_item(leaf, item, staff, draw) for item in reported))
    return [item for item in made if item is not None]


def choice_work(leaf: Leaf, count: int, draw: int, num_shown: int) -> Work:
    """The call for wrong answers: shows some of the leaf's seeds, for their form."""
    return Work(leaf=leaf, seeds=leaf.seeds[:num_shown], count=count, draw=draw)


async def _choice_item(leaf: Leaf, item: ExamItem, staff: Staff, draw: int) -> ExamItem | None:
    config = staff.config
    work = choice_work(leaf, config.exam_choices, draw, config.seeds_per_prompt)
    draft = Draft(
        work=work, index=0, question=item.question, answer=item.reference, context=item.context
    )
    try:
        blocks = await staff.write_blocks(
            "exam-choices",
            ("answer",),
            work,
            work.count,
            question=item.question,
            answer=item.reference,
            context=item.context,
        )
        by_words = {normalise(text): text for (text,) in blocks}
        by_words.pop(normalise(item.reference), None)
        choices = tuple(by_words.values())
        if not choices:
            return None
        await staff.judge_choices(draft, choices)
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
