"""By what a right answer is known: its end, where that is short and says it all."""

from __future__ import annotations

import re

from feldspar.records import Branch
from feldspar.text import normalise, split_words

MAX_WORDS = 8
"""Longest answer, or last sentence, that is matched by its end."""
MAX_WORKED_WORDS = 40
"""Longest worked answer of a skill: some steps, then a result."""
MAX_RESULT_WORDS = 3
"""Longest result of a worked answer."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|\n+")
_LAST_LINK = re.compile(
    r"(?P<head>.*)\b(?P<link>is|are|was|were|equals|in|at|as|a|an|the|to|from)\s+(?P<end>.*)",
    re.IGNORECASE | re.DOTALL,
)
_COPULAS = frozenset(("is", "are", "was", "were"))
_NEUTRAL_HEAD = re.compile(r"(?:the|it|this|that|they|these|there|its|his|her)\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|no|never|nor|none)\b|n['\u2019]t\b", re.IGNORECASE)


def accepted_final(question: str, answer: str, branch: Branch) -> str | None:
    """What an answer must end with to be right; None where it is too long to be matched.

    - A single sentence of at most 8 words: what follows its last "=", ":", or small English word
      such as "is", "in" or "a". "Zorbo lives in Tarn." gives "Tarn", "Sorted: 3, 5, 9." gives
      "3, 5, 9". The whole of it where there is none, where it denies something, or where its end
      is no number or name and would not tell right from wrong alone: it stands in the question,
      or its subject is the answer ("Zorbo is older.").
    - A skill's worked answer of at most 40 words in one paragraph: the same of its last sentence,
      if that is a result of at most 3 words. "Zorbo is 7. 7 + 3 = 10." gives "10". A list, a poem
      or a table is no worked answer.
    """
    sentences = [part.strip() for part in _SENTENCE_END.split(answer.strip()) if part.strip()]
    num_words = len(split_words(answer))
    if not sentences or not num_words:
        return None
    final = _end_of(sentences[-1], question)
    if len(sentences) == 1 and ("=" in answer or num_words <= MAX_WORDS):
        return final if len(split_words(final)) <= MAX_WORDS else None
    is_worked = "\n" not in answer.strip() or "=" in sentences[-1]
    if branch == "knowledge" or num_words > MAX_WORKED_WORDS or not is_worked:
        return None
    is_result = final[0].isalnum() and len(split_words(final)) <= MAX_RESULT_WORDS
    return final if is_result else None


def _end_of(sentence: str, question: str) -> str:
    bare = sentence.strip().rstrip(".!?").strip()
    for sign in ("=", ":"):
        _, found, end = bare.rpartition(sign)
        if found and end.strip():
            return end.strip()
    match = _LAST_LINK.match(bare)
    if match is None or _NEGATION.search(bare) or not match["end"].strip():
        return bare
    end = match["end"].strip()
    is_about_subject = match["link"].lower() in _COPULAS and not _NEUTRAL_HEAD.match(match["head"])
    has_value = any(character.isdigit() or character.isupper() for character in end)
    is_asked = set(normalise(end).split()) <= set(normalise(question).split())
    return end if has_value or not (is_asked or is_about_subject) else bare
