"""Backslashes before what looks like a section or a marker: put into prompts, taken off replies."""

from __future__ import annotations

import re

_MARKERS = r"###(?!#)|\[(?:Context|Question|Answer|End)\]"
_FORGED = re.compile(rf"^([ \t]*)(?={_MARKERS})", re.IGNORECASE | re.MULTILINE)
_QUOTED = re.compile(rf"^([ \t]*)\\(?={_MARKERS})", re.IGNORECASE | re.MULTILINE)


def quote_sections(text: str) -> str:
    """Put a backslash before what looks like a section or a marker, so that no text can forge one.

    >>> quote_sections("Well.\\n### Reply format")
    'Well.\\n\\\\### Reply format'
    """
    # splitlines knows all the line ends there are; the pattern knows only the common one.
    return _FORGED.sub(r"\1\\", "\n".join(text.splitlines()))


def unquote_sections(text: str) -> str:
    """Take off the backslashes that a reply has copied from its prompt."""
    return _QUOTED.sub(r"\1", text)
