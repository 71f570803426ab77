"""MT-Bench's judge: its published prompts filled in, and what it says read.

A rating is the first `[[n]]`, else the first `[n]`, from 1 to 10. What has none is a judge error:
counted, kept with the judge's words, and never a score.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Literal, TypeVar

from feldspar.errors import RecipeError
from feldspar.evaluate.mt_bench.answers import Answers
from feldspar.evaluate.mt_bench.files import MTBench, Question
from feldspar.progress import SILENT, Progress, Task
from feldspar.records import Message
from feldspar.teacher import Refused, Teacher

STAGE = "mt-bench"
MAX_TOKENS = 2048
_RATINGS = (re.compile(r"\[\[(\d+\.?\d*)\]\]"), re.compile(r"\[(\d+\.?\d*)\]"))
_PLACE = re.compile(r"\{(\w+)\}")
Winner = Literal["A", "B", "tie"]
_WINNERS: tuple[tuple[str, Winner], ...] = (("[[A]]", "A"), ("[[B]]", "B"), ("[[C]]", "tie"))
T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rated:
    """A judge's rating of one answer; None where it gave none, from 1 to 10, that can be read."""

    question: int
    category: str
    turn: int
    run: int
    rating: float | None
    said: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ComparedAnswers:
    """A pair in both orders: 1 where the model won both, 0 where it lost both, else 0.5.

    None where either order could not be read.
    """

    question: int
    category: str
    turn: int
    run: int
    won: float | None
    said: tuple[str, str]


def read_rating(text: str) -> float | None:
    """`Rating: [[7]]` is 7; `[[85]]`, a citation `[0]` and nothing at all are None."""
    found = next((match for form in _RATINGS if (match := form.search(text))), None)
    value = None if found is None else float(found[1])
    return value if value is not None and 1 <= value <= 10 else None


def read_winner(text: str) -> Winner | None:
    """`[[A]]`, `[[B]]` or `[[C]]` for a tie, the first of them that is there at all."""
    return next((winner for mark, winner in _WINNERS if mark in text), None)


def rating_prompt(
    bench: MTBench, question: Question, answers: Answers, turn: int
) -> tuple[Message, ...]:
    """What the judge is shown of a turn: `single-v1` or its math and multi-turn forms."""
    name = "single-math-v1" if question.references else "single-v1"
    values = _shown(question)
    for number in range(1, turn + 1):
        values[f"answer_{number}"] = answers[question.id, number]
    values["answer"] = answers[question.id, 1]
    return _fill(bench, name if turn == 1 else f"{name}-multi-turn", values)


def pair_prompt(
    bench: MTBench, question: Question, pair: tuple[Answers, Answers], turn: int
) -> tuple[Message, ...]:
    """What the judge is shown of two models' answers, the first as assistant A."""
    name = "pair-math-v1" if question.references else "pair-v2"
    values = _shown(question)
    for letter, answers in zip("ab", pair, strict=True):
        for number in range(1, turn + 1):
            values[f"answer_{letter}_{number}"] = answers[question.id, number]
        values[f"answer_{letter}"] = answers[question.id, 1]
    return _fill(bench, name if turn == 1 else f"{name}-multi-turn", values)


async def rate_answers(
    judge: Teacher, bench: MTBench, answers: Answers, run: int, progress: Progress = SILENT
) -> list[Rated]:
    """One rating for each answer, in their order, as the `run`-th time of asking."""

    async def rate(question: Question, turn: int) -> Rated:
        said = await _ask(judge, rating_prompt(bench, question, answers, turn), run)
        return Rated(
            question=question.id,
            category=question.category,
            turn=turn,
            run=run,
            rating=read_rating(said),
            said=said,
        )

    return await _all(judge, [rate(q, turn) for q, turn in _turns(bench)], progress)


async def compare_answers(
    judge: Teacher,
    bench: MTBench,
    pair: tuple[Answers, Answers],
    run: int,
    progress: Progress = SILENT,
) -> list[ComparedAnswers]:
    """The first model's answers against the second's, each pair in both orders.

    An advantage that goes with the order is none: it counts as a tie.
    """

    async def compare(question: Question, turn: int) -> ComparedAnswers:
        orders = (pair, (pair[1], pair[0]))
        said = [
            await _ask(judge, pair_prompt(bench, question, order, turn), run) for order in orders
        ]
        first, second = (read_winner(text) for text in said)
        won: float | None = 0.5
        if first is None or second is None:
            won = None
        elif (first, second) == ("A", "B"):
            won = 1.0
        elif (first, second) == ("B", "A"):
            won = 0.0
        return ComparedAnswers(
            question=question.id,
            category=question.category,
            turn=turn,
            run=run,
            won=won,
            said=(said[0], said[1]),
        )

    return await _all(judge, [compare(q, turn) for q, turn in _turns(bench)], progress)


async def _ask(judge: Teacher, messages: Sequence[Message], run: int) -> str:
    """The judge's words; nothing of them can be a rating where it refused."""
    try:
        reply = await judge.ask(
            messages, stage=STAGE, draw=run - 1, temperature=0.0, max_tokens=MAX_TOKENS
        )
    except Refused as refusal:
        return f"(refused: {str(refusal).replace('[', '(')})"
    return reply.text


async def _all(judge: Teacher, work: Sequence[Awaitable[T]], progress: Progress) -> list[T]:
    async def count(one: Awaitable[T], task: Task) -> T:
        done = await one
        task.advance(1)
        return done

    with progress.task("judging", len(work), "answers") as task:
        async with judge:
            return await asyncio.gather(*(count(one, task) for one in work))


def _turns(bench: MTBench) -> list[tuple[Question, int]]:
    return [(q, turn) for turn in (1, 2) for q in bench.questions if len(q.turns) >= turn]


def _shown(question: Question) -> dict[str, str]:
    values = {"question": question.turns[0]}
    for number, (turn, reference) in enumerate(
        zip(question.turns, question.references or ("",) * len(question.turns), strict=False),
        start=1,
    ):
        values[f"question_{number}"], values[f"ref_answer_{number}"] = turn, reference
    return values


def _fill(bench: MTBench, name: str, values: dict[str, str]) -> tuple[Message, ...]:
    prompt = bench.prompts.get(name)
    if prompt is None:
        raise RecipeError(f"MT-Bench's judge_prompts.jsonl has no prompt {name!r}; take FastChat's")
    missing = sorted(set(_PLACE.findall(prompt.template)) - set(values))
    if missing:
        raise RecipeError(f"judge_prompts.jsonl: {name!r} asks for {missing[0]!r}; take FastChat's")
    # In one pass: an answer may spell a place too.
    shown = _PLACE.sub(lambda match: values[match[1]], prompt.template)
    return (Message(role="system", content=prompt.system), Message(role="user", content=shown))
