"""Which scored items the training data holds, and what the scores are without them.

An item is touched by a training row that shares 13 words in a row with it, or all of them where it
has fewer, or whose question is a near-duplicate with the same numbers and names.
"""

from __future__ import annotations

import dataclasses
import statistics
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from feldspar.evaluate.benchmarks.scores import BenchmarkItem
from feldspar.evaluate.general.questions import EXAM, item_of
from feldspar.evaluate.general.scores import KEPT
from feldspar.evaluate.mt_bench.files import MTBench
from feldspar.evaluate.mt_bench.judging import Rated
from feldspar.evaluate.mt_bench.scores import EXAM as MT_BENCH
from feldspar.evaluate.mt_bench.scores import mt_bench_scores
from feldspar.evaluate.scores import answers_paths, scores_of
from feldspar.files import files_below
from feldspar.records import (
    UNTOUCHED,
    Answer,
    Conversation,
    ExamItem,
    Phase,
    Score,
    Touched,
    user_turn,
)
from feldspar.runs import Rows, read_rows
from feldspar.stats.intervals import proportion_interval
from feldspar.steps import Step
from feldspar.text.similarity import SimilarTexts
from feldspar.text.words import ngrams, normalise, numbers_and_names, run_length

NUM_WORDS = 13
"""In a row: GPT-3's (Brown et al. 2020, appendix C)."""
LEAST_WORDS = 8
"""A shorter question is only touched by a near-duplicate: its words may meet by chance."""
NEAR_DUPLICATE = 0.9
"""ROUGE-L of two questions that are one."""


class ScoredText(NamedTuple):
    """A scored item as a text to look for."""

    item: str
    exam: str
    text: str


def find_touched(
    phases: Iterable[Phase],
    exams: Iterable[ExamItem],
    benchmarks: Rows[Score] | None = None,
    mt_bench: MTBench | None = None,
    general: Sequence[ExamItem] = (),
) -> Iterator[Touched]:
    """Each touched item once, by the first training row that touches it.

    `general`: the wordings of the general-knowledge exam; either of them touches its item.
    """
    asked = [
        *_of_exams(exams),
        *_of_benchmarks(benchmarks),
        *_of_mt_bench(mt_bench),
        *(ScoredText(item_of(one.id), one.exam, one.question) for one in general),
    ]
    index = _Index(asked)
    seen: set[tuple[str, str]] = set()
    paths = dict.fromkeys((s.path, s.name) for phase in phases for s in phase.sources)
    for path, source in paths:
        for row in read_rows(Path(path), Conversation):
            for one, how in index.touches(row):
                if (one.exam, one.item) not in seen:
                    seen.add((one.exam, one.item))
                    yield Touched(
                        item=one.item,
                        exam=one.exam,
                        question=one.text,
                        how=how,
                        source=source,
                        row=row.id,
                    )


TOUCHED_STEP = Step.pure("touched", find_touched, version=2)


def scores_without(
    touched: Iterable[Touched],
    exams: Iterable[ExamItem],
    scores: Iterable[Score],
    published: Sequence[Rows[Score]],
    *,
    num_resamples: int,
    seed: int,
) -> Iterator[Score]:
    """The scores of what has touched items, over the others alone, as `EXAM: untouched`."""
    by_exam: defaultdict[str, set[str]] = defaultdict(set)
    for one in touched:
        by_exam[one.exam].add(one.item)
    reported = [item for item in exams if item.use == "report"]
    untouched = [item for item in reported if item.id not in by_exam.get(item.exam, ())]
    is_touched = len(untouched) < len(reported)
    for name, path in answers_paths(scores).items() if is_touched else ():
        answers = list(read_rows(path, Answer))
        whole, less = (
            scores_of(name, items, answers, num_resamples=num_resamples, seed=seed)
            for items in (reported, untouched)
        )
        sizes = {(score.exam, score.metric): score.num_items for score in whole if not score.leaf}
        for score in less:
            # Of what lost no item, and of groups of it, there is nothing to say.
            if not score.leaf and score.num_items < sizes[score.exam, score.metric]:
                yield _renamed(score)
    for rows in published:
        for score in rows:
            exam = EXAM if score.exam == KEPT else score.exam
            if ": " not in score.exam and score.answers_path and exam in by_exam:
                yield from _published_without(score, by_exam[exam], num_resamples, seed)


