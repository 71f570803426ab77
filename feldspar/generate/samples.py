"""Leaves to judged samples: every leaf, seed and draw flows alone, and results keep their order."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Generator, Iterable, Iterator, Sequence
from typing import NamedTuple

from feldspar.config import GenerateConfig
from feldspar.generate.borrowed import Pool, gather_pool
from feldspar.generate.filters import Filters
from feldspar.generate.funnel import FUNNEL_FILE, LeafFunnel, Tally, write_funnel
from feldspar.generate.in_order import in_order, run_stream
from feldspar.generate.pipelines import write_samples
from feldspar.generate.prompting import read_prompts
from feldspar.generate.requests import (
    generation_works,
    main_kind,
    note_on,
    num_asked,
    target_works,
)
from feldspar.generate.writers import Staff, Work
from feldspar.progress import Task
from feldspar.records import ExamItem, Leaf, Sample
from feldspar.steps import Step, Workspace
from feldspar.teacher import Teacher

WORKS_PER_CALL = 4
"""Samples under way for each call that may be in flight: enough for the teacher never to wait, and
for the last ones to end together."""


MAX_ROUNDS = 8
"""Rounds of asking for what a target still lacks."""
LEAST_YIELD = 0.02
"""Accepted part of what a round asked for, below which a target is given up."""
MOST_AT_ONCE = 4
"""A round asks for no more than this many times the target."""

MAX_HINTS = 3
"""Leaves that yield least and are told of at the end; the funnel has all hints."""

log = logging.getLogger(__name__)


class _Done(NamedTuple):
    work: Work
    samples: list[Sample]


def generate_samples(
    workspace: Workspace,
    leaves: Iterable[Leaf],
    config: GenerateConfig,
    *,
    teacher: Teacher,
    judge: Teacher,
    avoid: Iterable[ExamItem],
    seed: int,
) -> Iterator[Sample]:
    """Write, judge, and filter samples for every leaf; kept and rejected ones, in order.

    Writes `funnel.json`. Same leaves, config, seed, and journal give the same samples, whatever the
    timing; only where a budget ends the asking does timing decide what is kept.
    `avoid` is what exams ask. Raises TeacherError, RecipeError, DiskError.
    """
    staff = Staff(teacher, judge, read_prompts(config), config)
    if iter(leaves) is leaves:
        leaves = list(leaves)
    pool = gather_pool(leaves, config, seed)
    filters = Filters(config, avoid, (*pool.plain, *pool.grounded))
    with workspace.progress.task("samples", _count_asked(leaves, config), "samples") as task:
        live = _Live(task, staff)
        make = _make_once if config.target is None else _make_until_target
        funnels = yield from make(leaves, pool, filters, staff, seed, live)
    write_funnel(workspace.folder / FUNNEL_FILE, funnels, teacher.budget.spent)
    for place in staff.custom.unused():
        log.warning("generate.pipeline: no leaf lies in %r; mend its name", place)
    little = sorted((leaf.kept / leaf.asked, leaf.leaf, leaf) for leaf in funnels if leaf.hint)
    for _, _, leaf in little[:MAX_HINTS]:
        log.warning("%s: %d of %d kept; %s", leaf.leaf, leaf.kept, leaf.asked, leaf.hint)
    if teacher.budget.reached:
        log.warning(
            "generation stopped at generate.budget.%s with %d samples kept; raise it and run "
            "again: what is answered is not paid again",
            teacher.budget.reached,
            live.num_kept,
        )


SAMPLES_STEP = Step("samples", generate_samples, version=1)


def _make_once(
    leaves: Iterable[Leaf], pool: Pool, filters: Filters, staff: Staff, seed: int, live: _Live
) -> Generator[Sample, None, list[LeafFunnel]]:
    """All samples that the recipe asks for, leaf after leaf."""
    tallies: list[Tally] = []
    finished: list[LeafFunnel] = []
    works = _all_works(leaves, pool, staff, seed, tallies)
    for work, drafts in run_stream(write_all(works, staff)):
        while tallies[0].leaf.path != work.leaf.path:
            finished.append(tallies.pop(0).finish())
        samples = [_filtered(sample, work.leaf, filters) for sample in drafts]
        tallies[0].add(work.count, samples)
        live.show(work.count, samples)
        yield from samples
    return finished + [tally.finish() for tally in tallies]


def _make_until_target(
    leaves: Iterable[Leaf], pool: Pool, filters: Filters, staff: Staff, seed: int, live: _Live
) -> Generator[Sample, None, list[LeafFunnel]]:
    """Rounds over the leaves that lack something, each as large as the last one's yield says."""
    goals = {leaf.path: _Goal(leaf, staff.config, seed, pool) for leaf in leaves}
    for _ in range(MAX_ROUNDS):
        # All calls of a round are known before any is asked, so that timing decides nothing.
        works = [work for goal in goals.values() for work in goal.next_works()]
        if not works or staff.is_spent:
            break
        for work, drafts in run_stream(write_all(_while_paid(works, staff), staff)):
            goal = goals[work.leaf.path]
            samples = [goal.capped(_filtered(s, work.leaf, filters)) for s in drafts]
            goal.add(work, samples)
            live.show(work.count, samples)
            yield from samples
    for goal in goals.values():
        goal.tally.note = goal.tally.note or goal.note(staff)
    return [goal.tally.finish() for goal in goals.values()]


