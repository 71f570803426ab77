"""How good a judge is, before it decides anything: known good pairs, and the same pairs corrupted.

Good pairs are the taxonomy's seeds. A pair is corrupted in one way at a time, so that the table
shows what a judge does not see. The calls are those of a run, so a judge pays for them once.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Iterable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import replace
from typing import NamedTuple

from feldspar.config import Criterion, GenerateConfig
from feldspar.errors import TeacherError
from feldspar.generate.draft import Draft, Rejected, SampleRequest
from feldspar.generate.in_order import in_order, run_stream
from feldspar.generate.prompting import read_prompts
from feldspar.generate.samples import max_requests
from feldspar.generate.stages import PROMPT_SUFFIX, STAGE_OF_CRITERION
from feldspar.generate.writers import Writers
from feldspar.progress import SILENT, Progress
from feldspar.records import Chunk, JudgeScore, Leaf, Seed
from feldspar.steps import Step, Workspace
from feldspar.teacher import Teacher
from feldspar.text import normalise

GOOD = "good"
SEEDS_PER_BRANCH = 60
"""Good pairs that a judge is tried on, for knowledge and for skills."""
LEAST_PAIRS = 5
"""Fewer good or corrupted pairs than this tell nothing about a judge."""


class _Known(NamedTuple):
    """A pair, the criterion it is judged by, and what was done to it."""

    criterion: Criterion
    kind: str
    leaf: Leaf
    seed: Seed


class Reliability(NamedTuple):
    """A judge by one criterion, as if half of all pairs were good.

    precision = g / (g + c) and recall = g, for the accepted shares g of good pairs and c of
    corrupted ones: so neither depends on how many corrupted pairs there happen to be.
    """

    criterion: Criterion
    precision: float
    recall: float
    num_pairs: int


def calibrate(
    leaves: Iterable[Leaf],
    config: GenerateConfig,
    *,
    judge: Teacher,
    seed: int,
    progress: Progress = SILENT,
) -> Iterator[JudgeScore]:
    """Try a judge on known pairs made from the seeds; a score for each criterion and kind."""
    writers = Writers(judge, judge, read_prompts(config), config.judging_all())
    pairs = list(known_pairs(list(leaves), random.Random(seed)))
    counts: dict[tuple[str, str], Counter[str]] = defaultdict(Counter)
    with progress.task("calibration", len(pairs), "judgments") as task:
        for known, said in run_stream(_judge_all(pairs, writers)):
            counts[known.criterion, known.kind][said] += 1
            task.advance(1)
    for (criterion, kind), count in sorted(counts.items(), key=_by_criterion):
        yield JudgeScore(
            criterion=criterion,
            kind=kind,
            num_pairs=count.total(),
            num_accepted=count["accepted"],
            num_unreadable=count["unreadable"],
        )


def known_pairs(leaves: Sequence[Leaf], rng: random.Random) -> Iterator[_Known]:
    """Good pairs and corrupted ones, for each criterion that the leaves' branches are judged by."""
    knowledge = [leaf for leaf in leaves if leaf.branch == "knowledge"]
    skills = [leaf for leaf in leaves if leaf.branch != "knowledge"]
    for leaf, seed in _drawn(knowledge, rng):
        other = _other_leaf_seed(leaf, leaves, rng)
        # Without its passage a seed cannot be known to be faithful.
        if seed.context:
            yield _Known("faithful", GOOD, leaf, seed)
            for kind, corrupted in _corrupted(leaf, seed, other, rng):
                yield _Known("faithful", kind, leaf, corrupted)
        yield _Known("relevant", GOOD, leaf, seed)
        about_text = replace(seed, question="What does the passage above say about this?")
        yield _Known("relevant", "leans on its passage", leaf, about_text)
    for leaf, seed in _drawn(skills, rng):
        other = _other_leaf_seed(leaf, skills, rng)
        yield _Known("fit", GOOD, leaf, seed)
        if other is not None:
            moved = replace(seed, question=other.question)
            yield _Known("fit", "another leaf's question", leaf, moved)
        yield _Known("answer", GOOD, leaf, seed)
        for kind, corrupted in _corrupted(leaf, seed, other, rng):
            yield _Known("answer", kind, leaf, corrupted)


def reliability(scores: Iterable[JudgeScore]) -> list[Reliability]:
    """Precision and recall by criterion, where there are enough pairs of either sort."""
    good: Counter[str] = Counter()
    bad: Counter[str] = Counter()
    kept: Counter[tuple[str, bool]] = Counter()
    for score in scores:
        is_good = score.kind == GOOD
        (good if is_good else bad)[score.criterion] += score.num_pairs
        kept[score.criterion, is_good] += score.num_accepted
    found = []
    for criterion in STAGE_OF_CRITERION:
        if min(good[criterion], bad[criterion]) < LEAST_PAIRS:
            continue
        recall = kept[criterion, True] / good[criterion]
        wrongly = kept[criterion, False] / bad[criterion]
        precision = recall / (recall + wrongly) if recall else 0.0
        num_pairs = good[criterion] + bad[criterion]
        found.append(Reliability(criterion, precision, recall, num_pairs))
    return found


