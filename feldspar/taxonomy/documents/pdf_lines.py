"""Paragraphs of a PDF out of its lines as they stand on the page, where no layout model reads it.

Good for text in one column, in the order in which it was written. Tables come out as lines, and
columns as they follow each other in the file.
"""

from __future__ import annotations

import re
import statistics
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import groupby
from typing import NamedTuple

_DASHES = r"\u2013\u2014\-"
_PAGE_NUMBER = re.compile(
    rf"[{_DASHES}\s]*(?:page\s+)?(?:\d{{1,4}}|[ivxlc]{{1,7}})[{_DASHES}\s]*", re.IGNORECASE
)
_RUNNING = 3
"""Pages that begin or end with the same words, but for numbers, from which these are left out."""
_LEADERS = re.compile(r"(?:\s*\.){5,}")
_BULLET = re.compile(rf"^[•◦▪‣·●○*{_DASHES}]\s+(?=\S)")
_HYPHEN = re.compile(r"(?<=[^\W\d_])[-\u00ad]$")
_HEADING_HEIGHT = 1.2
"""Of the usual line's, from which a line is a heading."""
_LONGEST_HEADING = 120
"""Characters."""
_ALIKE = 0.15
"""By how much lines of one paragraph differ in height."""
_GAP = 0.6
"""Of a line's height, more than which between two lines parts paragraphs."""


class PdfLine(NamedTuple):
    """A line of text with its box in points; y grows upwards."""

    page: int
    left: float
    top: float
    right: float
    bottom: float
    text: str

    @property
    def height(self) -> float:
        return self.top - self.bottom


def markdown_of_lines(lines: Sequence[PdfLine]) -> str:
    """Headings and paragraphs, without page numbers, running heads and the lines of a table of
    contents.

    A word that was parted at a line's end is one word again; so is one that has a hyphen there.
    """
    read = list(_without_edges([line for line in lines if line.text.strip()]))
    read = [line for line in read if not _LEADERS.search(line.text)]
    if not read:
        return ""
    usual = statistics.median(line.height for line in read)
    parts: list[list[PdfLine]] = []
    for line in read:
        if parts and _goes_on(parts[-1][-1], line, usual):
            parts[-1].append(line)
        else:
            parts.append([line])
    return "\n\n".join(_shown(part, usual) for part in parts) + "\n"


def _without_edges(lines: Sequence[PdfLine]) -> Iterator[PdfLine]:
    """Without page numbers, and without heads and feet that stand on several pages."""
    pages = [list(of_page) for _, of_page in groupby(lines, key=lambda line: line.page)]
    edges = [{*page[:1], *page[-1:]} for page in pages]
    often = Counter(_without_number(line) for edge in edges for line in edge)
    for page in pages:
        last = len(page) - 1
        for place, line in enumerate(page):
            is_number = _PAGE_NUMBER.fullmatch(line.text) and min(place, last - place) < 2
            repeats = place in (0, last) and often[_without_number(line)] >= _RUNNING
            if not is_number and not repeats:
                yield line


def _without_number(line: PdfLine) -> str:
    return re.sub(r"\d+", "", line.text).strip()


def _goes_on(before: PdfLine, line: PdfLine, usual: float) -> bool:
    if _is_heading(before, usual) != _is_heading(line, usual) or _BULLET.match(line.text):
        return False
    alike = abs(before.height - line.height) <= _ALIKE * max(before.height, line.height)
    if before.page != line.page:
        # A sentence that goes on after the page has turned.
        return alike and line.text[:1].islower()
    gap = before.bottom - line.top
    beside = line.left < before.right and before.left < line.right
    return alike and beside and -line.height < gap <= _GAP * line.height


def _is_heading(line: PdfLine, usual: float) -> bool:
    return line.height >= _HEADING_HEIGHT * usual and len(line.text) <= _LONGEST_HEADING


def _shown(part: Sequence[PdfLine], usual: float) -> str:
    text = ""
    for line in part:
        words = line.text.strip()
        if _HYPHEN.search(text) and words[:1].islower():
            text = text[:-1] + words
        else:
            text = f"{text} {words}" if text else words
    if _is_heading(part[0], usual):
        return f"## {text}"
    return _BULLET.sub("- ", text)