UNTOUCHED_STEP = Step.pure("untouched", scores_without, version=3)


class _Index:
    """Items by their runs of words, and by likeness."""

    def __init__(self, asked: Sequence[ScoredText]) -> None:
        self._grams: defaultdict[int, dict[str, list[ScoredText]]] = defaultdict(dict)
        self._similar = SimilarTexts()
        self._by_key: dict[str, ScoredText] = {}
        for number, one in enumerate(asked):
            words = normalise(one.text).split()
            size = min(len(words), run_length(words, NUM_WORDS))
            if size >= run_length(words, LEAST_WORDS):
                for gram in set(ngrams(words, size)):
                    self._grams[size].setdefault(gram, []).append(one)
            self._by_key[str(number)] = one
            self._similar.add(str(number), one.text, numbers_and_names(one.text))

    def touches(self, row: Conversation) -> Iterator[tuple[ScoredText, str]]:
        for message in row.messages:
            words = normalise(message.content).split()
            for size, known in self._grams.items():
                how = "all its words" if size < NUM_WORDS else f"{size} words in a row"
                for gram in ngrams(words, size):
                    for one in known.get(gram, ()):
                        yield one, how
            if message.role == "user":
                bucket = numbers_and_names(message.content)
                match = self._similar.likest(message.content, NEAR_DUPLICATE, bucket)
                if match is not None:
                    yield self._by_key[match.key], f"ROUGE-L {match.score:.2f}"


def _of_exams(exams: Iterable[ExamItem]) -> Iterator[ScoredText]:
    for item in exams:
        # A knowledge item's context is the document, which training is meant to show.
        context = None if item.branch == "knowledge" else item.context
        yield ScoredText(item.id, item.exam, user_turn(item.question, context))


def _of_benchmarks(benchmarks: Rows[Score] | None) -> Iterator[ScoredText]:
    first = next(iter(benchmarks), None) if benchmarks is not None else None
    if benchmarks is None or first is None:
        return
    for score in benchmarks:
        if score.checkpoint == first.checkpoint and ": " not in score.exam:
            for item in read_items(Path(score.answers_path)):
                yield ScoredText(item.id, score.exam, item.question)


def _of_mt_bench(bench: MTBench | None) -> Iterator[ScoredText]:
    for question in bench.questions if bench is not None else ():
        for turn in question.turns:
            yield ScoredText(str(question.id), MT_BENCH, turn)


def read_items(path: Path) -> Iterator[BenchmarkItem]:
    """The items of a benchmark's score: of one task's file, or of a group's folder."""
    for file in files_below(path, ".jsonl.zst") if path.is_dir() else [path]:
        yield from read_rows(file, BenchmarkItem)


def _published_without(
    score: Score, touched: set[str], num_resamples: int, seed: int
) -> Iterator[Score]:
    path = Path(score.answers_path)
    if score.exam == MT_BENCH:
        if score.metric == "rating":
            rated = [r for r in read_rows(path, Rated) if str(r.question) not in touched]
            found = mt_bench_scores(
                score.checkpoint,
                rated,
                num_resamples=num_resamples,
                seed=seed,
                settings=score.settings,
                answers_path=score.answers_path,
            )
            yield from (_renamed(s) for s in found if s.exam == MT_BENCH and s.metric == "rating")
        return
    items = [item for item in read_items(path) if item.id not in touched]
    values = [item.value for item in items if item.value is not None]
    if values and set(values) <= {0.0, 1.0}:
        yield Score(
            checkpoint=score.checkpoint,
            exam=f"{score.exam}{UNTOUCHED}",
            metric=score.metric,
            value=statistics.fmean(values),
            interval=proportion_interval(round(sum(values)), len(values)),
            num_items=len(values),
            settings=score.settings,
            answers_path=score.answers_path,
        )


def _renamed(score: Score) -> Score:
    return dataclasses.replace(score, exam=f"{score.exam}{UNTOUCHED}")
