"""Reading the teacher's blocks: `[Question]`, a text, `[Answer]`, a text, `[End]`.

Lenient about form: models number their blocks, make markers bold, go on in the marker's line, close
what they opened, or fall into headings, labels or JSON. Strict about content: a text whose end
is not clear, or that is there twice, is not kept.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from typing import Literal

from feldspar.generate.quoting import unquote_sections

Field = Literal["context", "question", "answer"]
Blocks = list[tuple[str, ...]]

_NAME = r"(?P<name>context|question|answer|end)(?:[ \t]*#?\d+)?"
_BEFORE = r"^[ \t>*_#-]*(?:\d+[.)][ \t*_]*)?"
_AFTER = r"[ \t*_]*:?[ \t*_]*"
_END = rf"^[ \t>*_#-]*\[(?P<end>end)\]{_AFTER}"
# `[Question]`, `**[Question 2]:**`
_BRACKETS = re.compile(rf"{_BEFORE}\[{_NAME}\]{_AFTER}", re.IGNORECASE | re.MULTILINE)
# `### Question`, `## **Question 2:** What is ...`
_HEADINGS = re.compile(
    rf"^[ \t>]*#{{1,6}}[ \t*_]*(?:\d+[.)][ \t*_]*)?{_NAME}[ \t*_]*(?::[ \t*_]*|\r?$)|{_END}",
    re.IGNORECASE | re.MULTILINE,
)
# `Question: What is ...`, `- **Question 2:** What is ...`
_LABELS = re.compile(
    rf"^[ \t>*_-]*(?:\d+[.)][ \t*_]*)?{_NAME}[ \t*_]*:[ \t*_]*|{_END}",
    re.IGNORECASE | re.MULTILINE,
)
_CLOSING = re.compile(r"[ \t*_]*\[/(?:context|question|answer|end)\](?P<behind>.*)", re.IGNORECASE)
# What stands before the next block and belongs to neither: `---`, `2.`, `**Pair 2:**`
_BETWEEN = re.compile(
    r"\s*^[ \t>*_#-]*(?:[-*=_]{3,}|(?:(?:pair|block|example|item)[ \t]*)?#?(?P<number>\d+)[.):])"
    r"[ \t*_]*\s*\Z",
    re.IGNORECASE | re.MULTILINE,
)
MAX_JSON_STARTS = 200
"""Places in a reply where JSON may begin that are tried."""


def read_blocks(text: str, fields: tuple[Field, ...], limit: int) -> Blocks:
    """The complete blocks of a reply, at most `limit`: for each, its fields' texts in order.

    A block ends at `[End]`, at the next block's first marker, or with the reply. The first form
    that a reply has markers of is the one it is read in.
    """
    if any(mark["name"].lower() in fields for mark in _BRACKETS.finditer(text)):
        return _read_marked(text, fields, _BRACKETS)[:limit]
    for read in _OTHER_FORMS:
        blocks = read(text, fields)
        if blocks:
            return blocks[:limit]
    return []


def read_whole(text: str) -> str | None:
    """A reply that is one text, without the markers of an answer where a model put them around it.

    None where it has markers and it is not clear which part is meant.

    >>> read_whole("[Answer]\\n4\\n[End]")
    '4'
    """
    first = _BRACKETS.search(text)
    if first is None and _CLOSING.search(text) is None:
        return unquote_sections(text)
    is_opened = first is not None and first["name"].lower() == "answer"
    if first is not None and is_opened and text[: first.start()].strip():
        return None
    marked = text if is_opened else f"[Answer]\n{text}"
    others = list(_BRACKETS.finditer(marked))[1:]
    is_ended = len(others) == 1 and others[0]["name"].lower() == "end"
    if others and not (is_ended and not marked[others[0].end() :].strip()):
        return None
    blocks = _read_marked(marked, ("answer",), _BRACKETS)
    return blocks[0][0] if blocks else None


def _read_marked(text: str, fields: tuple[Field, ...], pattern: re.Pattern[str]) -> Blocks:
    blocks: Blocks = []
    block: dict[str, str] = {}
    marks = list(pattern.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=False):
        name = (mark["name"] or "end").lower()
        if name == "end" or name == fields[0]:
            _close(block, fields, blocks)
            block = {}
        if name in fields:
            found = _cleaned(text[mark.end() : end])
            if pattern is not _BRACKETS:
                found = _without_divider(found, len(blocks) + 2)
            # "Answer:" within a worked answer looks like a second one: which is meant?
            block[name] = "" if name in block else found
    _close(block, fields, blocks)
    return blocks


def _cleaned(text: str) -> str:
    """A field's text; nothing where a closing marker stands in the middle of a line."""
    closing = _CLOSING.search(text)
    if closing is not None:
        text = "" if closing["behind"].strip(" \t\r*_") else text[: closing.start()]
    return _unmarked(text)


