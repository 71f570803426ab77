"""Whether the reward prefers what people preferred: stored answers, chosen and rejected (pairs.py).

Beside the log ratio stand controls: the aligned model's log-probability alone, without a
reference, which shorter answers win; the shorter answer; and a scalar reward model, where there is
one.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Literal, NamedTuple

from feldspar.config import PreferConfig, StudentConfig
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
from feldspar.prefer.reward_bench import TIES, Rewarded, share_right
from feldspar.prefer.reward_model import model_rewards
from feldspar.progress import SILENT, Progress
from feldspar.records import Interval, Message
from feldspar.student.scoring.log_probs import AnswerLogProb, AnswerRow, answer_trees

log = logging.getLogger(__name__)

ALL = "all"
By = Literal["log ratio", "without reference", "shorter", "reward model"]


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
    found: list[dict[tuple[int, int], AnswerLogProb]] = []
    for role in ROLES:
        scorer = open_scorer(role, models, student, log_folder)
        try:
            kept = _read_by(scorer, kept)
            rows = rows_of(kept)
            found.append(dict(zip(_keys(kept), score_answers(scorer, rows, progress), strict=True)))
        finally:
            close_scorer(scorer)
            del scorer
        free_memory()
    if len(kept) < len(pairs):
        log.warning(
            "%d of %d pairs are longer than the models read and are left out",
            len(pairs) - len(kept), len(pairs),
        )  # fmt: skip
    scored = [_Scored(found[0][key], found[1][key]) for key in _keys(kept)]
    ways: dict[By, Callable[[_Scored], float]] = {
        "log ratio": lambda s: log_ratio(s.aligned, s.base, config.normalise),
        "without reference": lambda s: log_ratio(
            s.aligned, AnswerLogProb(0.0, 0), config.normalise
        ),
        "shorter": lambda s: -s.aligned.num_tokens,
    }
    rewards = {by: _by_pair(kept, [way(one) for one in scored]) for by, way in ways.items()}
    if config.reward_model is not None:
        found_by_model = model_rewards(config.reward_model, rows_of(kept), student, progress)
        rewards["reward model"] = _by_pair(kept, found_by_model)
    return list(_agreements(kept, rewards))


def rows_of(pairs: Sequence[StoredPair]) -> list[AnswerRow]:
    """Every answer of every pair, in order."""
    return [row for pair in pairs for row in _rows(pair)]


def _by_pair(pairs: Sequence[StoredPair], values: Iterable[float]) -> list[list[float]]:
    left = iter(values)
    return [list(islice(left, len(pair.answers))) for pair in pairs]


def _rows(pair: StoredPair) -> list[AnswerRow]:
    messages = (Message(role="user", content=pair.prompt),)
    return [AnswerRow(messages, answer) for answer in pair.answers]


def _keys(pairs: Sequence[StoredPair]) -> list[tuple[int, int]]:
    """Of each answer: whose it is, and its place."""
    return [(id(pair), place) for pair in pairs for place in range(len(pair.answers))]


def _read_by(scorer: Scorer, pairs: Sequence[StoredPair]) -> list[StoredPair]:
    """Those whose answers the model reads whole. Raises RecipeError where there are none."""
    longest = longest_read(scorer)
    kept = [
        pair
        for pair in pairs
        for (tree,) in [answer_trees(scorer, _rows(pair))]
        if len(tree.prompt) + max(map(len, tree.continuations)) <= longest
    ]
    if not kept:
        raise RecipeError(
            f"all pairs are longer than the {longest:.0f} tokens that {name_of(scorer)} "
            "reads; name shorter pairs, or models that read more"
        )
    return kept


def _agreements(
    pairs: Sequence[StoredPair], rewards: Mapping[By, Sequence[Sequence[float]]]
) -> Iterator[Agreement]:
    """`rewards`: by each way, of every answer of every pair."""
    subsets = list(dict.fromkeys(pair.subset for pair in pairs))
    for subset in [*subsets, ALL] if len(subsets) > 1 or subsets[0] else [ALL]:
        of_subset = [i for i, pair in enumerate(pairs) if subset in (ALL, pair.subset)]
        for by, values in rewards.items():
            rewarded = [Rewarded(pairs[i], values[i]) for i in of_subset]
            share, interval = share_right(rewarded, is_ties=subset == TIES)
            yield Agreement(subset, by, share, interval, len(rewarded))
