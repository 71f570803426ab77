"""The stages of generation in one table: who is asked for what, how urgently, and in which form.

A stage's prompt is `prompts/NAME.md.j2`. A new stage is a row of this table, its prompt, and the
pipeline that asks it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

from feldspar.config import Criterion, Rendering
from feldspar.errors import RecipeError
from feldspar.generate.draft import RequestKind
from feldspar.generate.replies import Field
from feldspar.generate.replies import read_blocks as parse_blocks
from feldspar.teacher import RATING, VERDICT, Form

StageName = Literal[
    "knowledge-pairs",
    "knowledge-uncovered",
    "knowledge-reversed",
    "knowledge-across",
    "knowledge-unanswerable",
    "focal-text",
    "render-summary",
    "render-facts",
    "render-study",
    "judge-faithful",
    "judge-relevant",
    "skill-context",
    "skill-questions",
    "judge-question",
    "skill-answer",
    "judge-answer",
    "exam-choices",
    "judge-choices",
]
PROMPT_SUFFIX = ".md.j2"
OWN_JUDGE_URGENCY = 3
"""Of a judge's call in a pipeline of the user's own."""


class Blocks(NamedTuple):
    """The form of a reply in blocks: `[Question]`, a text, `[Answer]`, a text, `[End]`."""

    fields: tuple[Field, ...]

    def parse(self, text: str, limit: int) -> list[tuple[str, ...]]:
        return parse_blocks(text, self.fields, limit)

    @property
    def wanted(self) -> str:
        """What a complaint asks for."""
        return ", ".join(f"[{field.capitalize()}]" for field in self.fields) + " and [End]"


class Text(NamedTuple):
    """The form of a reply that is one free text: the answer, or a document in another form."""


ReplyForm = Blocks | Text | Form[bool] | Form[int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """One kind of call."""

    form: ReplyForm
    urgency: int
    """Late stages first, so that samples are finished rather than begun. What begins one is equally
    urgent in all leaves; a question about a context that was just written has begun already."""
    criterion: Criterion | Literal["choices"] | None = None
    """What a judge judges by; None where the teacher is asked."""
    rendering: Rendering | None = None
    """The form of a document that is written."""


STAGES: dict[StageName, Stage] = {
    "knowledge-pairs": Stage(form=Blocks(("question", "answer")), urgency=0),
    "knowledge-uncovered": Stage(form=Blocks(("question", "answer")), urgency=0),
    "knowledge-reversed": Stage(form=Blocks(("question", "answer")), urgency=0),
    "knowledge-across": Stage(form=Blocks(("question", "answer")), urgency=0),
    "knowledge-unanswerable": Stage(form=Blocks(("question", "answer")), urgency=0),
    "focal-text": Stage(form=Text(), urgency=2),
    "render-summary": Stage(form=Text(), urgency=0, rendering="summary"),
    "render-facts": Stage(form=Text(), urgency=0, rendering="facts"),
    "render-study": Stage(form=Text(), urgency=0, rendering="study"),
    "judge-faithful": Stage(form=VERDICT, urgency=3, criterion="faithful"),
    "judge-relevant": Stage(form=VERDICT, urgency=4, criterion="relevant"),
    "skill-context": Stage(form=Blocks(("context",)), urgency=0),
    "skill-questions": Stage(form=Blocks(("question",)), urgency=0),
    "judge-question": Stage(form=VERDICT, urgency=2, criterion="fit"),
    "skill-answer": Stage(form=Text(), urgency=3),
    "judge-answer": Stage(form=RATING, urgency=4, criterion="answer"),
    "exam-choices": Stage(form=Blocks(("answer",)), urgency=3),
    "judge-choices": Stage(form=VERDICT, urgency=4, criterion="choices"),
}
assert tuple(STAGES) == get_args(StageName), "every stage's name has its row"

STAGE_OF_CRITERION: dict[Criterion, StageName] = {
    stage.criterion: name
    for name, stage in STAGES.items()
    if stage.criterion is not None and stage.criterion != "choices"
}
"""The stage that asks a judge, for each criterion that a recipe may leave out."""
STAGE_OF_RENDERING: dict[Rendering, StageName] = {
    stage.rendering: name for name, stage in STAGES.items() if stage.rendering is not None
}


STAGE_OF_KIND: dict[RequestKind, StageName] = {
    "pair": "knowledge-pairs",
    "retrieval": "knowledge-pairs",
    "focal": "knowledge-pairs",
    "reversed": "knowledge-reversed",
    "across": "knowledge-across",
    "unanswerable": "knowledge-unanswerable",
}
"""The stage that asks about a chunk, for each kind of knowledge sample that has a question."""


def find_stage(name: str) -> Stage:
    """Raises RecipeError for a name that no stage has: a pipeline of the user's own may err."""
    stage = _BY_NAME.get(name)
    if stage is None:
        raise RecipeError(f"no stage is called {name!r}; there are: {', '.join(STAGES)}")
    return stage


def judge_urgency(name: str) -> int:
    """Of a judge's call, in a stage of the table or of the user's own."""
    return _BY_NAME[name].urgency if name in _BY_NAME else OWN_JUDGE_URGENCY


_BY_NAME: dict[str, Stage] = dict(STAGES.items())
