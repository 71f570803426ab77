"""By what a right answer is known: its end, where that is short and says it all."""

from __future__ import annotations

import re

from feldspar.records import Branch
from feldspar.text import language_of, normalise, num_words_said

MAX_WORDS = 8
"""Longest answer, or last sentence, that is matched by its end."""
MAX_WORKED_WORDS = 40
"""Longest worked answer of a skill: some steps, then a result."""
MAX_RESULT_WORDS = 3
"""Longest result of a worked answer."""

_SENTENCE_END = re.compile(r"(?<=[.!?])\s+|(?<=[\u3002\uff01\uff1f])|\n+")
# A colon within 10:30, 1:50 or an address is a part of what it stands in.
_SIGN = re.compile(r"[=\uff1d]|:(?=\s)|(?<!\d)\uff1a|\uff1a(?!\d)")
_LAST_LINK = re.compile(
    r"(?P<head>.*)\b(?P<link>is|are|was|were|equals|in|at|as|a|an|the|to|from)\s+(?P<end>.*)",
    re.IGNORECASE | re.DOTALL,
)
_COPULAS = frozenset(("is", "are", "was", "were", "es", "son", "era", "eran", "fue", "fueron"))
_NEUTRAL_HEAD = re.compile(r"(?:the|it|this|that|they|these|there|its|his|her)\b", re.IGNORECASE)
_NEGATION = re.compile(r"\b(?:not|no|never|nor|none)\b|n['\u2019]t\b", re.IGNORECASE)
# "de" is none of them: it stands within names.
_SPANISH_LINK = re.compile(
    r"(?P<head>.*)\b(?P<link>es|son|era|eran|fue|fueron|en|a|al|como|desde|hasta"
    r"|un|una|el|la|los|las)\s+(?P<end>.*)",
    re.IGNORECASE | re.DOTALL,
)
_SPANISH_NEUTRAL_HEAD = re.compile(r"(?:el|la|los|las|su|sus|es[eoa]|est[eoa]|lo)\b", re.IGNORECASE)
_SPANISH_NEGATION = re.compile(
    r"\b(?:no|nunca|jam\u00e1s|ni|nadie|nada|ning\u00fan|ninguna|tampoco)\b", re.IGNORECASE
)
# "The home of Zorbo is Tarn": topic, particle (wa, ga), value, copula (desu, da, deshita, de aru).
_JAPANESE_IS = re.compile(
    r"[^\u306f]*?[\u306f\u304c]\u3001?(?P<end>[^\u306f\u304c\u3001]+?)"
    r"(?:\u3067\u3059|\u3060|\u3067\u3057\u305f|\u3060\u3063\u305f|\u3067\u3042\u308b)"
)
_END_MARKS = ".!?\u3002\uff01\uff1f\uff61"


def accepted_final(question: str, answer: str, branch: Branch) -> str | None:
    """What an answer must end with to be right; None where it is too long to be matched.

    - A single sentence of at most 8 words: what follows its last "=", ":", or small English word
      such as "is", "in" or "a". "Zorbo lives in Tarn." gives "Tarn", "Sorted: 3, 5, 9." gives
      "3, 5, 9". The whole of it where there is none, where it denies something, or where its end
      is no number or name and would not tell right from wrong alone: it stands in the question,
      or its subject is the answer ("Zorbo is older."). Spanish has its own such words, and of a
      Japanese sentence that says what something is it is what stands before the copula.
    - A skill's worked answer of at most 40 words in one paragraph: the same of its last sentence,
      if that is a result of at most 3 words. "Zorbo is 7. 7 + 3 = 10." gives "10". A list, a poem
      or a table is no worked answer.
    """
    sentences = [part.strip() for part in _SENTENCE_END.split(answer.strip()) if part.strip()]
    num_words = num_words_said(answer)
    if not sentences or not num_words:
        return None
    final = _end_of(sentences[-1], question)
    if len(sentences) == 1 and ("=" in answer or num_words <= MAX_WORDS):
        return final if num_words_said(final) <= MAX_WORDS else None
    is_worked = "\n" not in answer.strip() or "=" in sentences[-1]
    if branch == "knowledge" or num_words > MAX_WORKED_WORDS or not is_worked:
        return None
    is_result = final[0].isalnum() and num_words_said(final) <= MAX_RESULT_WORDS
    return final if is_result else None


def _end_of(sentence: str, question: str) -> str:
    bare = sentence.strip().rstrip(_END_MARKS).strip()
    signs = [m.end() for m in _SIGN.finditer(bare)]
    if signs and (end := bare[signs[-1] :].strip()):
        return end
    if language_of(sentence) == "CJK":
        return _end_in_japanese(bare, question)
    link, neutral_head, negation = _LAST_LINK, _NEUTRAL_HEAD, _NEGATION
    if "\u00bf" in question or language_of(f"{question} {sentence}") == "es":
        link, neutral_head = _SPANISH_LINK, _SPANISH_NEUTRAL_HEAD
        negation = _SPANISH_NEGATION
    match = link.match(bare)
    if match is None or negation.search(bare) or not match["end"].strip():
        return bare
    end = match["end"].strip()
    is_about_subject = match["link"].lower() in _COPULAS and not neutral_head.match(match["head"])
    has_value = any(character.isdigit() or character.isupper() for character in end)
    is_asked = set(normalise(end).split()) <= set(normalise(question).split())
    return end if has_value or not (is_asked or is_about_subject) else bare


def _end_in_japanese(bare: str, question: str) -> str:
    match = _JAPANESE_IS.fullmatch(bare)
    if match is None or normalise(match["end"]) in normalise(question):
        return bare
    return match["end"].strip()
