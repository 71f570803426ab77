"""An index of a run's samples, so that 100,000 of them can be searched and paged at once.

It is made once per result of the samples step, in the cache, from the rows as they were written:
SQLite, with its full-text search over question, answer and context. Readers may share it.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

from pydantic import TypeAdapter, ValidationError

from feldspar.errors import DiskError
from feldspar.files import whole_file
from feldspar.keys import content_key
from feldspar.records import Sample
from feldspar.reviews import Reviews, review_key
from feldspar.runs import Rows, cache_folder
from feldspar.stored import damaged, what_is_wrong
from feldspar.text import normalise, rouge_l, searchable
from feldspar.views.links import num_pages

MAX_KEPT = 8
"""Indices in the cache; the oldest are deleted."""
PAGE_SIZE = 50
NUM_NEAR = 200
"""Samples that share words with a text and are compared with it."""
MAX_NEAREST_WORDS = 64
FORMAT = 2
"""Of what is written into the tables: raised with it, so that older indices are made anew."""
_BATCH = 2000
_SAMPLE = TypeAdapter(Sample)
_TABLE = """
CREATE TABLE sample (place INTEGER PRIMARY KEY, id TEXT, leaf TEXT, kept INTEGER, reason TEXT,
                     chunk TEXT, draw INTEGER, teacher TEXT, review_key TEXT);
CREATE TABLE body (place INTEGER PRIMARY KEY, row TEXT);
CREATE TABLE facet (leaf TEXT, reason TEXT, num INTEGER, kept INTEGER);
CREATE VIRTUAL TABLE words USING fts5(question, answer, context, content='', prefix='2 3',
                                      tokenize='unicode61 remove_diacritics 2');
"""
_INDICES = """
CREATE INDEX by_id ON sample (id);
CREATE INDEX by_leaf ON sample (leaf, kept, reason);
CREATE INDEX by_reason ON sample (reason, leaf);
CREATE INDEX by_kept ON sample (kept, leaf, reason);
CREATE INDEX by_chunk ON sample (chunk, kept);
CREATE INDEX by_teacher ON sample (teacher);
CREATE INDEX by_review_key ON sample (review_key);
INSERT INTO facet SELECT leaf, reason, count(*), sum(kept) FROM sample GROUP BY leaf, reason;
"""


ReviewState = Literal["", "open", "accepted", "rejected", "edited", "conflict"]
"""What people say of a sample: `open` is nothing yet, `conflict` is not one thing."""


class Facet(NamedTuple):
    """A value that samples have, and how many have it."""

    value: str
    num_samples: int


class ReasonCount(NamedTuple):
    """How many samples of a leaf were rejected for a reason."""

    leaf: str
    reason: str
    num_samples: int


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleQuery:
    """Which samples are wanted; what is empty asks for all."""

    words: str = ""
    leaf: str = ""
    """A leaf's path, or a folder above leaves."""
    state: str = ""
    """`kept`, `rejected`, or all."""
    reason: str = ""
    chunk: str = ""
    review: ReviewState = ""
    page: int = 1
    after: int = 0
    """Place of the last sample before the page that is wanted, where samples leave or enter what
    is found as they are decided on: a page by number would skip some. 0 goes by `page`."""

    @property
    def filters(self) -> dict[str, str]:
        """As an address has them: all but the page."""
        names = ("words", "leaf", "state", "reason", "chunk", "review")
        return {name: value for name in names if (value := str(getattr(self, name)))}


