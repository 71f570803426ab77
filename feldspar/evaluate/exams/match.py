"""Whether a model's text is the right answer: form is forgiven, value is not."""

import re
import unicodedata
from collections.abc import Sequence

from feldspar.records import ExamItem

ARTICLES = frozenset({"a", "an", "the"})
# A number is one word: 1,000 and 1000 are equal, and 3.5, 1/2 or 10:30 do not end with 5, 2 or 30.
# Its sign counts only where no word stands before it: "7-3" is 7 and 3.
_WORD = re.compile(r"(?<!\w)-?\d[\d,]*(?:[.:/]\d+)*|\d[\d,]*(?:[.:/]\d+)*|(?!\d)[^\s\-.,:/]+")
_THOUSANDS = re.compile(r"-?\d{1,3}(?:,\d{3})+(?:\.\d+)?")


def is_right(text: str, item: ExamItem) -> bool:
    """Whether `text` is an accepted answer (`exact`), or ends with one at a word (`final`).

    Case, punctuation, spacing and articles do not count; numbers are compared whole, so "110" does
    not end with "10", and "10.0", "1,000" and "$5" are 10, 1000 and 5.
    """
    assert item.match in ("final", "exact"), f"{item.id} cannot be matched"
    return any(_matches(text, accepted, item.match) for accepted in item.accepted)


def normalise(text: str) -> list[str]:
    """The words that count: "The cat's name is Tom, aged 1,000." to cats name is tom aged 1000."""
    plain = unicodedata.normalize("NFKC", text).casefold().replace("\N{MINUS SIGN}", "-")
    kept = "".join(character if _counts(character) else " " for character in _unquoted(plain))
    words = [part for word in _WORD.findall(kept) for part in _as_words(word)]
    # The last word is never an article: "The answer is A" names a choice.
    return [word for word in words[:-1] if word not in ARTICLES] + words[-1:]


def _matches(text: str, accepted: str, match: str) -> bool:
    said, wanted = normalise(text), normalise(accepted)
    if not wanted:
        # Nothing but punctuation, such as an operator: compared as it stands.
        said, wanted = text.split(), accepted.split()
    if not wanted:
        return not text.strip()
    return said == wanted if match == "exact" else _ends_with(said, wanted)


def _ends_with(said: Sequence[str], wanted: Sequence[str]) -> bool:
    return said[-len(wanted) :] == wanted


def _unquoted(text: str) -> str:
    return re.sub(r"['\u2018\u2019`]", "", text)


def _counts(character: str) -> bool:
    """Letters, their marks and numbers; and what may hold a number together."""
    return unicodedata.category(character)[0] in "LMN" or character in "-.,:/"


def _as_words(word: str) -> list[str]:
    if not (word[0].isdecimal() or word[0] == "-"):
        return [word]
    if _THOUSANDS.fullmatch(word):
        word = word.replace(",", "")
    return [_shortest(part) for part in word.split(",") if part]


def _shortest(number: str) -> str:
    """10.0 and 010 to 10; what is no decimal number (1/2, 10:30, 1.2.3) stays."""
    if not re.fullmatch(r"-?\d+(?:\.\d+)?", number):
        return number
    sign = "-" if number.startswith("-") else ""
    whole, _, part = number.removeprefix("-").partition(".")
    whole, part = whole.lstrip("0") or "0", part.rstrip("0")
    value = f"{whole}.{part}" if part else whole
    return value if value == "0" else sign + value
