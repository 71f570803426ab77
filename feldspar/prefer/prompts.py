"""Which questions are asked in preference tuning."""

import logging
import random
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from feldspar.config import PreferConfig
from feldspar.errors import RecipeError
from feldspar.records import Message, Prompt, Sample, Score, user_turn
from feldspar.steps import Step

log = logging.getLogger(__name__)

HELD_OUT_SHARE = 0.1
"""Part of the drawn prompts that is never tuned on: the policy's reward is measured there."""
MAX_HELD_OUT = 256
HELD_OUT_ANSWERS = 4
"""Answers drawn per held-out prompt."""


class Drawn(NamedTuple):
    """Prompts of a tuning."""

    tuned: list[Prompt]
    held_out: list[Prompt]


def prompts_of(samples: Iterable[Sample], config: PreferConfig) -> Iterator[Prompt]:
    """The questions of kept samples of the recipe's branches, each once."""
    seen: set[str] = set()
    for sample in samples:
        is_asked = sample.is_kept and sample.kind != "document"
        if is_asked and sample.branch in config.branches:
            question = user_turn(sample.question, sample.context)
            if question not in seen:
                seen.add(question)
                message = Message(role="user", content=question)
                yield Prompt(id=sample.id, source=sample.leaf, messages=(message,))


PROMPTS_STEP = Step.pure("prompts", prompts_of, version=1)


def with_headroom(
    prompts: Iterable[Prompt], scores: Sequence[Score], headroom: float
) -> list[Prompt]:
    """The prompts of leaves whose exam accuracy is below `headroom`, and of leaves without an exam.

    Where no leaf is, all of them, with a warning.
    """
    given = list(prompts)
    known = {s.leaf for s in scores if s.metric == "accuracy" and s.leaf and s.value >= headroom}
    kept = [prompt for prompt in given if prompt.source not in known]
    if kept or not given:
        return kept
    log.warning(
        "every leaf's exam is at %.2f or above before preference tuning (prefer.headroom), so all "
        "are asked of; expect many prompts with equal rewards", headroom,
    )  # fmt: skip
    return given


class RoundPrompts(NamedTuple):
    """Prompts of one round, and how many of them an earlier one asked."""

    prompts: list[Prompt]
    num_again: int


def prompts_of_round(
    tuned: Sequence[Prompt], number: int, config: PreferConfig, seed: int
) -> RoundPrompts:
    """Which of the prompts that were drawn to tune on round `number`, from 1, puts.

    Any run of these is uniform over sources, so new ones are taken as they lie and earlier ones at
    random.
    """
    wanted = min(config.round_prompts or len(tuned), len(tuned))
    if config.round_prompts is None or number == 1:
        return RoundPrompts(list(tuned[:wanted]), 0)
    num_new = wanted - round(config.top_up * wanted)
    start = min(len(tuned), wanted + (number - 2) * num_new)
    new = tuned[start : start + num_new]
    again = random.Random(f"top-up {seed} {number}").sample(tuned[:start], wanted - len(new))
    return RoundPrompts([*new, *again], len(again))


def draw_prompts(prompts: Iterable[Prompt], num_prompts: int, seed: int) -> Drawn:
    """Draw without replacement, each time from a source that is picked uniformly (the card's rule),
    then set some aside. The same whatever order the prompts come in.

    Raises RecipeError where there are too few to tune on and to measure on.
    """
    rng = random.Random(f"prompts {seed}")
    by_source: dict[str, list[Prompt]] = defaultdict(list)
    for prompt in sorted(prompts, key=lambda p: (p.source, p.id)):
        by_source[prompt.source].append(prompt)
    for rest in by_source.values():
        rng.shuffle(rest)
    sources = sorted(by_source)
    drawn: list[Prompt] = []
    while sources and len(drawn) < num_prompts:
        source = rng.choice(sources)
        drawn.append(by_source[source].pop())
        if not by_source[source]:
            sources.remove(source)
    num_held_out = min(MAX_HELD_OUT, max(1, round(len(drawn) * HELD_OUT_SHARE)))
    if len(drawn) <= num_held_out:
        raise RecipeError(
            f"preference tuning needs at least 2 prompts, got {len(drawn)}: prefer.branches names "
            "branches with no more kept samples; the funnel in the report says why"
        )
    # Drawing was uniform over sources at every moment, so any part of it is.
    return Drawn(tuned=drawn[num_held_out:], held_out=drawn[:num_held_out])
