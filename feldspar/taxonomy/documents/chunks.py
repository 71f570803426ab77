"""Cut a document into passages that a teacher can be shown.

Chunks are stretches of the document as it stands, so nothing is lost; one that begins inside a
table repeats its header. Cuts fall between sections where they can, else between blocks
(paragraphs, tables, code), lines, sentences, words.
"""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from feldspar.records import Chunk, Seed
from feldspar.text.words import UNSPACED
from feldspar.tokens.count import count_words

CountTokens = Callable[[str], int]

# Of Chinese and Japanese too, where what is quoted is part of a sentence.
_SENTENCE_END = re.compile(
    r"(?<=[.!?])[\"')\]\u201d\u2019]*\s+"
    r"|(?<=[\u3002\uff01\uff1f\uff61])(?![\u300d\u300f\uff09\u3011])|\n\s*\n"
)
_EAST_ASIAN = re.compile(f"[{UNSPACED}]")
_EAST_ASIAN_PAUSE = re.compile(r"[\u3001\u3002\uff01\uff0c\uff1a\uff1b\uff1f\uff61\uff64]")
_HEADING = re.compile(r" {0,3}#{1,6}(\s|$)")
_UNDERLINE = re.compile(r" {0,3}(=+|-{2,})\s*$")
_FENCE = re.compile(r" {0,3}(`{3,}|~{3,})")
_ROW = re.compile(r"\s*(\||[-*+] |\d+[.)] )|    |\t")
_ROW_END = re.compile(r"\n")
_HEADER = re.compile(r" {0,3}(\||\S.*\|)")
# The line under a table's header: `|---|:--:|`.
_RULE = re.compile(r" {0,3}\|[ \t]*:?-+:?[ \t]*(\|[ \t]*:?-+:?[ \t]*)*\|?[ \t]*\n?")
_LETTERS = re.compile(rf"{_EAST_ASIAN.pattern}|(?:(?!{_EAST_ASIAN.pattern})\w)+")
_LINE = re.compile(r"[^\n]*\n|[^\n]+")


def cut_chunks(text: str, document: str, max_tokens: int, count_tokens: CountTokens) -> list[Chunk]:
    """Cut `text` into chunks of at most `max_tokens`; every non-blank piece is in one of them.

    Only a single character can be longer than `max_tokens`. `document` is its name. A chunk that
    repeats an earlier one is left out.
    """
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    units = [
        unit for block in _blocks(text) for unit in _fitting(text, block, max_tokens, count_tokens)
    ]
    chunks: dict[str, Chunk] = {}
    for passage in _packed(text, units, max_tokens, count_tokens):
        digest = hashlib.sha256(passage.encode("utf-8", "surrogatepass")).hexdigest()[:16]
        chunks.setdefault(
            digest,
            Chunk(id=digest, document=document, text=passage, num_tokens=count_tokens(passage)),
        )
    return list(chunks.values())


class Coverage(NamedTuple):
    """What chunks hold of the documents and of the contexts that seeds stand on."""

    num_words: int
    """Of all documents."""
    num_covered: int
    """Of the chunks; fewer where a passage stands in the documents more than once."""
    lines_by_chunk: dict[str, tuple[int, ...]]
    """Lines of the seeds whose context a chunk holds, by the chunk's id."""
    torn: tuple[int, ...]
    """Lines of the seeds whose context is in no chunk as a whole."""


def cover(texts: Sequence[str], chunks: Sequence[Chunk], seeds: Sequence[Seed]) -> Coverage:
    """Measure by words, so that line breaks and punctuation do not count; each East Asian character
    is one."""
    held = {chunk.id: f" {_plain(chunk.text)} " for chunk in chunks}
    contexts = {seed.line: f" {_plain(seed.context)} " for seed in seeds if seed.context}
    lines = {
        key: tuple(line for line, context in contexts.items() if context in text)
        for key, text in held.items()
    }
    found = {line for of_chunk in lines.values() for line in of_chunk}
    num_words = sum(count_words(text) for text in texts)
    num_covered = min(num_words, sum(count_words(chunk.text) for chunk in chunks))
    torn = tuple(line for line in contexts if line not in found)
    return Coverage(num_words, num_covered, lines, torn)


def _plain(text: str) -> str:
    return " ".join(_LETTERS.findall(unicodedata.normalize("NFC", text).casefold()))


class _Span(NamedTuple):
    start: int
    end: int


def _passage(text: str, start: int, end: int, header: _Span | None = None) -> str:
    """The text without blank lines around it; its first line keeps its indentation."""
    body = text[start:end].strip("\n").rstrip() if text[start:end].strip() else ""
    return f"{text[header.start : header.end]}{body}" if header is not None and body else body


class _Block(NamedTuple):
    start: int
    end: int
    is_rows: bool
    """A table, a list or code: cut between lines when it must be cut, not between sentences."""
    opens_section: bool
    header: _Span | None
    """The first lines of a table, to stand above rows that are cut from them."""


class _Unit(NamedTuple):
    """What is not cut further."""

    start: int
    end: int
    num_tokens: int
    opens_section: bool = False
    header: _Span | None = None


def _blocks(text: str) -> Iterator[_Block]:
    """The blocks of a Markdown text, one after the other; a heading belongs to what it heads."""
    block = _OpenBlock(0)
    for match in _LINE.finditer(text):
        if block.ends_before(match.group()):
            yield block.closed(match.start())
            block = _OpenBlock(match.start())
        block.take(match.group(), match.start())
    if block.start < len(text):
        yield block.closed(len(text))


