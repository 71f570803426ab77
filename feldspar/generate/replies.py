"""Reading the teacher's blocks: `[Question]`, a text, `[Answer]`, a text, `[End]`."""

from __future__ import annotations

import re
from typing import Literal

from feldspar.generate.quoting import unquote_sections

Field = Literal["context", "question", "answer"]

# Models number their blocks, make markers bold, and go on in the marker's line.
_MARKER = re.compile(
    r"^[ \t>*_#-]*(?:\d+[.)][ \t*_]*)?\[(context|question|answer|end)\][ \t*_]*:?[ \t*_]*",
    re.IGNORECASE | re.MULTILINE,
)


def read_blocks(text: str, fields: tuple[Field, ...], limit: int) -> list[tuple[str, ...]]:
    """The complete blocks of a reply, at most `limit`: for each, its fields' texts in order.

    A block ends at `[End]`, at the next block's first marker, or with the reply.
    """
    blocks: list[tuple[str, ...]] = []
    block: dict[str, str] = {}
    marks = list(_MARKER.finditer(text))
    ends = [mark.start() for mark in marks[1:]] + [len(text)]
    for mark, end in zip(marks, ends, strict=False):
        name = mark[1].lower()
        if name == "end" or name == fields[0]:
            _close(block, fields, blocks)
            block = {}
        if name in fields:
            block[name] = unquote_sections(text[mark.end() : end]).strip()
    _close(block, fields, blocks)
    return blocks[:limit]


def _close(block: dict[str, str], fields: tuple[Field, ...], blocks: list[tuple[str, ...]]) -> None:
    texts = tuple(block.get(field, "") for field in fields)
    if all(texts):
        blocks.append(texts)