@dataclass(frozen=True, slots=True, kw_only=True)
class SamplePage:
    """One page of what was asked for."""

    query: SampleQuery
    samples: tuple[Sample, ...]
    num_found: int
    leaves: tuple[Facet, ...]
    reasons: tuple[Facet, ...]
    num_kept: int
    num_before: int
    """That are found and come before the page."""
    last_place: int
    """Of the page's last sample; 0 where it has none."""

    @property
    def page(self) -> int:
        return self.num_before // PAGE_SIZE + 1

    @property
    def num_pages(self) -> int:
        return num_pages(self.num_found, PAGE_SIZE)

    @property
    def first(self) -> int:
        return self.num_before + 1 if self.samples else 0

    @property
    def last(self) -> int:
        return self.num_before + len(self.samples)

    @property
    def earlier(self) -> dict[str, str] | None:
        """What the page before is asked for by; None on the first."""
        if not self.num_before:
            return None
        return {**self.query.filters, "page": str(num_pages(self.num_before, PAGE_SIZE))}

    @property
    def later(self) -> dict[str, str] | None:
        """What the page behind is asked for by; None on the last."""
        if self.last >= self.num_found:
            return None
        where = {"after": self.last_place} if self.query.review else {"page": self.page + 1}
        return {**self.query.filters, **{name: str(value) for name, value in where.items()}}


@dataclass(frozen=True, slots=True, kw_only=True)
class SampleSummary:
    """Counts over all samples."""

    num_samples: int
    num_kept: int
    teachers: tuple[str, ...]
    chunks: frozenset[str] = field(default_factory=frozenset)
    """Ids of the chunks that a kept sample is of."""
    rejected: tuple[ReasonCount, ...] = ()


def open_index(rows: Rows[Sample]) -> SampleIndex:
    """The index of these rows, made where there is none yet. Raises RunError on damaged rows,
    and DiskError where it cannot be written."""
    path = index_path(rows)
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with whole_file(path, is_shared=True) as beside:
                _fill(beside, rows)
        except sqlite3.Error as error:
            raise DiskError(
                f"{path.parent}: the samples' index cannot be written: {error}; make room there, "
                "or set FELDSPAR_CACHE to another folder"
            ) from error
        _delete_oldest(path.parent)
    return SampleIndex(path)


def index_path(rows: Rows[Sample]) -> Path:
    """Where the index of these rows lies, or will."""
    made_as = content_key([_TABLE, _INDICES, FORMAT])
    return cache_folder() / "samples" / f"{rows.key[:32]}-{made_as[:8]}.sqlite"


