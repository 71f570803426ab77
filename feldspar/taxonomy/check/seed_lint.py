"""What is worth a word about seeds that can be read: do they teach what their author means?

Tests of words, not of sense, so most of them warn. Thresholds stand where the 333 published leaves
they were tried on give few findings, each of which a reader would agree with.
"""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from itertools import accumulate

from feldspar.records import Leaf, Seed
from feldspar.taxonomy.documents.find import Document
from feldspar.taxonomy.findings import Findings, quoted
from feldspar.taxonomy.qna import SeedPlace
from feldspar.text import (
    LANGUAGE_NAMES,
    SimilarTexts,
    language_of,
    ngrams,
    normalise,
    numbers_and_names,
)

SAME_QUESTION_ROUGE_L = 0.7
MIN_SUPPORTED = 0.3
"""Part of an answer's words that its context must hold."""
MIN_WORDS_TO_SUPPORT = 4
MIN_FOUND = 0.5
"""Part of a context's runs of words that the documents must hold."""
RUN_LENGTH = 5
MIN_SMALL_WORDS = 4
"""That tell a seed's language."""
MAX_WORDS = 500
"""Of a context, or of a question with its answer."""
MAX_COMPARED_SEEDS = 300
"""Comparing each with each takes a second for a thousand."""
MAX_COMPARED_CHARACTERS = 1_000_000
"""Of seeds: a file can repeat a long text by aliases."""
MAX_DOCUMENT_CHARACTERS = 5_000_000
"""Of a leaf's documents together; contexts are not looked for in more."""

_WORD = re.compile(r"\w+")
# One prefix each: CC-BY-NC and CC-BY-ND forbid what is done here.
_ACCEPTED_LICENCES = re.compile(
    r"(public\W?domain|pd\b|cc0|cc\W?zero|(cc|creative commons)\W?(by|attribution)"
    r"(\W?(sa|share\W?alike))?(?!\W?(nc|nd|non|no))|apache|mit\b|bsd|isc\b|cdla\W?permissive|"
    r"u\.?s\.? government|unlicense|gfdl|project gutenberg|open government licen[cs]e)",
    re.IGNORECASE,
)


def consider_meaning(
    leaf: Leaf, places: dict[str, SeedPlace], documents: Sequence[Document], findings: Findings
) -> None:
    """Add what the seeds of a leaf, its documents and its licence give cause to say."""
    compared = _first(leaf.seeds)
    _consider_each(leaf, compared, places, findings)
    _consider_lengths(compared, places, findings)
    _consider_repeats(compared, places, findings)
    _consider_languages(compared, places, findings)
    if 0 < sum(len(document.text) for document in documents) <= MAX_DOCUMENT_CHARACTERS:
        _consider_contexts(compared, places, documents, findings)
    _consider_licence(leaf, findings)


def _first(seeds: Sequence[Seed]) -> list[Seed]:
    lengths = (len(s.question) + len(s.answer) + len(s.context or "") for s in seeds)
    totals = zip(seeds[:MAX_COMPARED_SEEDS], accumulate(lengths), strict=False)
    return [seed for seed, total in totals if total <= MAX_COMPARED_CHARACTERS]


def _consider_each(
    leaf: Leaf, seeds: Iterable[Seed], places: dict[str, SeedPlace], findings: Findings
) -> None:
    for seed in seeds:
        place = places[seed.id]
        if normalise(seed.question) == normalise(seed.answer) != "":
            cure = "write the answer"
            findings.add("FT042", "the answer repeats the question", cure, place.answer)
        if leaf.branch == "knowledge" and seed.context:
            _consider_support(seed, place, findings)


def _consider_lengths(
    seeds: Iterable[Seed], places: dict[str, SeedPlace], findings: Findings
) -> None:
    """Tell of the first context, and of the first pair, that is too long, and count the rest."""
    contexts = {places[seed.id].context: len((seed.context or "").split()) for seed in seeds}
    pairs = {
        places[seed.id].question: len(seed.question.split()) + len(seed.answer.split())
        for seed in seeds
    }
    for what, lengths in (("a context", contexts), ("a question with its answer", pairs)):
        long = {at: length for at, length in lengths.items() if length > MAX_WORDS}
        if long:
            at, length = next(iter(long.items()))
            message = f"{what} has {length} words"
            if len(long) > 1:
                message += f", and {len(long) - 1} more of the leaf have over {MAX_WORDS}"
            cure = f"choose shorter passages: at most {MAX_WORDS} words"
            findings.add("FT044", message, cure, at)


