"""Leaves to judged samples: every leaf, seed and draw flows alone, and results keep their order."""

from __future__ import annotations

import dataclasses
import itertools
import logging
import math
import time
from collections.abc import AsyncGenerator, Callable, Generator, Iterable, Iterator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from feldspar.config import GenerateConfig
from feldspar.generate.borrowed import Borrowed, gather_borrowed
from feldspar.generate.coverage import AskedStatements, open_coverage
from feldspar.generate.draft import SampleRequest
from feldspar.generate.filters import Filters
from feldspar.generate.funnel import FUNNEL_FILE, LeafFunnel, Tally, write_funnel
from feldspar.generate.in_order import in_order, run_stream
from feldspar.generate.pipelines import Pipelines, open_pipelines
from feldspar.generate.requests import (
    again_requests,
    chunks_of,
    main_kind,
    note_on,
    num_asked,
    sample_requests,
    target_requests,
)
from feldspar.generate.writers import Writers
from feldspar.progress import Task
from feldspar.records import ExamItem, Leaf, Sample
from feldspar.steps import Step, Workspace
from feldspar.teacher import Teacher

REQUESTS_PER_CALL = 4
"""Samples under way for each call that may be in flight: enough for the teacher never to wait, and
for the last ones to end together."""


MAX_ROUNDS = 8
"""Rounds of asking for what a target still lacks."""
LEAST_YIELD = 0.02
"""Accepted part of what a round asked for, below which a target is given up."""
MOST_AT_ONCE = 4
"""A round asks for no more than this many times the target."""

MAX_HINTS = 3
"""Leaves of the lowest yield that the end of a run names; the funnel has all hints."""

log = logging.getLogger(__name__)


class _Done(NamedTuple):
    request: SampleRequest
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

    Writes `funnel.json` and `coverage.jsonl`. Same leaves, config, seed, and journal give the same
    samples, whatever the timing; only where a budget ends the asking does timing decide what is
    kept.
    `avoid` is what exams ask. Raises TeacherError, RecipeError, DiskError.
    """
    pipelines = open_pipelines(teacher, judge, config)
    if iter(leaves) is leaves:
        leaves = list(leaves)
    borrowed = gather_borrowed(leaves, config, seed)
    filters = Filters(config, avoid, (*borrowed.plain, *borrowed.grounded))
    with (
        workspace.progress.task("samples", _count_asked(leaves, config), "samples") as task,
        open_coverage(workspace.folder) as note_coverage,
    ):
        live = _Live(task, pipelines.writers)
        making = _Making(leaves, borrowed, filters, pipelines, seed, live, note_coverage)
        make = _make_once if config.target is None else _make_until_target
        funnels = yield from make(making)
    write_funnel(workspace.folder / FUNNEL_FILE, funnels, teacher.budget.spent)
    for place in pipelines.custom.unused():
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


SAMPLES_STEP = Step("samples", generate_samples, version=4)


class _Making(NamedTuple):
    """What every call of a run shares."""

    leaves: Iterable[Leaf]
    borrowed: Borrowed
    filters: Filters
    pipelines: Pipelines
    seed: int
    live: _Live
    note_coverage: Callable[[AskedStatements], None]

    @property
    def asks_again(self) -> bool:
        """Whether leaves come once more, with what their samples do not ask."""
        return self.pipelines.writers.config.knowledge.least_forms > 0

    def finish(self, tally: Tally) -> LeafFunnel:
        if tally.coverage is not None:
            self.note_coverage(tally.coverage)
        return tally.finish()

    def written(
        self, requests: Iterable[SampleRequest]
    ) -> Iterator[tuple[SampleRequest, list[Sample]]]:
        """Each request with its samples, filtered, in order."""
        for request, drafts in run_stream(write_all(requests, self.pipelines)):
            yield request, [_filtered(draft, request.leaf, self.filters) for draft in drafts]


def _make_once(making: _Making) -> Generator[Sample, None, list[LeafFunnel]]:
    """All samples that the recipe asks for, leaf after leaf."""
    tallies: list[Tally] = []
    closed: list[Tally] = []
    finished: list[LeafFunnel] = []
    for request, samples in making.written(_all_requests(making, tallies)):
        while tallies[0].leaf.path != request.leaf.path:
            tally = tallies.pop(0)
            if making.asks_again:
                closed.append(tally)
            else:
                finished.append(making.finish(tally))
        tallies[0].add(request, samples, making.pipelines.writers.unread)
        making.live.show(request.count, samples)
        yield from samples
    closed += tallies
    yield from _ask_again(making, closed)
    return finished + [making.finish(tally) for tally in closed]


def _make_until_target(making: _Making) -> Generator[Sample, None, list[LeafFunnel]]:
    """Rounds over the leaves that lack something, each as large as the last one's yield says."""
    writers = making.pipelines.writers
    goals = {leaf.path: _Goal(leaf, making) for leaf in making.leaves}
    for _ in range(MAX_ROUNDS):
        # All calls of a round are known before any is asked, so that timing decides nothing.
        requests = [request for goal in goals.values() for request in goal.next_requests()]
        if not requests or writers.is_spent:
            break
        for request, written in making.written(_while_paid(requests, writers)):
            goal = goals[request.leaf.path]
            samples = [goal.capped(sample) for sample in written]
            goal.add(request, samples, writers.unread)
            making.live.show(request.count, samples)
            yield from samples
    for goal in goals.values():
        goal.tally.note = goal.tally.note or goal.note(writers)
    tallies = [goal.tally for goal in goals.values()]
    yield from _ask_again(making, tallies)
    return [making.finish(tally) for tally in tallies]


