"""Sentences of a document, by rules: what it says, cut into pieces that can be read alone."""

from __future__ import annotations

import re

MAX_SENTENCES = 400
"""Of one passage; what comes later is left out."""
MAX_CHARACTERS = 500
"""Of a sentence; a longer one is left out."""
MIN_WORDS = 4

# Latin, Arabic and Indic stops need a space after them, Chinese and Japanese ones do not.
_SENTENCE_END = re.compile(
    "(?<=[.!?\u061f\u0964])\\s+|(?<=[.!?][\"'\u201d\u2019)])\\s+"
    "|(?<=[\u3002\uff01\uff1f])|\\n[ \\t]*\\n"
)
# Scripts without spaces are compared by the character: CJK, kana, Thai, Lao, Khmer, Burmese.
_WORD = re.compile(
    r"[\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]"
    r"|[^\W_\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff]+"
)


def split_sentences(text: str) -> list[str]:
    """The sentences of a text that say something, without Markdown's signs, each once.

    Its lines where it has no such sentence.
    """
    cleaned = _clean(text)
    usable = [part for part in cut_sentences(cleaned) if _is_usable(part)]
    if not usable:
        lines = (line.strip()[:MAX_CHARACTERS] for line in cleaned.splitlines())
        usable = [line for line in lines if words_compared(line)]
    return list(dict.fromkeys(usable))[:MAX_SENTENCES]


def cut_sentences(text: str) -> list[str]:
    """A text cut where a sentence or a paragraph ends, blanks and line breaks as one blank."""
    return [" ".join(part.split()) for part in _SENTENCE_END.split(text) if part.strip()]


def words_compared(text: str) -> list[str]:
    """Words in lower case, by which sentences are compared; no signs.

    >>> words_compared("The home of Zorbo is Arden.")
    ['the', 'home', 'of', 'zorbo', 'is', 'arden']
    """
    return words_of(text.casefold())


def words_of(text: str) -> list[str]:
    """Words in their own case, a character each in scripts without spaces; no signs."""
    return _WORD.findall(text)


def _clean(text: str) -> str:
    """Plain paragraphs: tables, headings and rules left out, links and emphasis as their words."""
    text = re.sub(r"(?m)^[ \t]*(?:\|.*|[-=*_]{3,}|```.*|#{1,6}\s.*)$", "\n", text)
    text = re.sub(r"(?m)^[ \t]*(?:[-*+>]|\d+[.)])\s+", "\n\n", text)
    # Two lines of one paragraph are one text.
    text = re.sub(r"(?<!\n)\n(?![ \t]*\n)", " ", text)
    text = re.sub(r"\[(?:\d{1,3}|note \d+|citation needed)\]", "", text)
    text = re.sub(r"!?\[([^\[\]]{0,300})\]\((?:[^()]|\([^()]{0,100}\)){0,300}\)", r"\1", text)
    return re.sub(r"<[^<>\n]{1,200}>|[*`]+", "", text)


def _is_usable(sentence: str) -> bool:
    return len(sentence) <= MAX_CHARACTERS and len(words_compared(sentence)) >= MIN_WORDS
