"""Leaves to judged samples: every leaf, seed and draw flows alone, and results keep their order."""

from __future__ import annotations

import dataclasses
from collections.abc import AsyncGenerator, Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from feldspar.config import GenerateConfig
from feldspar.generate.filters import Filters
from feldspar.generate.funnel import FUNNEL_FILE, LeafFunnel, Tally, write_funnel
from feldspar.generate.ordered import in_order, run_stream
from feldspar.generate.pipelines import write_samples
from feldspar.generate.prompting import read_prompts
from feldspar.generate.staff import Staff, Work
from feldspar.generate.works import generation_works, note_on, num_asked
from feldspar.progress import SILENT, Progress, Task
from feldspar.records import ExamItem, Leaf, Sample
from feldspar.teacher import Teacher

WORKS_PER_CALL = 4
"""Samples under way for each call that may be in flight: enough for the teacher never to wait, and
for the last ones to end together."""


class _Done(NamedTuple):
    work: Work
    samples: list[Sample]


def generate_samples(
    leaves: Iterable[Leaf],
    config: GenerateConfig,
    *,
    teacher: Teacher,
    judge: Teacher,
    avoid: Iterable[ExamItem],
    seed: int,
    here: Path,
    progress: Progress = SILENT,
) -> Iterator[Sample]:
    """Write, judge, and filter samples for every leaf; kept and rejected ones, in order.

    Writes `funnel.json` to `here`. Same leaves, config, seed, and journal give the same samples,
    whatever the timing. `avoid` is what exams ask. Raises TeacherError, RecipeError, DiskError.
    """
    staff = Staff(teacher, judge, read_prompts(config), config)
    filters = Filters(config, avoid)
    tallies: list[Tally] = []
    finished: list[LeafFunnel] = []
    with progress.task("samples", _count_asked(leaves, config), "samples") as task:
        num_kept = 0
        works = _all_works(leaves, config, seed, tallies)
        for work, drafts in run_stream(_write_all(works, staff)):
            while tallies[0].leaf.path != work.leaf.path:
                finished.append(tallies.pop(0).finish())
            samples = [_filtered(sample, work.leaf, filters) for sample in drafts]
            tallies[0].add(work.count, samples)
            num_kept += sum(sample.is_kept for sample in samples)
            _show(task, work.count, num_kept, staff)
            yield from samples
    finished.extend(tally.finish() for tally in tallies)
    write_funnel(here / FUNNEL_FILE, finished)


def max_works(staff: Staff) -> int:
    """Calls for new samples to have under way just now."""
    teacher = staff.teacher
    most = teacher.config.concurrency or teacher.config.max_concurrency // WORKS_PER_CALL
    return WORKS_PER_CALL * min(teacher.concurrency, most)


async def _write_all(works: Iterable[Work], staff: Staff) -> AsyncGenerator[_Done, None]:
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
    staff.teacher.drain()
    staff.judge.drain()


def _all_works(
    leaves: Iterable[Leaf], config: GenerateConfig, seed: int, tallies: list[Tally]
) -> Iterator[Work]:
    """Opens a tally for every leaf as its turn comes."""
    for leaf in leaves:
        tallies.append(Tally(leaf, note_on(leaf)))
        yield from generation_works(leaf, config, seed)


def _filtered(sample: Sample, leaf: Leaf, filters: Filters) -> Sample:
    if not sample.is_kept:
        return sample
    return dataclasses.replace(sample, rejected_because=filters.reason_against(sample, leaf))


def _count_asked(leaves: Iterable[Leaf], config: GenerateConfig) -> int | None:
    """Samples that will be asked for; None where leaves can be gone through only once."""
    if iter(leaves) is leaves:
        return None
    return sum(num_asked(leaf, config) for leaf in leaves)


def _show(task: Task, num_done: int, num_kept: int, staff: Staff) -> None:
    calls = staff.teacher.num_asked
    if staff.judge is not staff.teacher:
        calls += staff.judge.num_asked
    task.advance(num_done, kept=num_kept, calls=calls, in_flight=staff.teacher.concurrency)
