"""Texts as words: what two of them share does not depend on case, punctuation, or line breaks."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence

UNSPACED = r"\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
"""Kana, kanji and their iteration marks, for a character class: scripts without spaces."""
_LETTER = rf"(?:(?![{UNSPACED}])[^\W_])"
# A word, one character of a script that is written without spaces, or a sign that changes what a
# formula says. A hyphen or a slash counts only as a sign between numbers or blanks.
_WORD = re.compile(
    rf"\d+(?:[.,]\d+)*|[{UNSPACED}]|{_LETTER}+(?:['\u2019]{_LETTER}+)*"
    r"|(?<=[\d\s])[-*/](?=[\d\s])|[+=<>%^\u00d7\u00f7\u2212$\u20ac\u00a3]"
)
_UNSPACED_WORD = re.compile(f"[{UNSPACED}]")
_HIRAGANA = re.compile(r"[\u3040-\u309f]")
WORDS_OF_A_CHARACTER = 0.5
"""A word of Japanese or Chinese is about two characters long."""

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
# Spanish ones that are no English words or names.
_SPANISH_OPENERS_TEXT = (
    "cuál cuáles cuándo cuánta cuántas cuánto cuántos cómo dónde qué quién quiénes según "
    "calcula clasifica compara convierte corrige cuenta describe dime elige enumera escribe "
    "explica menciona nombra ordena redacta responde resume suma traduce"
)
# These only where another word or sign shows that the text is Spanish.
_SPANISH_WITH_MARKS_TEXT = (
    "a al así como con cuando de del desde di durante el ella ellos en entre era es está este esta "
    "esto fue hay haz la las lo los más no para pero por porque sabe si sobre son su sus también "
    "tiene un una unas unos vive y"
)
_SPANISH_OPENERS = frozenset(_SPANISH_OPENERS_TEXT.split())
_SPANISH_WITH_MARKS = frozenset(_SPANISH_WITH_MARKS_TEXT.split())


def split_words(text: str) -> list[str]:
    """Words, numbers, and signs, in their own case."""
    return _WORD.findall(unicodedata.normalize("NFKC", text))


def normalise(text: str) -> str:
    """The words in lower case with single blanks between: equal for texts that say the same.

    >>> normalise("What is  12 + 5?\\n")
    'what is 12 + 5'
    """
    return " ".join(word.casefold() for word in split_words(text))


def searchable(text: str) -> str:
    """A text for an index that knows words by the blanks between them: folded, and each character
    of a script without blanks a word of its own, as `normalise` has it.

    >>> searchable("Kirby\u306e\u753a")
    'kirby \u306e  \u753a '
    """
    return _UNSPACED_WORD.sub(r" \g<0> ", unicodedata.normalize("NFKC", text).casefold())


def numbers_and_names(text: str) -> tuple[str, ...]:
    """What tells two questions of one form apart, sorted: numbers and words with a capital.

    The word that opens a sentence counts unless it is a common opener, of English or Spanish, or
    stands elsewhere in lower case. In a script without capitals every word counts, since any may be
    a name; but Japanese hiragana only where there is nothing else: particles and endings.

    >>> numbers_and_names("How old will Zorbo be in 3 years?")
    ('3', 'zorbo')
    """
    words = split_words(text)
    known = {word for word in words if word.islower()} | _OPENERS | _SPANISH_OPENERS
    if "\u00bf" in text or "\u00a1" in text or any(w.casefold() in _SPANISH_OPENERS for w in words):
        known |= _SPANISH_WITH_MARKS
    telling = sorted(_telling(words, known))
    return tuple(word for word in telling if not _HIRAGANA.match(word)) or tuple(telling)


def run_length(words: Sequence[str], num_words: int) -> int:
    """How many in a row say as much as `num_words` words: twice as many where most are characters
    of a script without spaces."""
    num_unspaced = sum(_UNSPACED_WORD.match(word) is not None for word in words)
    return round(num_words / WORDS_OF_A_CHARACTER) if 2 * num_unspaced > len(words) else num_words


def num_words_said(text: str) -> int:
    """Words of a text, of scripts without spaces by their usual length."""
    words = split_words(text)
    num_unspaced = sum(_UNSPACED_WORD.match(word) is not None for word in words)
    return len(words) - num_unspaced + round(num_unspaced * WORDS_OF_A_CHARACTER)


def ngrams(words: Sequence[str], size: int) -> Iterator[str]:
    """Every run of `size` words, joined by blanks; none where there are fewer."""
    for start in range(len(words) - size + 1):
        yield " ".join(words[start : start + size])


def _telling(words: Sequence[str], known: set[str]) -> Iterator[str]:
    for word in words:
        folded = word.casefold()
        is_without_case = word.lower() == word.upper()
        is_capital = word[0].isupper() and folded not in known
        if is_without_case or is_capital:
            yield folded
