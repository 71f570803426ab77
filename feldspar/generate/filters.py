"""What is thrown away after judging: what a leaf has already, and what an exam asks.

Both are asked in (leaf, seed, draw) order, so that what is kept does not depend on timing. Reasons
name the neighbour or the item.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence

from feldspar.config import GenerateConfig
from feldspar.records import SHOWN_KINDS, ExamItem, Leaf, Sample, SampleKind, Seed, user_turn
from feldspar.text import (
    SimilarTexts,
    language_of,
    ngrams,
    normalise,
    numbers_and_names,
    run_length,
    split_words,
)

NEAR = 0.7
"""ROUGE-L of questions above which two samples with one answer are one."""
SAME_QUESTION = 0.9
"""ROUGE-L above which two questions about the same names and numbers are the same question."""
BENCHMARK_WORDS = 13
"""Length of the n-grams that a benchmark's items are known by; of characters twice as many, in
scripts without spaces."""
EVERYWHERE = ""
"""In place of a leaf's path: what pooled sampling wrote is compared over all leaves."""
LEAST_WORDS = 4
"""A benchmark's question shorter than this must be met whole, not within another text."""

_Common = tuple[str, str, tuple[str, ...]]


class Distinct:
    """What a leaf has already: its seeds, then every sample that was found distinct."""

    def __init__(self, leaf: Leaf, *, near: bool = True, more: Sequence[Seed] = ()) -> None:
        self._near = near
        self._exact: dict[bytes, str] = {}
        self._similar = SimilarTexts()
        self._is_skill = leaf.branch != "knowledge"
        for seed in (*leaf.seeds, *more):
            bucket = self._bucket(seed.question, seed.answer, seed.context, self._is_skill)
            self._add(f"seed {seed.id}", seed.question, bucket)

    def find_neighbour(self, sample: Sample) -> str | None:
        """Why a sample is none of its own; else None, and it is remembered."""
        # One question may lack an answer in many passages.
        is_input = self._is_skill or sample.kind == "unanswerable"
        bucket = self._bucket(sample.question, sample.answer, sample.context, is_input)
        known = self._exact.get(_digest(sample.question, bucket))
        if known is not None:
            return f"duplicate: same question and answer (as {known})"
        if self._near:
            match = self._similar.likest(sample.question, NEAR, bucket)
            if match is not None:
                return f"near-duplicate: same answer (as {match.key}, ROUGE-L {match.score:.2f})"
        self._add(sample.id, sample.question, bucket)
        return None

    def _add(self, key: str, question: str, bucket: _Common) -> None:
        self._exact.setdefault(_digest(question, bucket), key)
        if self._near:
            self._similar.add(key, question, bucket)

    def _bucket(self, question: str, answer: str, context: str | None, is_input: bool) -> _Common:
        """What near-duplicates have in common exactly: answer, the context where that is the input,
        numbers and names.

        Only what shares all three is compared, which is why no candidates are lost or guessed.
        """
        # Two passages may state one fact, so the passage does not tell knowledge apart.
        input_text = normalise(context or "") if is_input else ""
        return normalise(answer), input_text, numbers_and_names(question)


def _digest(question: str, bucket: _Common) -> bytes:
    """Of question, answer and input: a million samples' texts would take more room than these."""
    answer, input_text, _ = bucket
    text = "\n".join((normalise(question), answer, input_text))
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


class Questions:
    """Questions, with their input if they have one, that must not be asked again."""

    def __init__(self) -> None:
        self._similar = SimilarTexts()
        self._inputs: dict[str, str] = {}

    def add(self, key: str, question: str, context: str | None = None) -> None:
        if context:
            self._inputs.setdefault(normalise(context), key)
        else:
            self._similar.add(key, question, numbers_and_names(question))

    def find(self, question: str, context: str | None = None) -> str | None:
        """What asks the same question or stands on the same input: `KEY`, `KEY, ROUGE-L 0.95`."""
        if context and (key := self._inputs.get(normalise(context))):
            return f"{key}, same input"
        match = self._similar.likest(question, SAME_QUESTION, numbers_and_names(question))
        return f"{match.key}, ROUGE-L {match.score:.2f}" if match else None


