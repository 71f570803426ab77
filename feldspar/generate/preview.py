"""A few samples of each leaf before a run, with what was asked and said for each.

They are samples of the run's own first calls, so the run finds their answers in its journal.
"""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from typing import NamedTuple

from feldspar.config import GenerateConfig
from feldspar.generate.borrowed import Borrowed, gather_borrowed
from feldspar.generate.custom import CustomPipelines
from feldspar.generate.draft import Draft, SampleRequest
from feldspar.generate.filters import Filters
from feldspar.generate.in_order import in_order, run_stream
from feldspar.generate.pipelines import Pipelines
from feldspar.generate.prompting import Prompts, read_prompts
from feldspar.generate.requests import note_on, sample_requests
from feldspar.generate.samples import max_requests
from feldspar.generate.writers import Writers
from feldspar.progress import Progress
from feldspar.records import ExamItem, Leaf, Sample
from feldspar.teacher import Exchange, Teacher, listening


@dataclass(frozen=True, slots=True, kw_only=True)
class PreviewedSample:
    """A sample with its verdict, and every call that it took, in the order of the replies."""

    sample: Sample
    exchanges: tuple[Exchange, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafPreview:
    """The first samples of a leaf; `note` says why there are none to ask for."""

    leaf: str
    samples: tuple[PreviewedSample, ...]
    note: str = ""


def preview_leaves(
    leaves: Sequence[Leaf],
    config: GenerateConfig,
    *,
    teacher: Teacher,
    judge: Teacher,
    avoid: Iterable[ExamItem],
    seed: int,
    num_samples: int,
    progress: Progress,
) -> list[LeafPreview]:
    """Write, judge and filter about `num_samples` samples of each leaf.

    `avoid` is what exams ask, as far as it is known before a run. Raises TeacherError, RecipeError,
    DiskError.
    """
    writers = _ListeningWriters(teacher, judge, read_prompts(config), config)
    pipelines = Pipelines(writers, CustomPipelines(config))
    borrowed = gather_borrowed(leaves, config, seed)
    filters = Filters(config, avoid, (*borrowed.plain, *borrowed.grounded))
    of_leaves = {
        leaf.path: _first_requests(leaf, config, seed, borrowed, num_samples) for leaf in leaves
    }
    requests = [request for some in of_leaves.values() for request in some]
    written: dict[str, list[PreviewedSample]] = {leaf.path: [] for leaf in leaves}
    with progress.task("preview", sum(r.count for r in requests), "samples") as task:
        paid = itertools.takewhile(lambda _: not writers.is_spent, requests)
        for request, drafts, told in run_stream(_write_all(paid, pipelines)):
            for draft in drafts:
                reason = filters.reason_against(draft, request.leaf) if draft.is_kept else None
                heard = (*told, *writers.heard.pop(draft.id, ()))
                sample = replace(draft, rejected_because=draft.rejected_because or reason)
                shown = PreviewedSample(sample=sample, exchanges=heard)
                written[request.leaf.path].append(shown)
            task.advance(request.count)
    return [
        LeafPreview(
            leaf=leaf.path,
            samples=tuple(written[leaf.path][:num_samples]),
            note=note_on(leaf) or _note(of_leaves[leaf.path], written[leaf.path]),
        )
        for leaf in leaves
    ]


class _ListeningWriters(Writers):
    """Writers that keep what is asked and said for each sample."""

    def __init__(
        self, teacher: Teacher, judge: Teacher, prompts: Prompts, config: GenerateConfig
    ) -> None:
        super().__init__(teacher, judge, prompts, config)
        self.heard: dict[str, list[Exchange]] = {}
        """By sample; without the calls that a request's samples have in common."""

    async def finish(
        self, draft: Draft, *stages: Callable[[Draft, Writers], Awaitable[None]]
    ) -> Sample:
        with listening() as heard:
            sample = await super().finish(draft, *stages)
        self.heard[sample.id] = heard
        return sample


class _Written(NamedTuple):
    request: SampleRequest
    samples: list[Sample]
    told: list[Exchange]
    """What was asked and said for all of them together."""


async def _write_all(
    requests: Iterable[SampleRequest], pipelines: Pipelines
) -> AsyncGenerator[_Written, None]:
    writers = pipelines.writers

    async def write(request: SampleRequest) -> _Written:
        with listening() as told:
            samples = await pipelines.write_samples(request)
        return _Written(request, samples, told)

    stream = in_order(requests, write, lambda: max_requests(writers))
    async with writers.teacher, writers.judge_teacher, aclosing(stream):
        async for written in stream:
            yield written


def _first_requests(
    leaf: Leaf, config: GenerateConfig, seed: int, borrowed: Borrowed, num_samples: int
) -> list[SampleRequest]:
    """Whole calls of the run, as many as promise `num_samples`; of a knowledge leaf from passages
    that are spread over its documents."""
    if note_on(leaf):
        return []
    asked = _asked(leaf, config, seed, borrowed)
    if leaf.branch == "knowledge":
        # The first call of each passage, form and kind: the run makes those whatever its volume.
        first = list(asked)
        num_calls = -(-num_samples // config.pairs_per_call)
        step = max(1, len(first) // num_calls)
        asked = iter([*first[::step], *first])
    requests: dict[str, SampleRequest] = {}
    while sum(r.count for r in requests.values()) < num_samples:
        request = next(asked, None)
        if request is None:
            break
        requests[request.key] = request
    return list(requests.values())


def _asked(
    leaf: Leaf, config: GenerateConfig, seed: int, borrowed: Borrowed
) -> Iterator[SampleRequest]:
    """The run's calls that ask a teacher; of a knowledge leaf those of the first lap."""
    draws: set[int] = set()
    for request in sample_requests(leaf, config, seed, borrowed):
        if request.kind == "document" and not request.rendering:
            continue
        draws.add(request.draw)
        if leaf.branch != "knowledge" or request.draw == min(draws):
            yield request


def _note(requests: Sequence[SampleRequest], samples: Sequence[PreviewedSample]) -> str:
    if not requests:
        return "the recipe asks for no sample of it"
    return "" if samples else "not begun: the budget is spent"
