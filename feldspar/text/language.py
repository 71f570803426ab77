"""In which language a text is, where its script or its small words tell; no guess where they don't.

Enough to see that a teacher fell back into English. It is not made to tell dialects apart.
"""

from __future__ import annotations

import unicodedata
from collections import Counter

from feldspar.text.words import split_words

LEAST_LETTERS = 8
"""Fewer letters tell no script."""
LEAST_WORDS = 3
"""Fewer small words tell no language, nor do fewer than twice those of another one."""

_SMALL_WORDS_TEXT = {
    "en": "the of and to is in that it was for with as his on be at by have from are this which "
    "not what how does who where you i do we my me they can will an or if there",
    "de": "der die das und ist nicht ein eine mit von zu den dem im auf sich wie was wer wo auch "
    "es sie er wird sind",
    "fr": "le la les des et est un une dans que qui du pour pas sur avec il elle ce quel quelle "
    "au aux sont",
    "es": "el los las y es una en que del por con para su al lo como qué cuál quién dónde son "
    "está muy",
    "it": "il lo gli e è una di che per non con del della nel sono come chi dove quale questo "
    "questa anche",
    # Without "com": addresses are full of it.
    "pt": "o os as e é um uma em que do da dos das não para por no na qual quem onde são está",
    "nl": "de het een en van is in dat niet met op zijn voor te wie wat waar hoe ook aan zij hij",
    "sv": "och att det som en är på av för med den till inte har om ett vad vem var hur han hon",
    "pl": "i w nie na się z jest do że to jak co kto gdzie po od za przez dla są",
    "tr": "ve bir bu da de için ile ne kim nerede olarak çok daha mi olan değil",
}
_SMALL_WORDS = {name: frozenset(text.split()) for name, text in _SMALL_WORDS_TEXT.items()}


LANGUAGE_NAMES = {
    "en": "English",
    "de": "German",
    "fr": "French",
    "es": "Spanish",
    "it": "Italian",
    "pt": "Portuguese",
    "nl": "Dutch",
    "sv": "Swedish",
    "pl": "Polish",
    "tr": "Turkish",
    "CJK": "Chinese or Japanese",
}
"""For people; other scripts by their own name."""


def language_of(text: str, *, least_words: int = LEAST_WORDS) -> str | None:
    """`en`, `de`, ... for Latin script, the script's name for others (`CYRILLIC`, `CJK`).

    Fewer than `least_words` small words tell no language.

    >>> language_of("Where does the old man live, and what does he do?")
    'en'
    >>> language_of("12 + 5 = 17") is None
    True
    """
    scripts = Counter(_script(letter) for letter in text if letter.isalpha())
    if scripts.total() < LEAST_LETTERS:
        # A few signs of a script without spaces say as much as a sentence elsewhere.
        return "CJK" if scripts["CJK"] >= 2 else None
    script, num_letters = scripts.most_common(1)[0]
    if num_letters < 0.7 * scripts.total():
        return None
    return script if script != "LATIN" else _latin_language(text, least_words)


def _latin_language(text: str, least_words: int) -> str | None:
    words = [word.casefold() for word in split_words(text)]
    hits = {name: sum(word in small for word in words) for name, small in _SMALL_WORDS.items()}
    second, first = sorted(hits.items(), key=lambda item: item[1])[-2:]
    is_clear = first[1] >= least_words and first[1] >= 2 * second[1]
    return first[0] if is_clear else None


def _script(letter: str) -> str:
    if letter.isascii():
        return "LATIN"
    # Japanese mixes three scripts, of which two are its own.
    name = unicodedata.name(letter, "UNKNOWN").partition(" ")[0]
    return "CJK" if name in ("HIRAGANA", "KATAKANA") else name