def _ask_again(making: _Making, tallies: Sequence[Tally]) -> Iterator[Sample]:
    """Pairs about the statements of each leaf that its kept samples ask about too rarely."""
    writers = making.pipelines.writers
    if not making.asks_again or writers.is_spent:
        return
    by_leaf = {tally.leaf.path: tally for tally in tallies}
    # All calls are known before any is asked, so that timing decides nothing.
    requests = [
        request
        for tally in tallies
        if tally.coverage is not None
        for request in again_requests(
            tally.leaf,
            writers.config,
            making.seed,
            tally.coverage.lacking(writers.config.knowledge.least_forms),
        )
    ]
    for request, samples in making.written(_while_paid(requests, writers)):
        by_leaf[request.leaf.path].add(request, samples, writers.unread)
        making.live.show(request.count, samples)
        yield from samples


class _Goal:
    """How far one leaf is from its target."""

    def __init__(self, leaf: Leaf, making: _Making) -> None:
        config = making.pipelines.writers.config
        assert config.target is not None
        self.tally = Tally(leaf, note_on(leaf), coverage_of(leaf))
        self._target = config.target
        self._config, self._seed, self._borrowed = config, making.seed, making.borrowed
        self._counted = main_kind(leaf, config)
        self._num_calls = self._num_asked = self._num_kept = 0
        self._asked_before = self._kept_before = 0
        self._last_yield = 1.0

    def next_requests(self) -> list[SampleRequest]:
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
        return list(
            target_requests(leaf, self._config, self._seed, first, num_calls, self._borrowed)
        )

    def add(
        self, request: SampleRequest, samples: Sequence[Sample], unread: dict[str, str]
    ) -> None:
        self.tally.add(request, samples, unread)
        self._num_asked += request.count if request.kind == self._counted else 0

    def capped(self, sample: Sample) -> Sample:
        """No more than the target is kept, so that leaves stay equal."""
        if not sample.is_kept or sample.kind != self._counted:
            return sample
        if self._num_kept >= self._target:
            return dataclasses.replace(sample, rejected_because="target: reached")
        self._num_kept += 1
        return sample

    def note(self, writers: Writers) -> str:
        if self._num_kept >= self._target or self._counted is None:
            return ""
        why = "the budget is spent" if writers.is_spent else f"yield {self._last_yield:.0%} at last"
        return f"{self._num_kept} of {self._target} wanted: {why}"


