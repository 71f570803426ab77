"""Text from outside, for a terminal: nothing in it is read as markup or steers the screen."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table

READABLE_NAME = 24
"""Letters of a table's first column that must fit beside its figures."""


def escaped(text: str) -> str:
    """A text on one line for rich, which reads `[red]` as markup unless it is escaped."""
    from rich.markup import escape

    from feldspar.text.printable import on_one_line

    return escape(on_one_line(text))


def quoted(path: Path) -> str:
    """A path as a shell takes it, for a command that is shown to be typed."""
    return shlex.quote(str(path))


def print_table(console: Console, table: Table) -> None:
    """Print a table; on a terminal too narrow for it as lines: a row's name, its figures below."""
    if _fits(console, table):
        console.print(table)
        return
    from rich.padding import Padding

    if table.title:
        console.print(table.title, style="bold")
    headers = [column.header for column in table.columns]
    for name, *cells in zip(*(column.cells for column in table.columns), strict=True):
        console.print(name, highlight=False)
        figures = ", ".join(
            f"{header} {cell}"
            for header, cell in zip(headers[1:], cells, strict=True)
            if cell not in ("", "-")
        )
        if figures:
            console.print(Padding(figures, (0, 0, 0, 4)), highlight=False)
    if table.caption:
        console.print(table.caption, style="dim", highlight=False)
    console.print()


def _fits(console: Console, table: Table) -> bool:
    from rich.cells import cell_len
    from rich.measure import Measurement
    from rich.text import Text

    wide = console.options.update(max_width=10_000)
    needed = Measurement.get(console, wide, table).maximum
    names = [str(cell) for cell in table.columns[0].cells]
    longest = max((cell_len(Text.from_markup(name).plain) for name in names), default=0)
    return needed - max(0, longest - READABLE_NAME) <= console.width


def figures_table(title: str, *columns: str) -> Table:
    """The first column is words, the others are figures."""
    from rich import box
    from rich.table import Table

    table = Table(
        title=title,
        title_justify="left",
        title_style="bold",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
        # Eighty columns hold all figures.
        collapse_padding=True,
    )
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left", no_wrap=number > 0)
    table.caption_justify = "left"
    return table