def _unmarked(text: str) -> str:
    """A text; nothing where a marker is left in it, so that it is no text of its own."""
    return "" if _BRACKETS.search(text.strip()) else unquote_sections(text).strip()


def _without_divider(text: str, next_number: int) -> str:
    """A block's last text without the line that announces block `next_number`."""
    divider = _BETWEEN.search(text)
    if divider is None or divider["number"] not in (None, str(next_number)):
        return text
    return text[: divider.start()]


def _close(block: dict[str, str], fields: tuple[Field, ...], blocks: Blocks) -> None:
    texts = tuple(block.get(field, "") for field in fields)
    if all(texts):
        blocks.append(texts)


def _read_headings(text: str, fields: tuple[Field, ...]) -> Blocks:
    return _read_marked(text, fields, _HEADINGS)


def _read_labels(text: str, fields: tuple[Field, ...]) -> Blocks:
    return _read_marked(text, fields, _LABELS)


def _read_json(text: str, fields: tuple[Field, ...]) -> Blocks:
    """`[{"question": "...", "answer": "..."}]`, an object that holds such a list, or one a line.

    A list of plain texts where there is one field, unless the reply labels it: a question may hold
    such a list.
    """
    blocks: Blocks = []
    labelled = (*_LABELS.finditer(text), *_HEADINGS.finditer(text))
    is_labelled = any((mark["name"] or "").lower() in fields for mark in labelled)
    for value in _json_values(text):
        if is_labelled and isinstance(value, list) and not any(isinstance(v, dict) for v in value):
            continue
        for row in _rows(value, fields):
            if all(row):
                blocks.append(row)
    return blocks


def _json_values(text: str) -> Iterator[object]:
    decoder = json.JSONDecoder()
    place = 0
    for _ in range(MAX_JSON_STARTS):
        start = re.compile(r"[\[{]").search(text, place)
        if start is None:
            return
        try:
            value, place = decoder.raw_decode(text, start.start())
        except (ValueError, RecursionError):
            place = start.end()
        else:
            yield value


def _rows(value: object, fields: tuple[Field, ...]) -> Iterator[tuple[str, ...]]:
    if isinstance(value, str) and len(fields) == 1:
        yield (_text(value),)
    elif isinstance(value, list):
        for each in value:
            if not isinstance(each, list):
                yield from _rows(each, fields)
    elif isinstance(value, dict):
        by_name = {key.strip().lower(): each for key, each in value.items()}
        if fields[0] in by_name:
            yield tuple(_text(by_name.get(field)) for field in fields)
        elif len(value) == 1:
            (only,) = value.values()
            if isinstance(only, list):
                yield from _rows(only, fields)


def _text(value: object) -> str:
    """Of a text or a whole number; nothing of anything else, or of what is no Unicode text."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str) or any("\ud800" <= letter <= "\udfff" for letter in value):
        return ""
    return _unmarked(value)


_OTHER_FORMS: tuple[Callable[[str, tuple[Field, ...]], Blocks], ...] = (
    _read_json,
    _read_headings,
    _read_labels,
)
