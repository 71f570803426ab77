"""Which language a text is in, by its script and its most frequent small words."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter

_MIN_LETTERS = 12
_MIN_SMALL_WORDS = 4
_SMALL_WORDS = {
    "English": "the of and to is in that it for was on are as with his they at this have from what",
    "German": "der die das und ist nicht ein eine zu den von mit auf für dem sich wie auch oder",
    "French": "le la les des et est dans une du que qui pour pas sur au avec ce sont par quel",
    "Spanish": "el la los las y es en una del que por con para como se su al más qué cuál",
    "Italian": "il la gli di che è un una per con non del della sono nel come più alla cosa quale",
    "Portuguese": "os é um uma da em que para com não se por mais dos qual são ao você",
    "Dutch": "het een en van dat op te zijn met voor niet aan er ook als bij wat wordt",
}
_OF_WORD: dict[str, list[str]] = {}
for _language, _words in _SMALL_WORDS.items():
    for _word in _words.split():
        _OF_WORD.setdefault(_word, []).append(_language)
_LETTERS = re.compile(r"[^\W\d_]+")


def language_of(text: str) -> str:
    """A language of Latin letters, the name of another script, or "" where it cannot be told.

    >>> language_of("Was ist das Haus, und wer wohnt in dem Haus mit der Tür?")
    'German'
    """
    words = _LETTERS.findall(text.casefold())
    letters = "".join(words)
    if len(letters) < _MIN_LETTERS:
        return ""
    script, num_letters = Counter(map(_script, letters[:2000])).most_common(1)[0]
    if 2 * num_letters < min(len(letters), 2000):
        return ""
    return _latin(words) if script == "LATIN" else script.capitalize()


def _script(letter: str) -> str:
    name = unicodedata.name(letter, "").partition(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA") else name


def _latin(words: list[str]) -> str:
    """The language with by far the most small words, if there are enough of them."""
    counts = Counter(language for word in words for language in _OF_WORD.get(word, ()))
    best = counts.most_common(2)
    if not best or best[0][1] < _MIN_SMALL_WORDS:
        return ""
    return best[0][0] if len(best) == 1 or best[0][1] >= 2 * best[1][1] else ""
