"""How alike texts are: ROUGE-L over words, and an index that finds the likest of many.

The index codes each word as one character, so that rapidfuzz compares millions of pairs a second.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable
from typing import NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import Indel

from feldspar.text.words import normalise

FIRST_CODE = 0x10000
"""Words are coded from here upwards, past all surrogates."""


class Match(NamedTuple):
    """The likest text in an index."""

    key: str
    score: float
    """ROUGE-L, 0 to 1."""


def rouge_l(one: str, other: str) -> float:
    """F-measure of the longest common subsequence of words, 0 to 1 (Lin 2004).

    >>> round(rouge_l("What is the home of Zorbo?", "What is the home of Mirad?"), 2)
    0.83
    """
    # 1 - Indel distance / (m + n) is 2 LCS / (m + n). Two empty texts share nothing.
    words, others = normalise(one).split(), normalise(other).split()
    return Indel.normalized_similarity(words, others) if words or others else 0.0


class SimilarTexts:
    """Texts under a key each; only those put under an equal `bucket` are ever compared."""

    def __init__(self) -> None:
        self._codes: dict[str, str] = {}
        self._buckets: defaultdict[Hashable, dict[str, str]] = defaultdict(dict)

    def add(self, key: str, text: str, bucket: Hashable = None) -> None:
        self._buckets[bucket][key] = self._code(text)

    def likest(self, text: str, above: float, bucket: Hashable = None) -> Match | None:
        """The text with the highest ROUGE-L greater than `above`; the earliest of equals."""
        others = self._buckets.get(bucket)
        coded = self._code(text)
        if not others or not coded:
            return None
        best = process.extractOne(
            coded, others, scorer=Indel.normalized_similarity, score_cutoff=above
        )
        if best is None or best[1] <= above:
            return None
        return Match(best[2], best[1])

    def _code(self, text: str) -> str:
        codes = self._codes
        return "".join(
            codes.setdefault(word, chr(FIRST_CODE + len(codes))) for word in normalise(text).split()
        )