@dataclass(slots=True)
class _OpenBlock:
    """A block that is being read line by line."""

    start: int
    fence: str = ""
    """What opened the code that is being read."""
    opens_section: bool = False
    is_after_end: bool = False
    """Whether the last line was blank or closed a fence."""
    num_body_lines: int = 0
    num_rows: int = 0
    header_start: int = -1
    header: _Span | None = None

    def ends_before(self, line: str) -> bool:
        if self.fence or self.num_body_lines == 0 or not line.strip():
            return False
        return self.is_after_end or _HEADING.match(line) is not None

    def take(self, line: str, start: int) -> None:
        is_under_one = self.num_body_lines == 1 and self.header_start >= 0 and not self.fence
        if is_under_one and _RULE.fullmatch(line):
            self.header = _Span(self.header_start, start + len(line))
        if self.fence:
            self._take_code(line)
        elif _HEADING.match(line):
            self.opens_section = True
        elif self.num_body_lines == 1 and not self.is_after_end and _UNDERLINE.match(line):
            self.opens_section, self.num_body_lines, self.num_rows = True, 0, 0
        elif line.strip():
            fence = _FENCE.match(line)
            self.fence = fence.group(1) if fence is not None else ""
            if self.num_body_lines == 0:
                self.header_start = start if _HEADER.match(line) else -1
            self.num_body_lines += 1
            self.num_rows += fence is not None or _ROW.match(line) is not None
            self.is_after_end = False
        else:
            self.is_after_end = True

    def _take_code(self, line: str) -> None:
        self.num_body_lines += 1
        self.num_rows += 1
        if line.strip().startswith(self.fence) and not line.strip().strip(self.fence[0]):
            self.fence = ""
            self.is_after_end = True

    def closed(self, end: int) -> _Block:
        is_rows = 2 * self.num_rows > self.num_body_lines
        return _Block(self.start, end, is_rows, self.opens_section, self.header)


def _fitting(
    text: str, block: _Block, max_tokens: int, count_tokens: CountTokens
) -> Iterator[_Unit]:
    """The block itself where it fits, else its lines or sentences, else parts of those."""
    num_tokens = count_tokens(_passage(text, block.start, block.end))
    if num_tokens <= max_tokens:
        yield _Unit(block.start, block.end, num_tokens, block.opens_section)
        return
    opens_section = block.opens_section
    end_pattern = _ROW_END if block.is_rows else _SENTENCE_END
    header = block.header if block.is_rows else None
    room = max_tokens
    if header is not None:
        room -= count_tokens(text[header.start : header.end])
    for start, end in _between(text, block.start, block.end, end_pattern):
        # A header that takes up half a chunk is worth less than the rows it would displace.
        is_headed = header is not None and start >= header.end and 2 * room >= max_tokens
        for unit in _halved(text, start, end, room if is_headed else max_tokens, count_tokens):
            above = header if is_headed else None
            yield unit._replace(opens_section=opens_section, header=above)
            opens_section = False


def _between(text: str, start: int, end: int, end_pattern: re.Pattern[str]) -> Iterator[_Span]:
    for match in end_pattern.finditer(text, start, end):
        if match.end() > start:
            yield _Span(start, match.end())
            start = match.end()
    if start < end:
        yield _Span(start, end)


def _halved(
    text: str, start: int, end: int, max_tokens: int, count_tokens: CountTokens
) -> Iterator[_Unit]:
    """Halve at the space nearest to the middle, again and again, until every part fits; a script
    without spaces after a comma or a stop where there is one."""
    num_tokens = count_tokens(_passage(text, start, end))
    if num_tokens <= max_tokens or end - start <= 1:
        yield _Unit(start, end, num_tokens)
        return
    middle = (start + end) // 2
    if _EAST_ASIAN.search(text, middle - 1, middle + 1) and (
        pause := _pause(text, start, end, middle)
    ):
        yield from _halved(text, start, pause, max_tokens, count_tokens)
        yield from _halved(text, pause, end, max_tokens, count_tokens)
        return
    before = max(text.rfind(space, start + 1, middle) for space in " \n\t")
    after = text.find(" ", middle, end - 1)
    cut = before if before > 0 else after if after > 0 else middle - 1
    yield from _halved(text, start, cut + 1, max_tokens, count_tokens)
    yield from _halved(text, cut + 1, end, max_tokens, count_tokens)


def _pause(text: str, start: int, end: int, middle: int) -> int | None:
    """Where the pause ends that is nearest to the middle, inside the span."""
    ends = (match.end() for match in _EAST_ASIAN_PAUSE.finditer(text, start, end))
    return min((e for e in ends if e < end), key=lambda e: abs(e - middle), default=None)


def _packed(
    text: str, units: list[_Unit], max_tokens: int, count_tokens: CountTokens
) -> Iterator[str]:
    """Fill chunks with neighbouring units; a new section opens a chunk when half is full."""
    first = 0
    while first < len(units):
        start, header = units[first].start, units[first].header
        total = units[first].num_tokens
        if header is not None:
            total += count_tokens(text[header.start : header.end])
        last = first + 1
        while last < len(units) and total + units[last].num_tokens <= max_tokens:
            if units[last].opens_section and 2 * total >= max_tokens:
                break
            total += units[last].num_tokens
            last += 1
        passage = _passage(text, start, units[last - 1].end, header)
        # Tokens of a whole can be more than those of its parts, so the whole is counted.
        while count_tokens(passage) > max_tokens and (last > first + 1 or header is not None):
            last, header = (last - 1, header) if last > first + 1 else (last, None)
            passage = _passage(text, start, units[last - 1].end, header)
        if passage:
            yield passage
        first = last
