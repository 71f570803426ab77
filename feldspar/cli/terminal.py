"""Text from outside, for a terminal: nothing in it is read as markup or steers the screen."""

from __future__ import annotations


def escaped(text: str) -> str:
    """A text on one line for rich, which reads `[red]` as markup unless it is escaped."""
    from rich.markup import escape

    from feldspar.text.printable import on_one_line

    return escape(on_one_line(text))
