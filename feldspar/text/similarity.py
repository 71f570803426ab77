"""How alike texts are: ROUGE-L over words, and an index that finds the likest of many.

The index codes each word as one character, so that rapidfuzz compares millions of pairs a second.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Hashable, Sequence
from typing import NamedTuple

from rapidfuzz import process
from rapidfuzz.distance import Indel

from feldspar.text.words import normalise

FIRST_CODE = 0x10000
"""Words are coded from here upwards, past all surrogates."""
NUM_CODES = 0x110000 - FIRST_CODE
FEW_TEXTS = 24
"""So many are compared one by one: an index of them takes more room than they do."""


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
        places = others.candidates(coded, above)
        best = _best(coded, others.texts, places, above)
        if best is not None and places is not None:
            # Few texts have a match at all, so the earliest of equals is looked for only then.
            best = _best(coded, others.texts, sorted(places), above)
        return Match(others.keys[best.place], best.score) if best is not None else None

    def nearest(self, text: str, num: int, bucket: Hashable = None) -> list[Match]:
        """The `num` texts with the highest ROUGE-L, the likest first, none that shares no word."""
        others = self._buckets.get(bucket)
        coded = self._code(text)
        if not others or not coded:
            return []
        found = others.candidates(coded, 0.0)
        places = range(len(others.texts)) if found is None else sorted(found)
        best = process.extract(
            coded,
            [others.texts[place] for place in places],
            scorer=Indel.normalized_similarity,
            limit=num,
        )
        return [Match(others.keys[places[nth]], score) for _, score, nth in best if score > 0]

    def _code(self, text: str) -> str:
        codes = self._codes
        # Past a million words, far apart in time, two may share a code.
        return "".join(
            codes.setdefault(word, chr(FIRST_CODE + len(codes) % NUM_CODES))
            for word in normalise(text).split()
        )


class _Best(NamedTuple):
    place: int
    score: float


def _best(
    coded: str, texts: Sequence[str], places: Sequence[int] | None, above: float
) -> _Best | None:
    """The likest of the texts at `places`, or of all; the first of equals."""
    best = process.extractOne(
        coded,
        texts if places is None else [texts[place] for place in places],
        scorer=Indel.normalized_similarity,
        score_cutoff=above,
    )
    if best is None or best[1] <= above:
        return None
    return _Best(best[2] if places is None else places[best[2]], best[1])


class _Bucket:
    """Coded texts, and, once they are many, in which of them each word stands."""

    __slots__ = ("_places", "keys", "texts")

    def __init__(self) -> None:
        self.keys: list[str] = []
        self.texts: list[str] = []
        self._places: dict[str, list[int]] | None = None

    def add(self, key: str, coded: str) -> None:
        self.keys.append(key)
        self.texts.append(coded)
        if self._places is not None:
            self._note(len(self.texts) - 1)
        elif len(self.texts) > FEW_TEXTS:
            self._places = {}
            for place in range(len(self.texts)):
                self._note(place)

    def candidates(self, coded: str, above: float) -> list[int] | None:
        """Places of all texts that may be more alike than `above`, in any order; none is missed.
        None where that may be any.

        A score s = 2 c / (m + n) over texts of m and n >= c words needs c > s m / (2 - s) common
        words. So of any m - c + 1 words of this text one stands in the other: the rarest are taken.
        """
        if self._places is None:
            return None
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
            if len(found) > len(self.texts) / 2:
                return None
        return list(found)

    def _note(self, place: int) -> None:
        assert self._places is not None
        for word in set(self.texts[place]):
            self._places.setdefault(word, []).append(place)
