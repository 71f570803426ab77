"""Of each prompt's candidates, the best by reward, and for the control one at random."""

import random
from array import array
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from feldspar.records import Candidate

EQUAL_WITHIN = 1e-4
"""In nats: what batching alone may change in a sum of log-probabilities."""


class Pick(NamedTuple):
    """What one prompt gives to tune on."""

    best: Candidate
    random: Candidate
    other: Candidate | None = None
    """Another answer than the best, at random, of less reward; None where there is none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a round's candidates look like. Rewards in nats, lengths in tokens of the policy."""

    best_reward: float
    """Mean over prompts of the best of N."""
    mean_reward: float
    """Mean over all candidates: the policy's own."""
    random_reward: float
    """Mean of what the control is tuned on."""
    best_tokens: float
    mean_tokens: float
    length_correlation: float
    """Pearson's r of reward and length over all candidates: a sum drifts with length."""
    distinct_share: float
    """Different texts among a prompt's candidates, over N; mean over prompts."""
    equal_share: float
    """Prompts whose rewards are all equal, which are dropped."""
    unfinished_share: float
    """Candidates that did not come to their end."""
    num_prompts: int
    num_picked: int


class Survey(NamedTuple):
    picks: list[Pick]
    figures: Figures


def survey(candidates: Iterable[Candidate], seed: int) -> Survey:
    """Go once through candidates that lie together by prompt: picks, and what was there.

    Only answers that came to their end are picked: tuning puts a stop token after each, and one
    that was cut off would teach to stop in mid-sentence. A prompt without one, or whose rewards
    are all equal, is dropped. Of equal rewards the first drawn wins.
    """
    picks: list[Pick] = []
    rewards, lengths = array("d"), array("d")
    num_prompts = num_equal = num_ended = 0
    distinct = 0.0
    for prompt, group in groupby(candidates, key=lambda candidate: candidate.prompt):
        drawn = list(group)
        num_prompts += 1
        rewards.extend(candidate.reward for candidate in drawn)
        lengths.extend(candidate.num_tokens for candidate in drawn)
        ended = [candidate for candidate in drawn if candidate.ended]
        num_ended += len(ended)
        distinct += len({candidate.text for candidate in drawn}) / len(drawn)
        if is_all_equal(drawn):
            num_equal += 1
        elif ended:
            picks.append(_pick(ended, f"{seed} {prompt}"))
    figures = Figures(
        best_reward=_mean([p.best.reward for p in picks]),
        random_reward=_mean([p.random.reward for p in picks]),
        mean_reward=_mean(rewards),
        best_tokens=_mean([p.best.num_tokens for p in picks]),
        mean_tokens=_mean(lengths),
        length_correlation=_correlation(rewards, lengths),
        distinct_share=distinct / num_prompts,
        equal_share=num_equal / num_prompts,
        unfinished_share=1 - num_ended / len(rewards),
        num_prompts=num_prompts,
        num_picked=len(picks),
    )
    return Survey(picks, figures)


def mean_by_prompt(candidates: Iterable[Candidate]) -> dict[str, float]:
    """Mean reward of each prompt's candidates: what the policy says, not its best."""
    groups = groupby(candidates, key=lambda candidate: candidate.prompt)
    return {prompt: _mean([c.reward for c in group]) for prompt, group in groups}


def is_all_equal(drawn: Sequence[Candidate]) -> bool:
    """Whether the rewards give no choice: equal to within the rounding of their sums."""
    rewards = [candidate.reward for candidate in drawn]
    return max(rewards) - min(rewards) <= EQUAL_WITHIN


def _pick(ended: Sequence[Candidate], key: str) -> Pick:
    best = max(ended, key=lambda candidate: (candidate.reward, -candidate.draw))
    others = [c for c in ended if c.reward < best.reward - EQUAL_WITHIN]
    return Pick(
        best=best,
        random=random.Random(f"control {key}").choice(ended),
        other=random.Random(f"other {key}").choice(others) if others else None,
    )


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's r; 0 where one of the two does not vary."""
    x, y = (np.asarray(values) - np.mean(values) for values in (first, second))
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm > 0 else 0.0