def _consider_support(seed: Seed, place: SeedPlace, findings: Findings) -> None:
    asked = _stems(seed.question)
    answered = {stem: word for stem, word in _stems(seed.answer).items() if stem not in asked}
    if len(answered) < MIN_WORDS_TO_SUPPORT:
        return
    missing = answered.keys() - _stems(seed.context or "")
    if len(missing) > (1 - MIN_SUPPORTED) * len(answered):
        shown = ", ".join(quoted(answered[stem]) for stem in sorted(missing)[:4])
        message = f"{len(missing)} of {len(answered)} words of the answer are not in its context"
        cure = f"answer with what the context says, or choose another context (among them {shown})"
        findings.add("FT040", message, cure, place.answer)


def _stems(text: str) -> dict[str, str]:
    """Beginnings of the longer words and all numbers, each with the first word that begins so:
    `constellations` and `constellation` meet."""
    stems: dict[str, str] = {}
    for word in _words(text):
        if len(word) > 3 or word.isdecimal():
            stems.setdefault(word[:5], word)
    return stems


def _consider_repeats(
    seeds: Iterable[Seed], places: dict[str, SeedPlace], findings: Findings
) -> None:
    index = SimilarTexts()
    lines: dict[str, int] = {}
    for seed in seeds:
        bucket = (normalise(seed.answer), seed.context, numbers_and_names(seed.question))
        match = index.likest(seed.question, SAME_QUESTION_ROUGE_L, bucket)
        index.add(seed.id, seed.question, bucket)
        lines[seed.id] = places[seed.id].question[0]
        if match is not None:
            message = f"asks what line {lines[match.key]} asks, with the same answer"
            cure = "ask something else: seeds should differ in kind"
            findings.add("FT026", message, cure, places[seed.id].question)


def _consider_languages(
    seeds: Iterable[Seed], places: dict[str, SeedPlace], findings: Findings
) -> None:
    found = {seed.id: _language(f"{seed.question}\n{seed.answer}") for seed in seeds}
    languages = {key: name for key, name in found.items() if name is not None}
    counts = Counter(languages.values())
    if len(counts) < 2:
        return
    most = max(counts, key=lambda language: counts[language])
    odd = next(key for key, language in languages.items() if language != most)
    message = f"this seed is {languages[odd]}, most of the leaf is {most}"
    cure = "write one leaf for each language, unless the task is to translate"
    findings.add("FT043", message, cure, places[odd].question)


def _language(text: str) -> str | None:
    code = language_of(text, least_words=MIN_SMALL_WORDS)
    return LANGUAGE_NAMES.get(code, code.capitalize()) if code else None


def _consider_contexts(
    seeds: Iterable[Seed],
    places: dict[str, SeedPlace],
    documents: Sequence[Document],
    findings: Findings,
) -> None:
    contexts = {places[seed.id].context: seed.context for seed in seeds if seed.context}
    runs = {at: set(_runs(context)) for at, context in contexts.items()}
    wanted = set().union(*runs.values()) if runs else set()
    found = {run for document in documents for run in _runs(document.text) if run in wanted}
    for at, of_context in runs.items():
        if of_context and len(of_context & found) < MIN_FOUND * len(of_context):
            share = len(of_context & found) / len(of_context)
            message = f"{share:.0%} of this context is in the documents"
            cure = "copy the passage word for word from a document, or name the document it is from"
            findings.add("FT041", message, cure, at)


def _runs(text: str) -> Iterable[str]:
    words = _words(text)
    return ngrams(words, min(RUN_LENGTH, max(1, len(words))))


def _words(text: str) -> list[str]:
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold())


def _consider_licence(leaf: Leaf, findings: Findings) -> None:
    if leaf.licence and not _ACCEPTED_LICENCES.match(leaf.licence):
        message = f"licence {quoted(leaf.licence)} is not on the accepted list"
        cure = "take a source under CC-BY, CC-BY-SA, CC0, Apache-2.0 or the like"
        findings.add("FT046", message, cure)
    elif leaf.branch == "knowledge" and not leaf.licence:
        missing = "licence" if leaf.attribution else "attribution"
        cure = "write attribution.txt beside qna.yaml, with `License of the work: ...`"
        findings.add("FT045", f"the leaf names no {missing}", cure)
