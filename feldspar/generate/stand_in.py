"""What a taxonomy that is not there yet will cost: a plain leaf of each branch, times a volume."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from feldspar.config import GenerateConfig
from feldspar.generate.estimate import estimate, expected_samples, expected_texts, expected_tokens
from feldspar.records import BRANCHES, Branch, Chunk, Estimate, Leaf, Seed

_QUESTION = "What would somebody who wants to know this ask of it?".ljust(80, "?")
_ANSWER = "a sentence or two that say it " * 10
_PASSAGE = "a passage of a document that is as long as most of them are " * 27
"""About 400 tokens, as `taxonomy.chunk_tokens` has it."""
_NUM_SEEDS = 5


class Volume(NamedTuple):
    """Samples to be written, as far as they can be estimated without a taxonomy."""

    samples: dict[Branch, int]
    texts: dict[Branch, int]
    """Of the samples."""
    tokens: int
    """Of all samples together."""
    estimates: list[Estimate]
    """Of the step `samples`; exams need leaves."""


def foresee_volume(wanted: Mapping[Branch, int], config: GenerateConfig, seed: int = 1) -> Volume:
    """Calls, tokens and disk of so many samples of each branch, by a leaf like many.

    Seeds of 20 and 75 tokens, and passages of 400.
    """
    stages: dict[str, Estimate] = {}
    texts: dict[Branch, int] = {}
    tokens = 0.0
    for branch in BRANCHES:
        leaves = [_leaf(branch)]
        num_samples = expected_samples(leaves, config, seed)[branch]
        if not wanted.get(branch) or not num_samples:
            continue
        times = wanted[branch] / num_samples
        texts[branch] = round(times * expected_texts(leaves, config, seed)[branch])
        tokens += times * expected_tokens(leaves, config, seed)[branch]
        for one in estimate(leaves, config, seed):
            if one.step == "samples":
                stages[one.stage] = _sum([*filter(None, [stages.get(one.stage)])], one, times)
    samples = {branch: wanted.get(branch, 0) for branch in BRANCHES}
    return Volume(samples, texts, round(tokens), list(stages.values()))


def _sum(before: Sequence[Estimate], more: Estimate, times: float) -> Estimate:
    fields = ("calls", "prompt_tokens", "completion_tokens", "disk_bytes")
    scaled = {name: round(getattr(more, name) * times) for name in fields}
    for one in before:
        scaled = {name: number + getattr(one, name) for name, number in scaled.items()}
    return more._replace(**scaled)


def _leaf(branch: Branch) -> Leaf:
    seeds = tuple(
        Seed(id=f"{branch}{number}", question=_QUESTION, answer=_ANSWER)
        for number in range(_NUM_SEEDS)
    )
    chunk = Chunk(id=branch, document="any", text=_PASSAGE, num_tokens=400)
    return Leaf(
        path=f"{branch}/any",
        branch=branch,
        task_description="Something to be learned.",
        seeds=seeds,
        chunks=(chunk,) if branch == "knowledge" else (),
        domain="any",
    )
