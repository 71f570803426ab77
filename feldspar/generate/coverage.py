"""Which statements of a leaf's passages its kept questions ask about, and which none does.

A statement is a sentence of a chunk. It counts as asked where a question and a sentence of its
answer together hold most of what tells the statement apart: its words, weighted by how few of the
leaf's statements have them. Rules only: nothing is asked of a model.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from feldspar.files import whole_file
from feldspar.records import Chunk, Sample
from feldspar.text.sentences import cut_sentences, split_sentences, words_compared
from feldspar.text.words import normalise

HELD_SHARE = 0.45
"""Of a statement's weight, from which it counts as asked. By the micro-world's truth .97 of what it
calls asked is, and it finds .88 of what is (benchmarks/methods_2core_2026-11-29.md)."""
MAX_SHOWN = 20
"""Statements that nothing asks about, kept of each leaf for its page; the file has all."""
MOST_FORMS = 8
"""Statements with more forms are counted with these."""
COVERAGE_FILE = "coverage.jsonl"
ASKING_KINDS = frozenset(("pair", "retrieval", "reversed", "across"))


class Statement(NamedTuple):
    """A sentence of a chunk, and in how many forms kept samples ask about it."""

    leaf: str
    chunk: str
    text: str
    forms: int


@dataclass(frozen=True, slots=True, kw_only=True)
class LeafCoverage:
    """How far the kept questions of a leaf reach."""

    num_statements: int
    num_asked: int
    """Statements that at least one kept question asks about."""
    forms: tuple[int, ...]
    """How many statements are asked in 0, 1, 2, ... forms; the last also counts those with more."""
    never: tuple[Statement, ...] = ()
    """The first that nothing asks about."""


@dataclass(slots=True)
class _ChunkStatements:
    texts: list[str]
    words: list[frozenset[str]]
    """Of each."""
    asked: list[set[int]] = field(default_factory=list)
    """Hashes of the questions about each."""
    totals: list[float] = field(default_factory=list)
    """Weight of each."""


@contextmanager
def open_coverage(folder: Path) -> Iterator[Callable[[AskedStatements], None]]:
    """Give what writes a leaf's statements to the folder's `coverage.jsonl`, whole at the end."""
    folder.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(folder / COVERAGE_FILE, is_shared=True) as path,
        path.open("w", encoding="utf-8") as file,
    ):

        def write(coverage: AskedStatements) -> None:
            for statement in coverage.statements():
                file.write(json.dumps(statement._asdict(), ensure_ascii=False) + "\n")

        yield write


class AskedStatements:
    """The statements of one leaf, and what has been asked about each."""

    def __init__(self, leaf: str, chunks: Sequence[Chunk]) -> None:
        self._leaf = leaf
        self._chunks: dict[str, _ChunkStatements] = {}
        found: Counter[str] = Counter()
        for chunk in chunks:
            texts = split_sentences(chunk.text)
            words = [frozenset(words_compared(text)) for text in texts]
            found.update(word for of_text in words for word in of_text)
            asked: list[set[int]] = [set() for _ in texts]
            self._chunks[chunk.id] = _ChunkStatements(texts, words, asked)
        num_statements = sum(len(c.texts) for c in self._chunks.values())
        # Squared, as in the cosine of TF-IDF: what names a statement outweighs what puts it.
        self._weights = {word: math.log(1 + num_statements / n) ** 2 for word, n in found.items()}
        for one in self._chunks.values():
            one.totals = [self._weigh(words) for words in one.words]

    def add(self, sample: Sample) -> None:
        """Note what a kept sample asks about; others, and texts, ask nothing."""
        chunk = self._chunks.get(sample.chunk or "")
        if chunk is None or not sample.is_kept or sample.kind not in ASKING_KINDS:
            return
        question = normalise(sample.question)
        asked = frozenset(words_compared(sample.question))
        for sentence in cut_sentences(sample.answer):
            told = asked.union(words_compared(sentence))
            for words, total, questions in zip(chunk.words, chunk.totals, chunk.asked, strict=True):
                if self._weigh(words & told) >= HELD_SHARE * total > 0:
                    questions.add(hash(question))

    def statements(self) -> Iterator[Statement]:
        """All statements, in the order of the text."""
        for chunk_id, chunk in self._chunks.items():
            for text, asked in zip(chunk.texts, chunk.asked, strict=True):
                yield Statement(self._leaf, chunk_id, text, len(asked))

    def lacking(self, least_forms: int) -> Iterator[Statement]:
        """The statements that are asked in fewer forms."""
        return (statement for statement in self.statements() if statement.forms < least_forms)

    def summary(self) -> LeafCoverage:
        return summarise(self.statements())

    def _weigh(self, words: Iterable[str]) -> float:
        # Summed exactly: the order of a set is another in every process.
        return math.fsum(self._weights[word] for word in words)


class Reach(NamedTuple):
    """Of all leaves together."""

    num_statements: int
    num_asked: int

    @property
    def sentence(self) -> str:
        return (
            f"{self.num_asked} of {self.num_statements} statements of the documents are asked "
            "about by a kept question"
        )


def add_up(leaves: Iterable[LeafCoverage | None]) -> Reach | None:
    """None where no leaf stands on a document."""
    known = [leaf for leaf in leaves if leaf is not None]
    if not known:
        return None
    return Reach(sum(leaf.num_statements for leaf in known), sum(leaf.num_asked for leaf in known))


def summarise(statements: Iterable[Statement]) -> LeafCoverage:
    """The figures of a leaf's statements."""
    forms = [0] * (MOST_FORMS + 1)
    never: list[Statement] = []
    for statement in statements:
        forms[min(statement.forms, MOST_FORMS)] += 1
        if not statement.forms and len(never) < MAX_SHOWN:
            never.append(statement)
    total = sum(forms)
    return LeafCoverage(
        num_statements=total, num_asked=total - forms[0], forms=tuple(forms), never=tuple(never)
    )