class _Goal:
    """How far one leaf is from its target."""

    def __init__(self, leaf: Leaf, config: GenerateConfig, seed: int, pool: Pool) -> None:
        assert config.target is not None
        self.tally = Tally(leaf, note_on(leaf))
        self._target = config.target
        self._config, self._seed, self._pool = config, seed, pool
        self._counted = main_kind(leaf, config)
        self._num_calls = self._num_asked = self._num_kept = 0
        self._asked_before = self._kept_before = 0
        self._last_yield = 1.0

    def next_works(self) -> list[Work]:
        """The next round; empty where the target is reached, or never will be."""
        num_asked = self._num_asked - self._asked_before
        if num_asked:
            self._last_yield = (self._num_kept - self._kept_before) / num_asked
        self._asked_before, self._kept_before = self._num_asked, self._num_kept
        lacking = self._target - self._num_kept
        if self._counted is None:
            lacking = 0 if self._num_calls else 1
        if lacking <= 0 or self._last_yield < LEAST_YIELD:
            return []
        num_wanted = min(lacking / self._last_yield, MOST_AT_ONCE * self._target)
        first, num_calls = self._num_calls, math.ceil(num_wanted / self._config.pairs_per_call)
        self._num_calls += num_calls
        leaf = self.tally.leaf
        return list(target_works(leaf, self._config, self._seed, first, num_calls, self._pool))

    def add(self, work: Work, samples: Sequence[Sample]) -> None:
        self.tally.add(work.count, samples)
        self._num_asked += work.count if work.kind == self._counted else 0

    def capped(self, sample: Sample) -> Sample:
        """No more than the target is kept, so that leaves stay equal."""
        if not sample.is_kept or sample.kind != self._counted:
            return sample
        if self._num_kept >= self._target:
            return dataclasses.replace(sample, rejected_because="target: reached")
        self._num_kept += 1
        return sample

    def note(self, staff: Staff) -> str:
        if self._num_kept >= self._target or self._counted is None:
            return ""
        why = "the budget is spent" if staff.is_spent else f"yield {self._last_yield:.0%} at last"
        return f"{self._num_kept} of {self._target} wanted: {why}"


def max_works(staff: Staff) -> int:
    """Calls for new samples to have under way just now."""
    teacher = staff.teacher
    most = teacher.config.concurrency or teacher.config.max_concurrency // WORKS_PER_CALL
    # What a cap leaves unfinished is paid for nothing, so with one less is begun ahead.
    factor = 1 if staff.config.budget.is_capped else WORKS_PER_CALL
    return factor * min(teacher.concurrency, most)


async def write_all(works: Iterable[Work], staff: Staff) -> AsyncGenerator[_Done, None]:
    """Every work's samples in order, with as many under way as keep the teacher busy."""

    async def write(work: Work) -> _Done:
        return _Done(work, await write_samples(work, staff))

    async with staff.teacher, staff.judge:
        stream = in_order(_then_drain(works, staff), write, lambda: max_works(staff))
        try:
            async for done in stream:
                yield done
        finally:
            await stream.aclose()


def _then_drain(works: Iterable[Work], staff: Staff) -> Iterator[Work]:
    yield from works
    if not staff.config.budget.is_capped:
        staff.teacher.drain()
        staff.judge.drain()


def _all_works(
    leaves: Iterable[Leaf], pool: Pool, staff: Staff, seed: int, tallies: list[Tally]
) -> Iterator[Work]:
    """Opens a tally for every leaf as its turn comes."""
    for leaf in leaves:
        note = note_on(leaf) or ("not begun: the budget is spent" if staff.is_spent else "")
        tallies.append(Tally(leaf, note))
        yield from _while_paid(generation_works(leaf, staff.config, seed, pool), staff)


def _while_paid(works: Iterable[Work], staff: Staff) -> Iterator[Work]:
    return itertools.takewhile(lambda _: not staff.is_spent, works)


def _filtered(sample: Sample, leaf: Leaf, filters: Filters) -> Sample:
    if not sample.is_kept:
        return sample
    return dataclasses.replace(sample, rejected_because=filters.reason_against(sample, leaf))


def _count_asked(leaves: Iterable[Leaf], config: GenerateConfig) -> int:
    return sum(num_asked(leaf, config) for leaf in leaves)


class _Live:
    """The figures beside the bar."""

    def __init__(self, task: Task, staff: Staff) -> None:
        self.num_kept = self._num_asked = 0
        self._task = task
        self._staff = staff
        self._started = time.monotonic()

    def show(self, num_asked: int, samples: Sequence[Sample]) -> None:
        self.num_kept += sum(sample.is_kept for sample in samples)
        self._num_asked += num_asked
        people = {self._staff.teacher, self._staff.judge}
        tokens = sum(one.prompt_tokens + one.completion_tokens for one in people)
        figures: dict[str, float | str] = {
            "kept": self.num_kept,
            "yield": f"{self.num_kept / self._num_asked:.0%}",
            "calls": sum(one.num_asked for one in people),
            "tokens/s": round(tokens / max(time.monotonic() - self._started, 1e-9)),
            "in_flight": self._staff.teacher.concurrency,
        }
        if self._staff.teacher.budget.spent.cost:
            figures["cost"] = f"{self._staff.teacher.budget.spent.cost:.2f}"
        self._task.advance(num_asked, **figures)
