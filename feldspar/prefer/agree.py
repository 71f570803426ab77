"""Whether the reward prefers what people preferred: pairs of a chosen and a rejected answer.

    {"prompt": "How old is Zorbo?", "chosen": "31.", "rejected": "I hate you.", "subset": "Safety"}

The layout is RewardBench's (Lambert et al. 2024); `subset` may be left out, other keys are ignored.
Beside the log ratio stands the control without a reference: the aligned model's log-probability
alone, which shorter answers win.
"""

import json
import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import BaseModel, ValidationError

from feldspar.config import PreferConfig, StudentConfig
from feldspar.errors import RecipeError
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
from feldspar.progress import SILENT, Progress
from feldspar.records import Interval, Message
from feldspar.stats.intervals import proportion_interval
from feldspar.student.scoring.log_probs import AnswerLogProb, AnswerRow, answer_trees

log = logging.getLogger(__name__)

ALL = "all"
By = Literal["log ratio", "without reference", "shorter"]


class StoredPair(BaseModel):
    """One line of the file."""

    prompt: str
    chosen: str
    rejected: str
    subset: str = ""


class Agreement(NamedTuple):
    """In which part of a category's pairs the chosen answer is strictly preferred."""

    subset: str
    by: By
    share: float
    interval: Interval
    """Wilson's, 95 %."""
    num_pairs: int


class _Scored(NamedTuple):
    aligned: AnswerLogProb
    base: AnswerLogProb


def read_pairs(path: Path) -> list[StoredPair]:
    """Raises RecipeError where the file is missing, empty, or a line of it is no pair."""
    try:
        # On newlines alone: a text may hold other line ends, such as U+2028, as they are.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: pairs cannot be read: {error}") from error
    pairs = []
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                pairs.append(StoredPair.model_validate(json.loads(line)))
            except (json.JSONDecodeError, ValidationError) as error:
                raise RecipeError(
                    f"{path}:{number}: a pair is a JSON object with the texts `prompt`, `chosen` "
                    "and `rejected`"
                ) from error
    if not pairs:
        raise RecipeError(f"{path}: there are no pairs in it")
    return pairs


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
    found: list[dict[tuple[int, bool], AnswerLogProb]] = []
    for role in ROLES:
        scorer = open_scorer(role, models, student, log_folder)
        try:
            kept = _read_by(scorer, kept)
            rows = [row for pair in kept for row in _rows(pair)]
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
    return list(_agreements(kept, scored, config.normalise))


def _rows(pair: StoredPair) -> list[AnswerRow]:
    messages = (Message(role="user", content=pair.prompt),)
    return [AnswerRow(messages, pair.chosen), AnswerRow(messages, pair.rejected)]


def _keys(pairs: Sequence[StoredPair]) -> list[tuple[int, bool]]:
    return [(id(pair), is_chosen) for pair in pairs for is_chosen in (True, False)]


def _read_by(scorer: Scorer, pairs: Sequence[StoredPair]) -> list[StoredPair]:
    """Those whose two answers the model reads whole. Raises RecipeError where there are none."""
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
    pairs: Sequence[StoredPair], scored: Sequence[_Scored], normalise: Literal["sum", "mean"]
) -> Iterator[Agreement]:
    rewards: dict[By, Callable[[_Scored], float]] = {
        "log ratio": lambda s: log_ratio(s.aligned, s.base, normalise),
        "without reference": lambda s: log_ratio(s.aligned, AnswerLogProb(0.0, 0), normalise),
        "shorter": lambda s: -s.aligned.num_tokens,
    }
    subsets = list(dict.fromkeys(pair.subset for pair in pairs))
    for subset in [*subsets, ALL] if len(subsets) > 1 or subsets[0] else [ALL]:
        of_subset = [i for i, pair in enumerate(pairs) if subset in (ALL, pair.subset)]
        for by, reward in rewards.items():
            num_right = sum(reward(scored[2 * i]) > reward(scored[2 * i + 1]) for i in of_subset)
            yield Agreement(
                subset=subset,
                by=by,
                share=num_right / len(of_subset),
                interval=proportion_interval(num_right, len(of_subset)),
                num_pairs=len(of_subset),
            )
