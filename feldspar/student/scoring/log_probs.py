"""How likely a student finds given answers: for rewards and for exams."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import NamedTuple, Protocol

from feldspar.progress import SILENT, Progress
from feldspar.records import Message
from feldspar.student.model import Student
from feldspar.student.scoring.score import Tree, score_trees
from feldspar.student.template.render import Template

TEXT_TOKENS = 512


class AnswerRow(NamedTuple):
    """An answer to `messages`; its stop token is scored only when it `ended`."""

    messages: Sequence[Message]
    answer: str
    ended: bool = True


class Speaker(Protocol):
    """Whatever has a template: a student, or a model that a server computes."""

    @property
    def template(self) -> Template: ...


class AnswerLogProb(NamedTuple):
    """Sum of the log-probabilities of an answer's tokens, in nats, and how many there are."""

    total: float
    num_tokens: int


def answer_log_probs(
    student: Student, rows: Sequence[AnswerRow], progress: Progress = SILENT
) -> list[AnswerLogProb]:
    """Score answers, in the order of `rows`. An answer without tokens scores 0.

    Answers to one prompt that lie together share its computation.
    """
    scored = score_trees(student, answer_trees(student, rows), progress)
    return [AnswerLogProb(s.total, s.num_tokens) for of_tree in scored for s in of_tree]


def text_log_probs(
    student: Student, texts: Sequence[str], progress: Progress = SILENT
) -> list[AnswerLogProb]:
    """Score texts as they are, without any template, in their order; long ones in pieces of
    TEXT_TOKENS. The first token of each piece is given: not every model has one to begin with."""
    pieces = [
        [ids[start : start + TEXT_TOKENS] for start in range(0, len(ids), TEXT_TOKENS)]
        for ids in student.template.encode_texts(texts)
    ]
    trees = [
        Tree(prompt=piece[:1], continuations=[piece[1:]]) for of_text in pieces for piece in of_text
    ]
    scored = (only for (only,) in score_trees(student, trees, progress))
    of_texts = [[next(scored) for _ in of_text] for of_text in pieces]
    return [AnswerLogProb(sum(s.total for s in t), sum(s.num_tokens for s in t)) for t in of_texts]


def answer_trees(student: Speaker, rows: Sequence[AnswerRow]) -> list[Tree]:
    """The token ids behind `rows`, a tree for each run of answers to one prompt."""
    groups = groupby(rows, key=lambda row: row.messages)
    return [_tree(student, list(group)) for _, group in groups]


def _tree(student: Speaker, rows: Sequence[AnswerRow]) -> Tree:
    messages = rows[0].messages
    render = student.template.render_answer
    return Tree(
        prompt=student.template.render_prompt(messages),
        continuations=[render(messages, row.answer, ended=row.ended) for row in rows],
    )