class Decontaminator:
    """Everything that any exam asks.

    Leaf exams and other items with a branch are known by their question, or by their input where
    they have one: a fact may be taught, its question may not. Items without a branch are a
    benchmark's, known by any 13 words in a row or, where shorter, by all of them; a question that
    stands on a context is known together with it, since many ask the same of different ones.
    """

    def __init__(self, items: Iterable[ExamItem]) -> None:
        self._questions = Questions()
        self._ngrams: defaultdict[int, dict[str, str]] = defaultdict(dict)
        for item in items:
            key = f"{item.exam} {item.id}"
            if item.branch is None:
                self._add_benchmark_item(key, user_turn(item.question, item.context))
            else:
                context = item.context if item.branch != "knowledge" else None
                self._questions.add(key, item.question, context)

    def find_item(self, sample: Sample) -> str | None:
        """Why a sample must not be trained on; None where no exam asks it."""
        is_shown = sample.branch != "knowledge" or sample.kind in SHOWN_KINDS
        context = sample.context if is_shown else None
        item = self._questions.find(sample.question, context)
        if item is not None:
            return f"exam: asked there ({item})"
        for text in (user_turn(sample.question, context), sample.answer):
            words = normalise(text).split()
            for size, known in self._ngrams.items():
                item = next((known[gram] for gram in ngrams(words, size) if gram in known), None)
                if item is not None:
                    return f"exam: shares {size} words in a row ({item})"
        return None

    def _add_benchmark_item(self, key: str, question: str) -> None:
        words = normalise(question).split()
        if len(words) < run_length(words, LEAST_WORDS):
            self._questions.add(key, question)
            return
        size = min(len(words), run_length(words, BENCHMARK_WORDS))
        for gram in ngrams(words, size):
            self._ngrams[size].setdefault(gram, key)


class Languages:
    """The languages of a leaf's seeds: of questions and of answers: a skill may translate."""

    def __init__(self, leaf: Leaf) -> None:
        seeds = (*leaf.seeds, *leaf.exam_seeds)
        self._questions = {language_of(seed.question) for seed in seeds}
        self._answers = {language_of(seed.answer) for seed in seeds}
        self._all = {language_of(" ".join((s.question, s.answer, s.context or ""))) for s in seeds}

    def find_other(self, sample: Sample) -> str | None:
        """Why a sample is in another language; None where it is not, or nothing shows it."""
        for part, text, own in (
            ("question", sample.question, self._questions),
            ("answer", sample.answer, self._answers),
        ):
            known = (own | self._all) - {None}
            found = language_of(text)
            if known and found is not None and found not in known:
                wanted = ", ".join(sorted(name for name in known if name))
                return f"language: another than the seeds' ({part} in {found}, not {wanted})"
        return None


class Filters:
    """The filters a recipe leaves on, over one leaf after another."""

    def __init__(
        self, config: GenerateConfig, avoid: Iterable[ExamItem], borrowed: Sequence[Seed] = ()
    ) -> None:
        """`borrowed` holds the seeds that pooled samples are compared with, beside their leaf's."""
        self._config = config
        self._decontaminator = Decontaminator(avoid if config.decontaminate else ())
        self._borrowed = borrowed
        self._distinct: dict[tuple[str, SampleKind], Distinct] = {}
        self._leaf = ""
        self._languages: Languages

    def reason_against(self, sample: Sample, leaf: Leaf) -> str | None:
        """Why a judged sample is thrown away, or None."""
        reason = self._unfit(sample, leaf) or self._decontaminator.find_item(sample)
        # Last: what is found distinct is remembered, so it must be kept.
        if reason is None and self._config.duplicates:
            reason = self._find_neighbour(sample, leaf)
        return reason

    def _unfit(self, sample: Sample, leaf: Leaf) -> str | None:
        """Why a sample has not the form that is wanted, whatever else there is."""
        if sample.kind == "document":
            return None
        num_words = len(split_words(sample.answer))
        if num_words < self._config.min_answer_words:
            return f"length: answer too short ({num_words} words)"
        if num_words > (self._config.max_answer_words or num_words):
            return f"length: answer too long ({num_words} words)"
        # Pooled seeds may have any language.
        is_pooled = self._config.sampling == "pooled" and leaf.branch != "knowledge"
        if self._config.language and not is_pooled:
            if self._leaf != leaf.path:
                self._leaf, self._languages = leaf.path, Languages(leaf)
            return self._languages.find_other(sample)
        return None

    def _find_neighbour(self, sample: Sample, leaf: Leaf) -> str | None:
        is_pooled = self._config.sampling == "pooled" and leaf.branch != "knowledge"
        place = EVERYWHERE if is_pooled else leaf.path
        distinct = self._distinct.get((place, sample.kind))
        if distinct is None:
            # Leaves come one after another; only with a target, or to be asked again, does one come
            # twice.
            if self._config.target is None and not self._config.knowledge.least_forms:
                kept = (leaf.path, EVERYWHERE)
                self._distinct = {k: d for k, d in self._distinct.items() if k[0] in kept}
            near, more = self._config.near_duplicates, self._borrowed if is_pooled else ()
            distinct = Distinct(leaf, near=near, more=more)
            self._distinct[place, sample.kind] = distinct
        return distinct.find_neighbour(sample)
