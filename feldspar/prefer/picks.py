"""Once through a round's candidates: the rows that its method makes of them, and what was there."""

from array import array
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

import numpy as np

from feldspar.prefer.methods.method import (
    EQUAL_WITHIN,
    PreferenceMethod,
    PromptRows,
    any_of,
    best_of,
)
from feldspar.records import Candidate


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What a round's candidates look like. Rewards in nats, lengths in tokens of the policy."""

    best_reward: float
    """Mean over prompts of the best of N."""
    mean_reward: float
    """Mean over all candidates: the policy's own."""
    random_reward: float
    """Mean of one finished answer a prompt, at random."""
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
    domains: Mapping[str, int]
    """Prompts by the domain whose prompt the reward pair read; empty where it read none."""


class Survey(NamedTuple):
    picks: list[PromptRows]
    """Of each prompt that gives a choice."""
    figures: Figures


def survey(candidates: Iterable[Candidate], method: PreferenceMethod, seed: int) -> Survey:
    """Go once through candidates that lie together by prompt.

    Only answers that came to their end are tuned on: tuning puts a stop token after each, and one
    that was cut off would teach to stop in mid-sentence. A prompt without one, or whose rewards
    are all equal, is dropped.
    """
    picks: list[PromptRows] = []
    best: list[Candidate] = []
    at_random: list[Candidate] = []
    rewards, lengths = array("d"), array("d")
    num_prompts = num_equal = num_ended = 0
    distinct = 0.0
    domains: Counter[str] = Counter()
    for prompt, group in groupby(candidates, key=lambda candidate: candidate.prompt):
        drawn, key = list(group), f"{seed} {prompt}"
        num_prompts += 1
        domains[drawn[0].domain] += 1
        rewards.extend(candidate.reward for candidate in drawn)
        lengths.extend(candidate.num_tokens for candidate in drawn)
        ended = [candidate for candidate in drawn if candidate.ended]
        num_ended += len(ended)
        distinct += len({candidate.text for candidate in drawn}) / len(drawn)
        if is_all_equal(drawn):
            num_equal += 1
        elif ended and (rows := method.rows(ended, key)).tuned:
            best.append(best_of(ended))
            at_random.append(any_of(ended, key))
            picks.append(rows)
    figures = Figures(
        best_reward=_mean([c.reward for c in best]),
        random_reward=_mean([c.reward for c in at_random]),
        mean_reward=_mean(rewards),
        best_tokens=_mean([c.num_tokens for c in best]),
        mean_tokens=_mean(lengths),
        length_correlation=_correlation(rewards, lengths),
        distinct_share=distinct / num_prompts,
        equal_share=num_equal / num_prompts,
        unfinished_share=1 - num_ended / len(rewards),
        num_prompts=num_prompts,
        num_picked=len(picks),
        domains={} if set(domains) == {""} else dict(domains),
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


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def _correlation(first: Sequence[float], second: Sequence[float]) -> float:
    """Pearson's r; 0 where one of the two does not vary."""
    x, y = (np.asarray(values) - np.mean(values) for values in (first, second))
    norm = float(np.linalg.norm(x) * np.linalg.norm(y))
    return float(x @ y) / norm if norm > 0 else 0.0