def max_requests(writers: Writers) -> int:
    """Calls for new samples to have under way just now."""
    teacher = writers.teacher
    config = teacher.config
    by_servers = config.num_servers * config.max_concurrency // REQUESTS_PER_CALL
    most = config.concurrency or max(1, by_servers)
    # What a cap leaves unfinished is paid for nothing, so with one less is begun ahead.
    factor = 1 if writers.config.budget.is_capped else REQUESTS_PER_CALL
    return factor * min(teacher.concurrency, most)


async def write_all(
    requests: Iterable[SampleRequest], pipelines: Pipelines
) -> AsyncGenerator[_Done, None]:
    """Every request's samples in order, with as many under way as keep the teacher busy."""
    writers = pipelines.writers

    async def write(request: SampleRequest) -> _Done:
        return _Done(request, await pipelines.write_samples(request))

    stream = in_order(_then_drain(requests, writers), write, lambda: max_requests(writers))
    async with writers.teacher, writers.judge_teacher, aclosing(stream):
        async for done in stream:
            yield done


def _then_drain(requests: Iterable[SampleRequest], writers: Writers) -> Iterator[SampleRequest]:
    yield from requests
    if not writers.config.budget.is_capped:
        writers.teacher.drain()
        writers.judge_teacher.drain()


def _all_requests(making: _Making, tallies: list[Tally]) -> Iterator[SampleRequest]:
    """Opens a tally for every leaf as its turn comes."""
    writers = making.pipelines.writers
    for leaf in making.leaves:
        note = note_on(leaf) or ("not begun: the budget is spent" if writers.is_spent else "")
        tallies.append(Tally(leaf, note, coverage_of(leaf)))
        requests = sample_requests(leaf, writers.config, making.seed, making.borrowed)
        yield from _while_paid(requests, writers)


def _while_paid(requests: Iterable[SampleRequest], writers: Writers) -> Iterator[SampleRequest]:
    return itertools.takewhile(lambda _: not writers.is_spent, requests)


def _filtered(sample: Sample, leaf: Leaf, filters: Filters) -> Sample:
    if not sample.is_kept:
        return sample
    return dataclasses.replace(sample, rejected_because=filters.reason_against(sample, leaf))


def coverage_of(leaf: Leaf) -> AskedStatements | None:
    """Nothing asked yet; None for a skill, which has no passages to be asked about."""
    return AskedStatements(leaf.path, chunks_of(leaf)) if leaf.branch == "knowledge" else None


def _count_asked(leaves: Iterable[Leaf], config: GenerateConfig) -> int:
    return sum(num_asked(leaf, config) for leaf in leaves)


class _Live:
    """The figures beside the bar."""

    def __init__(self, task: Task, writers: Writers) -> None:
        self.num_kept = self._num_asked = 0
        self._task = task
        self._writers = writers
        self._started = time.monotonic()

    def show(self, num_asked: int, samples: Sequence[Sample]) -> None:
        self.num_kept += sum(sample.is_kept for sample in samples)
        self._num_asked += num_asked
        people = {self._writers.teacher, self._writers.judge_teacher}
        tokens = sum(one.prompt_tokens + one.completion_tokens for one in people)
        calls = sum(one.num_asked for one in people)
        seconds = max(time.monotonic() - self._started, 1e-9)
        figures: dict[str, float | str] = {
            "kept": self.num_kept,
            "yield": f"{self.num_kept / self._num_asked:.0%}",
            "calls": calls,
            "tokens": tokens,
            "tokens/s": round(tokens / seconds),
            "in_flight": self._writers.teacher.concurrency,
        }
        if self._writers.teacher.budget.spent.cost:
            figures["cost"] = f"{self._writers.teacher.budget.spent.cost:.2f}"
        # Behind what a narrow terminal has room for.
        figures["calls/s"] = round(calls / seconds, 1)
        health = [one.health for one in people]
        if num_all := sum(h.num_all for h in health):
            figures["servers"] = f"{sum(h.num_well for h in health)}/{num_all}"
        self._task.advance(num_asked, **figures)
