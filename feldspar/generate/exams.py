"""An exam for each leaf: its held-out seeds, topped up with judged questions kept from training."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Iterable, Iterator
from contextlib import aclosing
from dataclasses import replace
from typing import Literal, NamedTuple

from feldspar.config import GenerateConfig
from feldspar.generate.choices import choice_items
from feldspar.generate.filters import Questions
from feldspar.generate.final_answers import accepted_final
from feldspar.generate.funnel import FUNNEL_FILE, LeafFunnel, Tally, write_funnel
from feldspar.generate.in_order import in_order, run_stream
from feldspar.generate.pipelines import Pipelines, open_pipelines
from feldspar.generate.requests import exam_draw, exam_requests, note_on, num_exam_items
from feldspar.generate.samples import max_requests
from feldspar.records import ExamItem, Leaf, Sample
from feldspar.steps import Step, Workspace
from feldspar.teacher import Teacher
from feldspar.text.match import is_right

MAX_ROUNDS = 4
"""Rounds of asking for what an exam still lacks; after the last it stays as small as it is."""


class _LeafExam(NamedTuple):
    items: list[ExamItem]
    funnel: LeafFunnel


def make_exams(
    workspace: Workspace,
    leaves: Iterable[Leaf],
    config: GenerateConfig,
    *,
    teacher: Teacher,
    judge: Teacher,
    seed: int,
) -> Iterator[ExamItem]:
    """Items of the exam `leaf:PATH` for every leaf; half of each kind for choosing checkpoints.

    With `config.exam_choices` also `choices:PATH`, which asks the other half as multiple choice.

    Generated items are always judged. Writes `funnel.json`.
    """
    # An exam that nobody judged would measure the teacher's mistakes.
    pipelines = open_pipelines(teacher, judge, config.judging_all())
    funnels = []
    with workspace.progress.task("exams", None, "leaves") as task:
        num_items = 0
        for items, funnel in run_stream(_make_all(leaves, config, pipelines, seed)):
            funnels.append(funnel)
            num_items += len(items)
            task.advance(1, items=num_items)
            yield from items
    write_funnel(workspace.folder / FUNNEL_FILE, funnels, teacher.budget.spent)


LEAF_EXAMS_STEP = Step("leaf-exams", make_exams, version=4)


async def _make_all(
    leaves: Iterable[Leaf], config: GenerateConfig, pipelines: Pipelines, seed: int
) -> AsyncGenerator[_LeafExam, None]:
    async def make(leaf: Leaf) -> _LeafExam:
        return await _make_exam(leaf, config, pipelines, seed)

    writers = pipelines.writers
    stream = in_order(leaves, make, lambda: max_requests(writers))
    async with writers.teacher, writers.judge_teacher, aclosing(stream):
        async for exam in stream:
            yield exam


async def _make_exam(
    leaf: Leaf, config: GenerateConfig, pipelines: Pipelines, seed: int
) -> _LeafExam:
    known = Questions()
    for shown in leaf.seeds:
        known.add(f"seed {shown.id}", shown.question, _input_of(leaf, shown.context))
    held_out = []
    for kept_back in leaf.exam_seeds:
        context = _input_of(leaf, kept_back.context)
        held_out.append(_item(leaf, kept_back.question, kept_back.answer, context, "held-out"))
        known.add(f"seed {kept_back.id}", kept_back.question, context)
    tally = Tally(leaf, note_on(leaf))
    generated: list[ExamItem] = []
    num_calls = 0
    wanted = max(0, num_exam_items(leaf, config, seed) - len(held_out))
    for _ in range(MAX_ROUNDS):
        lacking = wanted - len(generated)
        requests = exam_requests(
            leaf, config, seed, num_calls, -(-lacking // config.pairs_per_call)
        )
        if not requests:
            break
        num_calls += len(requests)
        written = await asyncio.gather(*(pipelines.write_samples(request) for request in requests))
        for request, samples in zip(requests, written, strict=True):
            tally.add(request, samples, pipelines.writers.unread)
            generated.extend(_new_items(leaf, samples, known))
    items = _halved(held_out) + _halved(generated[:wanted])
    if config.exam_choices:
        items += await choice_items(leaf, items, pipelines.writers, exam_draw(seed))
    return _LeafExam(items, tally.finish())


def _new_items(leaf: Leaf, samples: Iterable[Sample], known: Questions) -> Iterator[ExamItem]:
    for sample in samples:
        context = _input_of(leaf, sample.context)
        if sample.is_kept and known.find(sample.question, context) is None:
            known.add(sample.id, sample.question, context)
            yield _item(leaf, sample.question, sample.answer, context, "generated")


def _input_of(leaf: Leaf, context: str | None) -> str | None:
    """A skill's context belongs to its question; knowledge is asked for without its passage."""
    return None if leaf.branch == "knowledge" else context


def _item(
    leaf: Leaf,
    question: str,
    answer: str,
    context: str | None,
    origin: Literal["held-out", "generated"],
) -> ExamItem:
    final = accepted_final(question, answer, leaf.branch)
    exam = f"leaf:{leaf.path}"
    content = repr((exam, question, answer, context))
    item = ExamItem(
        id=hashlib.sha256(content.encode()).hexdigest()[:16],
        exam=exam,
        question=question,
        reference=answer,
        accepted=() if final is None else (final,),
        match="likelihood" if final is None else "final",
        context=context,
        leaf=leaf.path,
        branch=leaf.branch,
        origin=origin,
    )
    # An end that the reference itself does not have would be right for nobody.
    is_fair = final is None or is_right(answer, item)
    return item if is_fair else replace(item, accepted=(), match="likelihood")


def _halved(items: list[ExamItem]) -> list[ExamItem]:
    """Every other item, in order of content hash, is for choosing checkpoints; the first is not."""
    ordered = sorted(items, key=lambda item: item.id)
    return [
        replace(item, use="select") if place % 2 else item for place, item in enumerate(ordered)
    ]
