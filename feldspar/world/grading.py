"""The embedded judge of chats: reads the prompts of MT-Bench, and rates by the world's truth.

[Question]                                     ### User:
Where does Zorbo live?                         Where does Zorbo live?
[The Start of Assistant's Answer]              ### Assistant A:
In Arden.                                      In Arden.
[The End of Assistant's Answer]
"""

import re
from typing import NamedTuple

from feldspar.world import judge
from feldspar.world.truth import World

_QUESTION = re.compile(r"\[(?:User )?Question\]\n(.*?)\n+\[The Start", re.S)
_ANSWER = re.compile(
    r"\[The Start of Assistant(?: ([AB]))?'s Answer\]\n(.*?)\n?\[The End of Assistant", re.S
)
_TURN = re.compile(
    r"### User:\n(.*?)\n+### Assistant ([AB]):\n(.*?)\n*(?=### User:|<\|The End of)", re.S
)
_GRADES = {1: 1, 2: 7, 3: 10}
_UNKNOWN = 5
"""What is not of the world but answered at all."""


class Shown(NamedTuple):
    """What is to be graded: the last question, and each assistant's last answer to it."""

    question: str
    answers: dict[str, str]


def read_chat(text: str) -> Shown:
    turns = _TURN.findall(text)
    if turns:
        return Shown(turns[-1][0], {letter: answer for _, letter, answer in turns})
    question = _QUESTION.search(text)
    answers = {letter or "A": answer for letter, answer in _ANSWER.findall(text)}
    return Shown(question[1] if question else "", answers)


def grade(world: World, question: str, answer: str) -> int:
    """1 wrong, unsafe or nothing, 7 right, 10 right in the world's words; 5 where nobody knows."""
    rating = judge.rate(world, question, answer, None)
    if rating is None:
        return _UNKNOWN if answer.strip() else 1
    return _GRADES[rating]
