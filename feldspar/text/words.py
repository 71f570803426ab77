"""Texts as words: what two of them share does not depend on case, punctuation, or line breaks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

# A word, one character of a script that is written without spaces, or a sign that changes what a
# formula says. A hyphen or a slash counts only as a sign between numbers or blanks.
_WORD = re.compile(
    r"\d+(?:[.,]\d+)*|[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff]|[^\W_]+(?:['\u2019][^\W_]+)*"
    r"|(?<=[\d\s])[-*/](?=[\d\s])|[+=<>%^\u00d7\u00f7\u2212$\u20ac\u00a3]"
)

# Words that may open a sentence with a capital and are no names.
_OPENERS_TEXT = (
    "a an and are as at be but by calculate can choose classify compare complete compute consider "
    "convert could count create define describe did do does draft each edit every explain extract "
    "find for from generate give had has have he her here his how i if imagine in into is it its "
    "list make may might my name no of on or our pick please provide put rank read rewrite say "
    "select she should show so solve some sort state suggest sum summarize take tell that the "
    "their then there these they this those to translate turn under use was we were what when "
    "where which who whom whose why will with would write yes you your"
)
_OPENERS = frozenset(_OPENERS_TEXT.split())


def split_words(text: str) -> list[str]:
    """Words, numbers, and signs, in their own case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text))


def normalise(text: str) -> str:
    """The words in lower case with single blanks between: equal for texts that say the same.

    >>> normalise("What is  12 + 5?\\n")
    'what is 12 + 5'
    """
    return " ".join(word.casefold() for word in split_words(text))


def numbers_and_names(text: str) -> tuple[str, ...]:
    """What tells two questions of one form apart, sorted: numbers and words with a capital.

    The word that opens a sentence counts unless it is a common opener or stands elsewhere in lower
    case. In a script without capitals every word counts, since any may be a name.

    >>> numbers_and_names("How old will Zorbo be in 3 years?")
    ('3', 'zorbo')
    """
    words = split_words(text)
    lower = {word for word in words if word.islower()}
    return tuple(sorted(_telling(words, lower)))


def ngrams(words: Sequence[str], size: int) -> Iterator[str]:
    """Every run of `size` words, joined by blanks; none where there are fewer."""
    for start in range(len(words) - size + 1):
        yield " ".join(words[start : start + size])


def _telling(words: Sequence[str], lower: set[str]) -> Iterator[str]:
    for word in words:
        folded = word.casefold()
        is_without_case = word.lower() == word.upper()
        is_capital = word[0].isupper() and folded not in _OPENERS and folded not in lower
        if is_without_case or is_capital:
            yield folded
