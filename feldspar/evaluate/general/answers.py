"""What a model says to the general-knowledge exam, asked once for each model, ever.

Only texts are kept: whether they are right is found anew each time, so a mended check asks nobody.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from feldspar.evaluate.examinee import Conditions, Examinee, PosedQuestion
from feldspar.evaluate.general.marks import GeneralAnswer
from feldspar.evaluate.general.questions import EXAM, NUM_WORDINGS, GeneralItem
from feldspar.kept_rows import keep, kept_path, read_kept
from feldspar.keys import content_key
from feldspar.progress import SILENT, Progress
from feldspar.records import Message

STAGE = "general-answer"
VERSION = 2
"""Of the way the questions are asked: part of what answers are kept under."""


def general_answers(
    examinee: Examinee,
    items: Sequence[GeneralItem],
    *,
    max_new_tokens: int,
    cache_path: Path,
    progress: Progress = SILENT,
) -> list[GeneralAnswer]:
    """Greedy answers in the items' order.

    They are kept under `cache_path` by the model's content, its dtype, template and system prompt,
    the questions and `max_new_tokens`; a file that is damaged is named, and made anew.
    """
    key = content_key(
        VERSION, examinee.key, [[item.id, *item.ask] for item in items], max_new_tokens
    )
    path = kept_path(cache_path, key)
    kept = read_kept(path, GeneralAnswer, "the general questions are asked again")
    if kept is not None:
        return kept
    questions = [
        PosedQuestion(posed.id, (Message(role="user", content=posed.question),), EXAM)
        for item in items
        for posed in item.posed()
    ]
    how = Conditions(
        stage=STAGE,
        max_new_tokens=max_new_tokens,
        seed=0,
        more_room="evaluate.general.max_new_tokens",
    )
    texts = [given.text for given in examinee.answer(questions, how, progress)]
    answers = [
        GeneralAnswer(item=item.id, texts=(texts[i], texts[i + 1]))
        for item, i in zip(items, range(0, len(texts), NUM_WORDINGS), strict=True)
    ]
    keep(path, answers)
    return answers
