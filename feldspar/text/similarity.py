"""How alike texts are: ROUGE-L over words, and an index that finds the likest of many.

The index codes each word as one character, so that rapidfuzz compares millions of pairs a second.
"""

from __future__ import annotations

from collections import Counter, defaultdict
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
        self._buckets: defaultdict[Hashable, _Bucket] = defaultdict(_Bucket)

    def add(self, key: str, text: str, bucket: Hashable = None) -> None:
        self._buckets[bucket].add(key, self._code(text))

    def likest(self, text: str, above: float, bucket: Hashable = None) -> Match | None:
        """The text with the highest ROUGE-L greater than `above`; the earliest of equals."""
        others = self._buckets.get(bucket)
        coded = self._code(text)
        if not others or not coded:
            return None
        best = process.extractOne(
            coded,
            others.candidates(coded, above),
            scorer=Indel.normalized_similarity,
            score_cutoff=above,
        )
        if best is None or best[1] <= above:
            return None
        return Match(others.keys[best[2]], best[1])

    def nearest(self, text: str, num: int, bucket: Hashable = None) -> list[Match]:
        """The `num` texts with the highest ROUGE-L, the likest first, none that shares no word."""
        others = self._buckets.get(bucket)
        coded = self._code(text)
        if not others or not coded:
            return []
        best = process.extract(
            coded,
            others.candidates(coded, 0.0),
            scorer=Indel.normalized_similarity,
            limit=num,
        )
        return [Match(others.keys[place], score) for _, score, place in best if score > 0]

    def _code(self, text: str) -> str:
        codes = self._codes
        return "".join(
            codes.setdefault(word, chr(FIRST_CODE + len(codes))) for word in normalise(text).split()
        )


class _Bucket:
    """Coded texts, and in which of them each word stands."""

    def __init__(self) -> None:
        self.keys: list[str] = []
        self._texts: dict[int, str] = {}
        self._places: defaultdict[str, list[int]] = defaultdict(list)

    def add(self, key: str, coded: str) -> None:
        place = len(self.keys)
        self.keys.append(key)
        self._texts[place] = coded
        for word in set(coded):
            self._places[word].append(place)

    def candidates(self, coded: str, above: float) -> dict[int, str]:
        """All texts that may be more alike than `above`, the earliest first; none is missed.

        A score s = 2 c / (m + n) over texts of m and n >= c words needs c > s m / (2 - s) common
        words. So of any m - c + 1 words of this text one stands in the other: the rarest are taken.
        """
        least_common = int(above * len(coded) / (2 - above)) + 1
        num_left = len(coded) - least_common + 1
        found: set[int] = set()
        for _, word, num_times in sorted(
            (len(self._places.get(word, ())), word, num) for word, num in Counter(coded).items()
        ):
            if num_left <= 0:
                break
            num_left -= num_times
            found.update(self._places.get(word, ()))
            if len(found) > len(self._texts) / 2:
                return self._texts
        return {place: self._texts[place] for place in sorted(found)}
