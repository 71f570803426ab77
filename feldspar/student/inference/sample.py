"""Answers drawn from a student, in batches, with random numbers that know nothing of the batch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import torch

from feldspar.progress import SILENT, Progress
from feldspar.records import Message
from feldspar.student.counter_rng import key_of
from feldspar.student.inference.engine import MAX_ROWS, Engine, EngineRow, Request
from feldspar.student.model import Student

T = TypeVar("T")


class Sampled(NamedTuple):
    """An answer as text, whether it came to its stop, and its tokens with the stop token."""

    text: str
    ended: bool
    num_tokens: int


def sample_answers(
    student: Student,
    prompts: Sequence[Sequence[Message] | Sequence[int]],
    *,
    keys: Sequence[str],
    num_answers: int = 1,
    temperature: float | Sequence[float] = 0.0,
    top_p: float = 1.0,
    max_new_tokens: int | Sequence[int],
    stop: Sequence[Sequence[str]] = (),
    seed: int,
    progress: Progress = SILENT,
) -> list[list[Sampled]]:
    """`num_answers` answers to each prompt, in the prompts' order. Temperature 0: the likeliest.

    A prompt is a conversation to be answered, or token ids to go on from. `temperature` and
    `max_new_tokens` may be given for each prompt; `stop` holds each prompt's stop texts, or nothing
    at all. Every draw is a function of (seed, key, answer number, token number), so answers do not
    depend on what else is in the batch, up to float noise.
    """
    if not prompts:
        return []
    temperatures = _each(temperature, len(prompts))
    limits = _each(max_new_tokens, len(prompts))
    places: dict[int, tuple[int, int]] = {}
    ids = [_ids(student, prompt) for prompt in prompts]
    requests: list[Request] = []
    # The longest first: prompts of like length are computed together.
    for i in sorted(range(len(prompts)), key=lambda i: -len(ids[i])):
        # The likeliest answer is the same every time: find it once.
        num_drawn = num_answers if temperatures[i] > 0 else 1
        for start in range(0, num_drawn, MAX_ROWS):
            draws = range(start, min(start + MAX_ROWS, num_drawn))
            request = Request(
                ids=ids[i],
                keys=[key_of(seed, keys[i], draw) for draw in draws],
                max_new_tokens=limits[i],
                temperature=temperatures[i],
                top_p=top_p,
                stop=tuple(stop[i]) if stop else (),
            )
            places[id(request)] = i, start
            requests.append(request)
    drawn: list[dict[int, Sampled]] = [{} for _ in prompts]
    with progress.task("answers", len(prompts), "prompts") as task:
        for row in _run(Engine(student), requests):
            if row.finish:
                i, start = places[id(row.request)]
                drawn[i][start + row.draw] = Sampled(row.text, row.is_ended, len(row.ids))
                task.advance(1 / num_answers if temperatures[i] > 0 else 1)
    return [[of[draw % len(of)] for draw in range(num_answers)] for of in drawn]


def sample_questions(
    student: Student,
    *,
    keys: Sequence[str],
    temperature: float,
    max_new_tokens: int,
    seed: int,
    progress: Progress = SILENT,
) -> list[str]:
    """What a student writes as a user's turn, one question a key, with nothing given.

    A question ends where any special token comes, and may be empty.
    """
    opening = student.template.render_opening()
    engine = Engine(student)
    requests = [
        Request(
            ids=opening,
            keys=[key_of(seed, key, 0)],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
        )
        for key in keys
    ]
    written: dict[int, list[int]] = {}
    with progress.task("questions", len(keys), "questions") as task:
        for row in _run(engine, requests):
            is_special = row.ids[-1] in student.template.special_ids
            if is_special or row.finish:
                written[id(row.request)] = row.ids[:-1] if is_special else row.ids
                task.advance(1)
                if not row.finish:
                    engine.cancel(row.request)
    texts = student.template.decode_answers([written[id(request)] for request in requests])
    return [text.strip() for text in texts]


def _run(engine: Engine, requests: Sequence[Request]) -> Iterator[EngineRow]:
    """`Engine.run` for callers that take every row: contexts stay open between its steps."""
    # Autocast's copies of the weights live as long as it does.
    with torch.inference_mode(), engine.student.computing():
        yield from engine.run(requests)


def _ids(student: Student, prompt: Sequence[Message] | Sequence[int]) -> list[int]:
    messages = [m for m in prompt if isinstance(m, Message)]
    if messages:
        return student.template.render_prompt(messages)
    return [i for i in prompt if isinstance(i, int)]


def _each(value: T | Sequence[T], num: int) -> Sequence[T]:
    return value if isinstance(value, Sequence) else [value] * num
