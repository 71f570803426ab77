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
_ROMAN_ALONE = re.compile(
    rf"[{_DASHES}\s]*(?=[ivxlc])((?:x{{0,3}}|xl|lx{{0,3}}|xc|c{{1,3}})(?:i{{0,3}}|iv|vi{{0,3}}|ix))[{_DASHES}\s]*",
    re.IGNORECASE,
)
_ROMAN_DIGITS = {"i": 1, "v": 5, "x": 10, "l": 50, "c": 100}
_AROUND_NUMBER = " -\u2013\u2014"
_ROMAN_FORM = "roman"
_NUMBER_ALONE = ("#", _ROMAN_FORM)
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
    read = [line for line in lines if line.text.strip() and not _LEADERS.search(line.text)]
    if not read:
        return ""
    usual = statistics.median(line.height for line in read)
    read = list(_without_edges(read, usual))
    parts: list[list[PdfLine]] = []
    for line in read:
        if parts and _goes_on(parts[-1][-1], line, usual):
            parts[-1].append(line)
        else:
            parts.append([line])
    return "\n\n".join(_shown(part, usual) for part in parts) + "\n"


def _without_edges(lines: Sequence[PdfLine], usual: float) -> Iterator[PdfLine]:
    """Without page numbers, and without heads and feet that stand on several pages.

    A number alone may be a year or the last cell of a table, and "Chapter 2" opens a page as a head
    does: what goes is only what is the same each time, or counts the pages.
    """
    pages = [list(of_page) for _, of_page in groupby(lines, key=lambda line: line.page)]
    counted = {
        (line.page, *number)
        for page in pages
        for line in (*page[:2], *page[-2:])
        for number in _numbers(line.text)
    }
    outermost = [line for page in pages for line in {*page[:1], *page[-1:]}]
    same = Counter(line.text.strip() for line in outermost)
    alike = Counter(_form(line.text) for line in outermost)
    seen: set[str] = set()

    def counts_pages(line: PdfLine) -> bool:
        return any(
            (line.page + step, form, which, number + step) in counted
            for form, which, number in _numbers(line.text)
            for step in (-2, -1, 1, 2)
        )

    def goes(line: PdfLine, *, is_outermost: bool, is_first: bool) -> bool:
        form, is_heading = _form(line.text), _is_heading(line, usual)
        is_same = is_outermost and same[line.text.strip()] >= _RUNNING
        if is_same and not (is_first and is_heading):
            return True
        is_alike = is_outermost and alike[form] >= _RUNNING and not is_heading
        return (form in _NUMBER_ALONE or is_alike) and counts_pages(line)

    for page in pages:
        for place, line in enumerate(page):
            is_first = line.text.strip() not in seen
            seen.add(line.text.strip())
            from_edge = min(place, len(page) - 1 - place)
            if from_edge > 1 or not goes(line, is_outermost=not from_edge, is_first=is_first):
                yield line


def _form(text: str) -> str:
    """The line with `#` for each number; a Roman one counts where it stands alone."""
    if _ROMAN_ALONE.fullmatch(text.strip()):
        return _ROMAN_FORM
    return re.sub(r"\d+", "#", text).strip(_AROUND_NUMBER).casefold().removeprefix("page ")


def _numbers(text: str) -> list[tuple[str, int, int]]:
    """The form, which number it is, and its value."""
    if roman := _ROMAN_ALONE.fullmatch(text.strip()):
        return [(_ROMAN_FORM, 0, _roman(roman[1]))]
    found = re.findall(r"\d+", text)
    return [(_form(text), which, int(n)) for which, n in enumerate(found) if len(n) <= 4]


def _roman(text: str) -> int:
    values = [_ROMAN_DIGITS[digit] for digit in text.casefold()]
    return sum(-v if v < later else v for v, later in zip(values, [*values[1:], 0], strict=True))


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
