"""Characters that look like a space or like nothing, in a leaf: which, where, and without them."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator
from typing import NamedTuple

from feldspar.taxonomy.codes import Severity
from feldspar.taxonomy.findings import Findings
from feldspar.taxonomy.nodes import At

_BLANKS = "\u00a0\u1680\u2000-\u200a\u202f\u205f\u3000"
_ZERO_WIDTH = "\u00ad\u180e\u200b\u2060\ufeff"
_DIRECTIONS = "\u202a-\u202e\u2066-\u2069"
_LINE_ENDS = "\u0085\u2028\u2029"
_JOINERS = "\u200c\u200d\u200e\u200f"

UNSEEN_CURE = "type a space in its place, or delete it: `feldspar taxonomy check --fix` does"
_UNSEEN = f"[{_BLANKS}{_ZERO_WIDTH}{_DIRECTIONS}{_LINE_ENDS}{_JOINERS}]"
# No YAML reader takes these for a space: `\u00a0answer:` is a key that nobody knows.
_ANY_UNSEEN = re.compile(_UNSEEN)
# U+3000 is the space of Chinese and Japanese; joiners and marks belong to the writing of others.
_IN_TEXT = re.compile(f"[{_BLANKS.replace(chr(0x3000), '')}{_ZERO_WIDTH}{_LINE_ENDS}]")
_DIRECTION = re.compile(f"[{_DIRECTIONS}]")
# What stands before a value: indentation, dashes, a key with its colon and the blanks after it.
# Possessive, so that a line of a million such characters takes no longer than it must.
_STRUCTURE = re.compile(
    rf"(?:[ \t]|{_UNSEEN})*+(?:-(?:[ \t]|{_UNSEEN})++)*+"
    rf"(?:(?P<key>(?:\w|{_UNSEEN})++)[ \t]*+:(?:[ \t]|{_UNSEEN})*+)?"
)


class Invisible(NamedTuple):
    """One invisible character; `at` is its line and column, counted from 1."""

    at: At
    character: str

    @property
    def name(self) -> str:
        """`no-break space (U+00A0)`."""
        named = unicodedata.name(self.character, "control character").lower()
        return f"{named} (U+{ord(self.character):04X})"


def in_structure(
    text: str, text_lines: Iterable[int], keys: Collection[str]
) -> Iterator[Invisible]:
    """The first invisible character of each line where YAML expects spaces or one of `keys`.

    `text_lines` are lines on which a text after `|` or between quotes goes on: they are left out.
    """
    inside = frozenset(text_lines)
    for number, line in enumerate(text.split("\n"), start=1):
        if line.isascii() or number in inside:
            continue
        structure = _STRUCTURE.match(line)
        assert structure is not None
        key = structure["key"]
        # `Note\u00a0: ...` is how French is written, and a line of a text.
        is_key = key is None or _ANY_UNSEEN.sub("", key) in keys
        found = _ANY_UNSEEN.search(line, 0, structure.end())
        if found is not None and is_key:
            yield Invisible((number, found.start() + 1), found.group())


def has_invisible(key: str) -> bool:
    """Whether a key is another than it looks."""
    return _ANY_UNSEEN.search(key) is not None


def without_invisible(line: str) -> str:
    """A line whose indentation, dashes and key hold plain spaces alone."""
    structure = _STRUCTURE.match(line)
    assert structure is not None
    plain = _ANY_UNSEEN.sub(_in_its_place, structure.group())
    return plain + line[structure.end() :]


def find_in_texts(text: str, structural: Iterable[Invisible], findings: Findings) -> None:
    """Add a finding for characters in texts that no reader sees: one of each kind for a file."""
    known = {invisible.at[0] for invisible in structural}
    kinds: tuple[tuple[re.Pattern[str], Severity, str], ...] = (
        (_DIRECTION, "warning", "delete it: the text reads otherwise than it is stored"),
        (_IN_TEXT, "note", "type a space in its place, or delete it: the student learns it too"),
    )
    for pattern, severity, cure in kinds:
        found = [
            Invisible((number, match.start() + 1), match.group())
            for number, line in enumerate(text.split("\n"), start=1)
            if not line.isascii() and number not in known
            for match in pattern.finditer(line)
        ]
        if found:
            message = f"{found[0].name} in a text"
            if len(found) > 1:
                message += f", and {len(found) - 1} more such characters in the file"
            findings.add("FT028", message, cure, found[0].at, severity)


def _in_its_place(found: re.Match[str]) -> str:
    return " " if unicodedata.category(found.group()) == "Zs" else ""
