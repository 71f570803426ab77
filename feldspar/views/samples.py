"""One sample with everything it was made of: seeds, passage with what supports it, judges, and what
the same call gave besides."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NamedTuple

from feldspar.records import Leaf, Sample, Seed
from feldspar.text import rouge_l
from feldspar.views.run_files import RunFiles
from feldspar.views.sample_index import SampleIndex

NUM_NEAREST = 4
LIKE_ENOUGH = 0.2
"""ROUGE-L with the question and answer below which no sentence is marked."""
_SENTENCE = re.compile(r"[^.!?\n]+[.!?]*\s*|\n+")


class Marked(NamedTuple):
    """A passage in three parts; `supporting` is empty where no sentence is like the answer."""

    before: str
    supporting: str
    after: str


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleView:
    sample: Sample
    seeds: tuple[Seed, ...]
    passage: Marked | None
    """What it is of: its chunk, or a context that says more than that."""
    document: str
    """That the passage is the chunk of; empty for any other."""
    siblings: tuple[Sample, ...] = ()
    """Others of the same call to the teacher."""
    nearest: tuple[tuple[Sample, float], ...] = ()
    """Kept samples that are most like it, with the ROUGE-L of question and answer."""

    @property
    def num_attempts(self) -> int:
        return len(self.siblings) + 1


class SampleReader:
    """Shows samples of one run."""

    def __init__(self, run: RunFiles) -> None:
        self._leaves: dict[str, Leaf] = {leaf.path: leaf for leaf in run.leaves}

    def view(
        self, sample: Sample, index: SampleIndex | None = None, *, has_nearest: bool = False
    ) -> SampleView:
        """`index` also finds what the same call gave; with `has_nearest` what is most like it."""
        leaf = self._leaves.get(sample.leaf)
        seeds = {s.id: s for s in (*leaf.seeds, *leaf.exam_seeds)} if leaf else {}
        chunk = next((c for c in leaf.chunks if c.id == sample.chunk), None) if leaf else None
        # The context may be several passages, the chunk's one of them.
        is_more = sample.context and not (chunk and sample.context in chunk.text)
        passage = sample.context if is_more or chunk is None else chunk.text
        siblings = index.of_one_call(sample) if index else ()
        said = f"{sample.question} {sample.answer}"
        nearest = index.nearest(said, NUM_NEAREST + 1) if index and has_nearest else []
        return SampleView(
            sample=sample,
            seeds=tuple(seeds[s] for s in sample.seeds if s in seeds),
            passage=mark_support(passage, sample) if passage else None,
            document="" if is_more or chunk is None else chunk.document,
            siblings=tuple(s for s in siblings if s.id != sample.id),
            nearest=tuple(n for n in nearest if n[0].id != sample.id)[:NUM_NEAREST],
        )


def mark_support(passage: str, sample: Sample) -> Marked:
    """Mark the sentence that is likest the question and answer, by ROUGE-L."""
    said = f"{sample.question} {sample.answer}"
    spans = [m.span() for m in _SENTENCE.finditer(passage)]
    if not spans:
        return Marked(passage, "", "")
    best = max(spans, key=lambda span: rouge_l(passage[slice(*span)], said))
    if rouge_l(passage[slice(*best)], said) < LIKE_ENOUGH:
        return Marked(passage, "", "")
    return Marked(passage[: best[0]], passage[slice(*best)], passage[best[1] :])
