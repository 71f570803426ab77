"""Which stage a prompt of the package belongs to, told by its sections alone.

A call says its stage in a header. Proxies and gateways drop headers that they do not know; what a
prompt asks for stands in its `### Reply format` too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from feldspar.records import Message
from feldspar.world.sections import SECTIONS

_HEADING = re.compile(rf"(?m)^### ({'|'.join(SECTIONS)})[ \t]*$")

_RENDERED = {
    "the summary": "render-summary",
    "one fact a line": "render-facts",
    "the study notes": "render-study",
}
_GRADING = ("[[rating]]", "[[A]]")
"""How the published judge prompts of MT-Bench ask for a grade."""


def find_stage(messages: Sequence[Message]) -> str:
    """The stage of the first prompt with sections; empty where there is none to be told.

    A later message is a complaint about the reply, or an answer that is judged with its stage.
    """
    if any(mark in message.content for message in messages for mark in _GRADING):
        return "mt-bench"
    for message in messages:
        pieces = _HEADING.split(message.content) if message.role == "user" else []
        sections = dict(zip(pieces[1::2], pieces[2::2], strict=True))
        if "Reply format" in sections:
            return _stage_of(sections)
    return ""


def _stage_of(sections: dict[str, str]) -> str:
    reply = sections["Reply format"]
    if "Rating:" in reply:
        return "judge-answer"
    if "Verdict:" in reply:
        if "Wrong answers" in sections:
            return "judge-choices"
        if "Reference" in sections:
            return "judge-exam"
        if "Document" in sections:
            return "judge-faithful"
        return "judge-relevant" if "Answer" in sections else "judge-question"
    if "How many" in sections:
        if "Answer" in sections:
            return "exam-choices"
        if "Document" in sections:
            return "knowledge-pairs"
        return "skill-context" if "[Context]" in reply else "skill-questions"
    if "Document" in sections and "Question" not in sections:
        return next((stage for words, stage in _RENDERED.items() if words in reply), "")
    return "skill-answer" if "Question" in sections else ""
