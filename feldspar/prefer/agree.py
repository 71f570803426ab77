"""Whether the reward prefers what people preferred: stored answers, chosen and rejected (pairs.py).

Beside the log ratio stand controls: the ratio without the recipe's domain prompts, where it has
some; the aligned model's log-probability alone, without a reference, which shorter answers win; the
shorter answer; and a scalar reward model, where there is one.
"""

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from feldspar.config import PreferConfig, RewardPromptsConfig, StudentConfig
from feldspar.errors import RecipeError
from feldspar.prefer.pairs import StoredPair
from feldspar.prefer.reward import (
    ROLES,
    Scorer,
    close_scorer,
    find_pair,
    free_memory,
    log_ratio,
    longest_read,
    name_of,
    open_scorer,
    score_answers,
)
from feldspar.prefer.reward_bench import TIES, Rewarded, place_of_subset, share_right
from feldspar.prefer.reward_model import open_reward_model
from feldspar.prefer.reward_prompts import Framed, framed
from feldspar.progress import SILENT, Progress
from feldspar.records import Interval, Message
from feldspar.student.scoring.log_probs import AnswerLogProb, AnswerRow, answer_trees

log = logging.getLogger(__name__)

ALL = "all"
By = Literal[
    "log ratio", "log ratio without prompts", "without reference", "shorter", "reward model"
]


class Agreement(NamedTuple):
    """How much of a category's rows the reward gets right.

    Of a pair: the chosen answer is strictly preferred. Of one chosen answer among several: it is at
    the top, shared with none (half where two share it, as RewardBench 2 counts). Of several chosen
    ones: all are above all others.
    """

    subset: str
    by: By
    share: float
    interval: Interval
    """95 %; Wilson's, where each row is right or wrong."""
    num_pairs: int
    domain: str = ""
    """Whose prompt the reward pair read before the questions of the subset; empty for none."""


class _Scored(NamedTuple):
    aligned: AnswerLogProb
    base: AnswerLogProb


def agree(
    pairs: Sequence[StoredPair],
    config: PreferConfig,
    *,
    student: StudentConfig,
    log_folder: Path,
    progress: Progress = SILENT,
) -> list[Agreement]:
    """Agreement by category, in the order of the file, then over all; one model is in memory at a
    time. Servers that are started log to `log_folder`. Pairs longer than a model reads are left
    out with a warning: nothing is cut.

    Raises as `find_pair` and `score_answers` do.
    """
    models = find_pair(config)
    kept = list(pairs)
    # With the recipe's prompts and, where it has some, without: whether they help is the question.
    asked = (config.reward_prompts, None) if config.reward_prompts else (None,)
    found: list[list[dict[tuple[int, int], AnswerLogProb]]] = []
    for role in ROLES:
        scorer = open_scorer(role, models, student, log_folder)
        try:
            kept = _read_by(scorer, kept, config.reward_prompts)
            rows = [rows_of(kept, prompts) for prompts in asked]
            read = [score_answers(scorer, of_prompts, progress) for of_prompts in rows]
            found.append([dict(zip(_keys(kept), one, strict=True)) for one in read])
        finally:
            close_scorer(scorer)
            del scorer
        free_memory()
    if len(kept) < len(pairs):
        log.warning(
            "%d of %d pairs are longer than the models read and are left out",
            len(pairs) - len(kept), len(pairs),
        )  # fmt: skip
    scored, *bare = (
        [_Scored(aligned[key], base[key]) for key in _keys(kept)]
        for aligned, base in zip(*found, strict=True)
    )
    rewards = _rewards(kept, scored, bare, config)
    if config.has_reward_model:
        model = open_reward_model(config, student, log_folder)
        try:
            rewards["reward model"] = _by_pair(kept, model.read(rows_of(kept), progress))
        finally:
            model.close()
    return list(_agreements(kept, rewards, config.reward_prompts))


def rows_of(
    pairs: Sequence[StoredPair], prompts: RewardPromptsConfig | None = None
) -> list[AnswerRow]:
    """Every answer of every pair, in order, after the prompt of its pair's domain."""
    return [row for pair in pairs for row in _rows(pair, prompts)]


def _rewards(
    pairs: Sequence[StoredPair],
    scored: Sequence[_Scored],
    bare: Sequence[Sequence[_Scored]],
    config: PreferConfig,
) -> dict[By, list[list[float]]]:
    """By what the two models find. `bare`: what they find without prompts; of none, nothing."""
    zero = AnswerLogProb(0.0, 0)

    def ratios(of: Sequence[_Scored]) -> list[list[float]]:
        return _by_pair(pairs, [log_ratio(s.aligned, s.base, config.normalise) for s in of])

    rewards: dict[By, list[list[float]]] = {"log ratio": ratios(scored)}
    for without in bare:
        rewards["log ratio without prompts"] = ratios(without)
    alone = [log_ratio(s.aligned, zero, config.normalise) for s in scored]
    rewards["without reference"] = _by_pair(pairs, alone)
    rewards["shorter"] = _by_pair(pairs, [-s.aligned.num_tokens for s in scored])
    return rewards


def _by_pair(pairs: Sequence[StoredPair], values: Iterable[float]) -> list[list[float]]:
    left = iter(values)
    return [list(islice(left, len(pair.answers))) for pair in pairs]


def _rows(pair: StoredPair, prompts: RewardPromptsConfig | None) -> list[AnswerRow]:
    return [AnswerRow(_framed(pair, prompts).messages, answer) for answer in pair.answers]


def _framed(pair: StoredPair, prompts: RewardPromptsConfig | None) -> Framed:
    question = Message(role="user", content=pair.prompt)
    return framed((question,), place_of_subset(pair.subset), prompts)


def _keys(pairs: Sequence[StoredPair]) -> list[tuple[int, int]]:
    """Of each answer: whose it is, and its place."""
    return [(id(pair), place) for pair in pairs for place in range(len(pair.answers))]


def _read_by(
    scorer: Scorer, pairs: Sequence[StoredPair], prompts: RewardPromptsConfig | None
) -> list[StoredPair]:
    """Those whose answers the model reads whole. Raises RecipeError where there are none."""
    longest = longest_read(scorer)
    kept = [
        pair
        for pair in pairs
        for (tree,) in [answer_trees(scorer, _rows(pair, prompts))]
        if len(tree.prompt) + max(map(len, tree.continuations)) <= longest
    ]
    if not kept:
        raise RecipeError(
            f"all pairs are longer than the {longest:.0f} tokens that {name_of(scorer)} "
            "reads; name shorter pairs, or models that read more"
        )
    return kept


def _agreements(
    pairs: Sequence[StoredPair],
    rewards: Mapping[By, Sequence[Sequence[float]]],
    prompts: RewardPromptsConfig | None,
) -> Iterator[Agreement]:
    """`rewards`: by each way, of every answer of every pair."""
    subsets = list(dict.fromkeys(pair.subset for pair in pairs))
    for subset in [*subsets, ALL] if len(subsets) > 1 or subsets[0] else [ALL]:
        of_subset = [i for i, pair in enumerate(pairs) if subset in (ALL, pair.subset)]
        read = {_framed(pairs[i], prompts).domain for i in of_subset}
        domain = read.pop() if len(read) == 1 else ""
        for by, values in rewards.items():
            rewarded = [Rewarded(pairs[i], values[i]) for i in of_subset]
            share, interval = share_right(rewarded, is_ties=subset == TIES)
            is_prompted = by in ("log ratio", "without reference")
            said = domain if is_prompted else ""
            yield Agreement(subset, by, share, interval, len(rewarded), said)
