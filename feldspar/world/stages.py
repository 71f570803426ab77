"""Which stage a prompt of the package belongs to, told by its sections alone.

A call says its stage in a header. Proxies and gateways drop headers that they do not know; what a
prompt asks for stands in its `### Reply format` too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import NamedTuple

from feldspar.records import Message
from feldspar.world.sections import SECTIONS

_HEADING = re.compile(rf"(?m)^### ({'|'.join(SECTIONS)})[ \t]*$")

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
    for signature in _SIGNATURES:
        has_all = all(name in sections for name in signature.sections)
        if has_all and signature.reply in sections["Reply format"]:
            return signature.stage
    return ""


class _Signature(NamedTuple):
    """What a stage's prompt has: sections, and words of its `### Reply format`."""

    stage: str
    sections: tuple[str, ...] = ()
    reply: str = ""


_SIGNATURES = (
    _Signature("judge-answer", reply="Rating:"),
    _Signature("judge-choices", ("Wrong answers",), "Verdict:"),
    _Signature("judge-exam", ("Reference",), "Verdict:"),
    _Signature("judge-faithful", ("Document",), "Verdict:"),
    _Signature("judge-relevant", ("Answer",), "Verdict:"),
    _Signature("judge-question", reply="Verdict:"),
    _Signature("exam-choices", ("How many", "Answer")),
    _Signature("knowledge-uncovered", ("How many", "Statements")),
    _Signature("knowledge-reversed", ("How many", "Document"), "turned pair"),
    _Signature("knowledge-across", ("How many", "Document"), "pair over both"),
    _Signature("knowledge-unanswerable", ("How many", "Document"), "question without an answer"),
    _Signature("knowledge-pairs", ("How many", "Document")),
    _Signature("skill-context", ("How many",), "[Context]"),
    _Signature("skill-questions", ("How many",)),
    _Signature("focal-text", ("Document", "Question"), "the paragraph"),
    _Signature("skill-answer", ("Question",)),
    _Signature("render-summary", ("Document",), "the summary"),
    _Signature("render-facts", ("Document",), "one fact a line"),
    _Signature("render-study", ("Document",), "the study notes"),
)
"""The first that fits counts."""