class SampleIndex:
    """Reads an index; one connection a question, so that threads may share it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._uri = f"{path.resolve().as_uri()}?mode=ro&immutable=1"

    def summary(self) -> SampleSummary:
        with self._reading() as db:
            num, kept = db.execute("SELECT count(*), coalesce(sum(kept), 0) FROM sample").fetchone()
            teachers = [row[0] for row in db.execute("SELECT DISTINCT teacher FROM sample")]
            chunks = db.execute(
                "SELECT DISTINCT chunk FROM sample WHERE kept = 1 AND chunk IS NOT NULL"
            )
            rejected = db.execute("SELECT leaf, reason, num FROM facet WHERE reason != ''")
            return SampleSummary(
                num_samples=num,
                num_kept=kept,
                teachers=tuple(sorted(filter(None, teachers))),
                chunks=frozenset(row[0] for row in chunks),
                rejected=tuple(ReasonCount(*row) for row in rejected),
            )

    def find(self, query: SampleQuery, reviews: Reviews | None = None) -> SamplePage:
        """A page of what `query` asks for, with counts by leaf and reason of all of it."""
        with self._reading() as db:
            rows_of, given = _rows_of(query, reviews or {})
            counting = f"SELECT leaf, reason, count(*), sum(kept) {rows_of} GROUP BY leaf, reason"
            # Of all samples it is counted already.
            counted = db.execute(counting if given else "SELECT * FROM facet", given).fetchall()
            num_found = sum(count for _, _, count, _ in counted)
            num_before = (min(max(query.page, 1), num_pages(num_found, PAGE_SIZE)) - 1) * PAGE_SIZE
            if query.after:
                before, up_to = _rows_of(query, reviews or {}, up_to=query.after)
                num_before = db.execute(f"SELECT count(*) {before}", up_to).fetchone()[0]
                # Behind the last one those come that were passed over.
                num_before = num_before if num_before < num_found else 0
            # Searched words are found in this order, so no more of them is looked up than is shown.
            order = "words.rowid" if _words(query.words) else "place"
            rows = db.execute(
                f"SELECT place, row FROM body JOIN (SELECT place {rows_of} ORDER BY {order} "
                "LIMIT ? OFFSET ?) USING (place) ORDER BY place",
                (*given, PAGE_SIZE, num_before),
            ).fetchall()
            samples = tuple(_SAMPLE.validate_json(row) for _, row in rows)
        leaves: dict[str, int] = {}
        reasons: dict[str, int] = {}
        for leaf, reason, count, _ in counted:
            leaves[leaf] = leaves.get(leaf, 0) + count
            if reason:
                reasons[reason] = reasons.get(reason, 0) + count
        return SamplePage(
            query=query,
            samples=samples,
            num_found=num_found,
            leaves=_sorted(leaves),
            reasons=_sorted(reasons),
            num_kept=sum(kept for *_, kept in counted),
            num_before=num_before,
            last_place=rows[-1][0] if rows else 0,
        )

    def get(self, sample_id: str) -> Sample | None:
        with self._reading() as db:
            row = db.execute(
                "SELECT row FROM sample JOIN body USING (place) WHERE id = ?", (sample_id,)
            ).fetchone()
            return None if row is None else _SAMPLE.validate_json(row[0])

    def reviewed(self, keys: Iterable[str]) -> tuple[Sample, ...]:
        """The samples that decisions are of, in their order."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT row FROM sample JOIN body USING (place) "
                "WHERE review_key IN (SELECT value FROM json_each(?)) ORDER BY place",
                (json.dumps(sorted(keys)),),
            )
            return tuple(_SAMPLE.validate_json(row[0]) for row in rows)

    def of_one_call(self, sample: Sample) -> tuple[Sample, ...]:
        """What the same call to the teacher gave, this sample among it."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT row FROM sample JOIN body USING (place) "
                "WHERE leaf = ? AND draw = ? AND chunk IS ? ORDER BY place",
                (sample.leaf, sample.draw, sample.chunk),
            )
            found = [_SAMPLE.validate_json(row[0]) for row in rows]
        return tuple(s for s in found if s.seeds == sample.seeds)

    def nearest(self, text: str, num: int) -> list[tuple[Sample, float]]:
        """The `num` kept samples likest `text` by ROUGE-L, of those that share most words with it
        (BM25)."""
        wanted = sorted(set(normalise(text).split()))[:MAX_NEAREST_WORDS]
        if not wanted:
            return []
        query = " OR ".join(f'"{word}"' for word in wanted if '"' not in word)
        with self._reading() as db:
            rows = db.execute(
                "SELECT row FROM words CROSS JOIN sample ON place = words.rowid "
                "JOIN body USING (place) WHERE words MATCH ? AND kept = 1 ORDER BY rank LIMIT ?",
                (query, NUM_NEAR),
            )
            found = [_SAMPLE.validate_json(row[0]) for row in rows]
        scored = [(s, rouge_l(f"{s.question} {s.answer}", text)) for s in found]
        return sorted(scored, key=lambda pair: -pair[1])[:num]

    def some(self, num_per_group: int) -> tuple[Sample, ...]:
        """The first few kept and rejected samples of each leaf and reason, for a report."""
        with self._reading() as db:
            rows = db.execute(
                "SELECT row FROM (SELECT place, row_number() OVER (PARTITION BY leaf, reason "
                "ORDER BY place) AS nth FROM sample) JOIN body USING (place) WHERE nth <= ? "
                "ORDER BY place",
                (num_per_group,),
            )
            return tuple(_SAMPLE.validate_json(row[0]) for row in rows)

    @contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        """Raises RunError where the index is damaged; the next who opens it makes it anew."""
        try:
            with closing(sqlite3.connect(self._uri, uri=True)) as db:
                yield db
        except (sqlite3.DatabaseError, ValidationError) as error:
            self.path.unlink(missing_ok=True)
            raise damaged(
                self.path, what_is_wrong(error), "repeat what you did: it is made anew"
            ) from error


def reason_of(sample: Sample) -> str:
    """Why it was rejected, without the detail in brackets; empty where it was kept."""
    return (sample.rejected_because or "").partition(" (")[0]


def _rows_of(
    query: SampleQuery, reviews: Reviews, up_to: int = 0
) -> tuple[str, tuple[str | int, ...]]:
    """`FROM` and `WHERE`, and what is asked for; with `up_to` no further than to that place."""
    source = "FROM sample"
    parts: list[str] = []
    given: list[str | int] = []
    if up_to:
        parts.append("place <= ?")
        given.append(up_to)
    if query.leaf:
        parts.append("(leaf = ? OR leaf GLOB ?)")
        given += [query.leaf, _literal(query.leaf.rstrip("/")) + "/*"]
    if query.state in ("kept", "rejected"):
        parts.append("kept = ?")
        given.append(int(query.state == "kept"))
    if query.reason:
        parts.append("reason = ?")
        given.append(query.reason)
    if query.chunk:
        parts.append("chunk = ?")
        given.append(query.chunk)
    if query.review:
        is_not = "NOT " if query.review == "open" else ""
        parts.append(f"review_key {is_not}IN (SELECT value FROM json_each(?))")
        given.append(json.dumps(_in_state(query.review, reviews)))
    if wanted := _words(query.words):
        # CROSS: words first; SQLite might else look each row up in them.
        source = "FROM words CROSS JOIN sample ON place = words.rowid"
        parts.append("words MATCH ?")
        given.append(wanted)
    return f"{source} WHERE {' AND '.join(parts)}" if parts else source, tuple(given)


def _in_state(state: ReviewState, reviews: Reviews) -> list[str]:
    """Keys of the samples in a state of review; of all reviewed ones for `open`, which is none."""
    return sorted(
        key
        for key, settled in reviews.items()
        if state == "open"
        or (settled.is_conflict if state == "conflict" else settled.verdict == state)
    )


def _literal(text: str) -> str:
    """For GLOB: its own signs stand for themselves."""
    return "".join(f"[{letter}]" if letter in "*?[" else letter for letter in text)


def _words(text: str) -> str:
    """All the words, each as the beginning of one: `hom zor` finds "the home of Zorbo". One of a
    script without blanks is its characters in a row."""
    return " ".join(
        '"' + searchable(word).replace('"', '""') + '"*' for word in text.replace("\0", " ").split()
    )


def _sorted(counts: dict[str, int]) -> tuple[Facet, ...]:
    return tuple(Facet(v, n) for v, n in sorted(counts.items(), key=lambda c: (-c[1], c[0])))


def _delete_oldest(folder: Path) -> None:
    found = sorted(folder.glob("*.sqlite"), key=lambda path: path.stat().st_mtime, reverse=True)
    for path in found[MAX_KEPT:]:
        # Another process may have been quicker; one that reads it goes on reading.
        path.unlink(missing_ok=True)


def _fill(path: Path, rows: Rows[Sample]) -> None:
    with closing(sqlite3.connect(path)) as db:
        db.executescript("PRAGMA journal_mode = OFF; PRAGMA synchronous = OFF;" + _TABLE)
        for batch in _batches(rows):
            db.executemany("INSERT INTO sample VALUES (?,?,?,?,?,?,?,?,?)", map(_row, batch))
            db.executemany(
                "INSERT INTO body VALUES (?,?)",
                [(place, _SAMPLE.dump_json(s).decode()) for place, s in batch],
            )
            db.executemany(
                "INSERT INTO words (rowid, question, answer, context) VALUES (?,?,?,?)",
                [
                    (place, *map(searchable, (s.question, s.answer, s.context or "")))
                    for place, s in batch
                ],
            )
        db.executescript(_INDICES)
        db.commit()


def _row(numbered: tuple[int, Sample]) -> tuple[str | int | None, ...]:
    place, s = numbered
    reason, key = reason_of(s), review_key(s)
    return place, s.id, s.leaf, int(s.is_kept), reason, s.chunk, s.draw, s.teacher, key


def _batches(rows: Rows[Sample]) -> Iterator[Sequence[tuple[int, Sample]]]:
    batch: list[tuple[int, Sample]] = []
    for numbered in enumerate(rows, start=1):
        batch.append(numbered)
        if len(batch) == _BATCH:
            yield batch
            batch = []
    yield batch
