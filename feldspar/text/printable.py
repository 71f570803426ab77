"""Text from outside made fit for a terminal: nothing in it steers, hides or rearranges a line."""

from __future__ import annotations

import unicodedata

_ESCAPED_CATEGORIES = ("Cc", "Cf", "Cs", "Zl", "Zp")
# Words of Persian, Hindi and others, and many emoji, hold these two; they steer nothing.
_JOINERS = "\u200c\u200d"


def printable(text: str, *, keep: str = "\n\t") -> str:
    r"""The text with control, direction and surrogate characters as escapes, but for those in
    `keep`: `\x1b`, `\u202e`, `\udcff`.

    >>> printable("\x1b[31mred")
    '\\x1b[31mred'
    """
    if text.isascii() and text.isprintable():
        return text
    return "".join(c if c in keep or not _is_escaped(c) else _escape(c) for c in text)


def on_one_line(text: str) -> str:
    r"""As `printable`, with line ends and tabs as `\n`, `\r` and `\t` too."""
    return printable(text, keep="")


def _is_escaped(character: str) -> bool:
    return unicodedata.category(character) in _ESCAPED_CATEGORIES and character not in _JOINERS


def _escape(character: str) -> str:
    named = {"\n": r"\n", "\r": r"\r", "\t": r"\t"}.get(character)
    if named is not None:
        return named
    code = ord(character)
    if code <= 0xFF:
        return f"\\x{code:02x}"
    return f"\\u{code:04x}" if code <= 0xFFFF else f"\\U{code:08x}"
