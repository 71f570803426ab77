"""Reading judges: lenient about form ("**Rating:** 2/3"), strict about value (4 is no rating)."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from typing import Generic, NamedTuple, TypeVar

from feldspar.records import Message
from feldspar.teacher.durable import Teacher

V = TypeVar("V", bool, int)

MAX_EXPLANATION = 500
"""Characters of an explanation that are kept."""

_PLAIN_MARKS = {0x2013: "-", 0x2014: "-", 0xFF1A: ":"}
"""En dash, em dash, and the full-width colon."""

_LINK = r"(?:[\"']?\s*(?:is\b\s*:?|[:=]|\s-\s))"
_VERDICT = r"(?P<value>yes|no)\b"
# "YES or NO" repeats the question, and "No doubt" or "no problem" is no verdict.
_VERDICT_END = (
    r"(?![ \t]*(?:/|\||,?[ \t]*or\b|and\b)[ \t]*(?:yes|no)\b)"
    r"(?=\s*(?:$|[.,;:!()\[\]{}\"'-]|because\b))"
)
_VERDICT_LABELS = ("verdict", "judge?ment|decision|answer")
"""The second only without the first: an explanation may speak of the answer "No"."""
_OPENING_VERDICT = re.compile(rf"[\"'(\[]*{_VERDICT}{_VERDICT_END}", re.IGNORECASE | re.MULTILINE)
_LONE_VERDICT = re.compile(rf"\W*{_VERDICT}\W*", re.IGNORECASE)

_NUMBER = r"(?P<value>[0-9]+(?:\.[0-9]+)?)(?:\s*(?:/|out of|of)\s*(?P<top>[0-9]+(?:\.[0-9]+)?))?"
# "1, 2, or 3" repeats the question, and "2-3" does not choose.
_NUMBER_END = r"(?![0-9.]*[0-9])(?![ \t]*(?:,|,?[ \t]*or\b|/|-|to\b|and\b)[ \t]*[0-9])(?![ \t]*%)"
_NUMBER_LABELS = ("rating", "score|grade")
_LONE_NUMBER = re.compile(rf"[\s\"'(\[]*{_NUMBER}[\s\"')\].!]*", re.IGNORECASE)
_EXPLANATION = re.compile(
    r"\s*explanation\s*:\s*(?P<text>.*?)\s*(?=^\W*(?:verdict|rating|(?:total\s+)?score)\b|\Z)",
    re.IGNORECASE | re.DOTALL | re.MULTILINE,
)


class Judged(NamedTuple, Generic[V]):
    """What a judge said; `value` is None when it could not be read twice."""

    value: V | None
    explanation: str


class Form(NamedTuple, Generic[V]):
    """How a judge is to reply, for its reader and for the complaint."""

    parse: Callable[[str], V | None]
    wanted: str


def parse_verdict(text: str) -> bool | None:
    """YES is True, NO is False; None where there is neither, or both.

    "Yes", "YES.", "Explanation: ...\\n**Verdict:** NO" and "No, because ..." are verdicts.
    """
    text = _plain(text)
    labelled, _ = _labelled(_VERDICT_LABELS, _VERDICT + _VERDICT_END, text)
    found = {m["value"].lower() for m in labelled}
    if not found:
        lines = [line for line in text.splitlines() if line.strip()]
        lone = [m for line in lines[:1] + lines[-1:] if (m := _LONE_VERDICT.fullmatch(line))]
        opening = _OPENING_VERDICT.match(text.strip())
        found = {m["value"].lower() for m in (*lone, *([opening] if opening else []))}
    return found == {"yes"} if len(found) == 1 else None


def parse_rating(text: str) -> int | None:
    """A whole number from 1 to 3; None where there is none, or more than one.

    "Rating: 3", "Total Score: 2", "2/3", and "**Rating:** 3" are ratings; "4" and "2.5" are not.
    """
    text = _plain(text)
    found, has_label = _labelled(_NUMBER_LABELS, _NUMBER + _NUMBER_END, text)
    if not has_label:
        lines = [line for line in text.splitlines() if line.strip()]
        found = [m for line in lines[:1] + lines[-1:] if (m := _LONE_NUMBER.fullmatch(line))]
    values = {float(match["value"]) for match in found}
    if len(values) != 1 or any(match["top"] and float(match["top"]) != 3 for match in found):
        return None
    value = values.pop()
    return int(value) if value in (1, 2, 3) else None


def _labelled(labels: Sequence[str], value: str, text: str) -> tuple[list[re.Match[str]], bool]:
    """Values behind the first of the labels that the text has, and whether it has one."""
    for label in labels:
        pattern = rf"\b(?:{label}){_LINK}?[\s\"'(\[]*{value}"
        found = list(re.finditer(pattern, text, re.IGNORECASE | re.MULTILINE))
        if found or re.search(rf"\b(?:{label}){_LINK}", text, re.IGNORECASE):
            return found, True
    return [], False


VERDICT: Form[bool] = Form(parse_verdict, "Verdict: YES or Verdict: NO")
RATING: Form[int] = Form(parse_rating, "Rating: 1, Rating: 2 or Rating: 3")


async def ask_judge(
    judge: Teacher,
    messages: Sequence[Message],
    form: Form[V],
    *,
    stage: str,
    max_tokens: int,
    urgency: int = 0,
) -> Judged[V]:
    """Ask a judge, and once again with the reader's complaint where it cannot be read.

    Raises Refused when the judge refuses for good.
    """
    ask = functools.partial(
        judge.ask, stage=stage, temperature=0.0, max_tokens=max_tokens, urgency=urgency
    )
    reply = await ask(messages)
    value = form.parse(reply.text)
    if value is None:
        complaint = (
            f'Your reply has no line that reads "{form.wanted}". Judge the same again: '
            f"one line of explanation, then that line with your choice."
        )
        again = (
            *messages,
            Message(role="assistant", content=reply.text or "(nothing)"),
            Message(role="user", content=complaint),
        )
        reply = await ask(again, draw=1)
        value = form.parse(reply.text)
    return Judged(value, _explanation(reply.text))


def _plain(text: str) -> str:
    """Without the marks of Markdown, which judges like to put around their verdicts."""
    return re.sub(r"[*_`#>~]+", " ", text.translate(_PLAIN_MARKS))


def _explanation(text: str) -> str:
    match = _EXPLANATION.match(_plain(text))
    return match["text"].strip()[:MAX_EXPLANATION] if match else text.strip()[:MAX_EXPLANATION]