def check_floor(scores: Iterable[JudgeScore], config: GenerateConfig, judge_key: str) -> None:
    """Raises TeacherError where a judge is worse than the recipe's floor, by any criterion."""
    if config.judge_floor is None:
        return
    for criterion, precision, recall, num_pairs in reliability(scores):
        if min(precision, recall) < config.judge_floor:
            raise TeacherError(
                f"the judge {judge_key} is below `generate.judge_floor` = {config.judge_floor:g}: "
                f"by {criterion!r} its precision is {precision:.2f} and its recall {recall:.2f} on "
                f"{num_pairs} known pairs; see `feldspar calibrate`, then take another judge, mend "
                f"{STAGE_OF_CRITERION[criterion]}{PROMPT_SUFFIX}, or lower the floor"
            )


def _drawn(leaves: Sequence[Leaf], rng: random.Random) -> list[tuple[Leaf, Seed]]:
    """Seeds of as many leaves as there are room for, some of each."""
    shuffled = [(leaf, rng.sample(leaf.seeds, len(leaf.seeds))) for leaf in leaves]
    most = max((len(seeds) for _, seeds in shuffled), default=0)
    turns = [(leaf, s[turn]) for turn in range(most) for leaf, s in shuffled if turn < len(s)]
    return turns[:SEEDS_PER_BRANCH]


def _corrupted(
    leaf: Leaf, seed: Seed, other: Seed | None, rng: random.Random
) -> Iterator[tuple[str, Seed]]:
    """The same question with an answer that is wrong, one way after another."""
    same = normalise(seed.answer)
    answers = [s.answer for s in leaf.seeds if normalise(s.answer) != same]
    # Another answer to another question of the leaf: right in form, wrong in what it says.
    if answers:
        yield "wrong answer", replace(seed, answer=rng.choice(answers))
    if other is not None and normalise(other.answer) != same:
        yield "another leaf's answer", replace(seed, answer=other.answer)
        claim = f"{seed.answer.rstrip()} Besides, {_first_line(other)}"
        yield "unsupported claim", replace(seed, answer=claim)
    words = seed.answer.split()
    if len(words) >= 4:
        yield "truncated", replace(seed, answer=" ".join(words[: len(words) // 2]))


def _first_line(seed: Seed) -> str:
    return seed.answer.strip().splitlines()[0]


def _other_leaf_seed(leaf: Leaf, leaves: Sequence[Leaf], rng: random.Random) -> Seed | None:
    others = [other for other in leaves if other.path != leaf.path and other.seeds]
    return rng.choice(rng.choice(others).seeds) if others else None


def calibrate_in_run(
    workspace: Workspace,
    leaves: Iterable[Leaf],
    config: GenerateConfig,
    *,
    judge: Teacher,
    seed: int,
) -> Iterator[JudgeScore]:
    """`calibrate` as a step."""
    return calibrate(leaves, config, judge=judge, seed=seed, progress=workspace.progress)


CALIBRATION_STEP = Step("calibration", calibrate_in_run, version=1)


async def _judge_all(
    pairs: Sequence[_Known], writers: Writers
) -> AsyncGenerator[tuple[_Known, str], None]:
    async def judge(known: _Known) -> tuple[_Known, str]:
        return known, await _judge(known, writers)

    stream = in_order(pairs, judge, lambda: max_requests(writers))
    async with writers.judge_teacher, aclosing(stream):
        async for judged in stream:
            yield judged


async def _judge(known: _Known, writers: Writers) -> str:
    """`accepted`, `rejected` or `unreadable`."""
    draft = _draft(known)
    try:
        await writers.judge(STAGE_OF_CRITERION[known.criterion], draft)
    except Rejected as rejected:
        if rejected.reason.startswith("budget:"):
            raise TeacherError(
                "the budget does not cover the judgments of a calibration; raise generate.budget, "
                "or leave generate.judge_floor out"
            ) from rejected
        is_unread = rejected.reason.startswith(("judge: unreadable", "judge: refused"))
        return "unreadable" if is_unread else "rejected"
    return "accepted"


def _draft(known: _Known) -> Draft:
    """The pair as a run would show it; its own seed is not among the examples."""
    leaf, seed = known.leaf, known.seed
    examples = tuple(s for s in leaf.seeds if s.id != seed.id)[:3]
    chunk = None
    if leaf.branch == "knowledge" and seed.context:
        chunk = Chunk(id="", document="", text=seed.context, num_tokens=0)
    request = SampleRequest(leaf=leaf, seeds=examples, count=1, draw=0, chunk=chunk)
    context = None if leaf.branch == "knowledge" else seed.context
    return Draft(
        request=request, index=0, question=seed.question, answer=seed.answer, context=context
    )


def _by_criterion(item: tuple[tuple[str, str], object]) -> tuple[int, bool, str]:
    criterion, kind = item[0]
    criteria: list[str] = list(STAGE_OF_CRITERION)
    return criteria.index(criterion), kind != GOOD, kind
