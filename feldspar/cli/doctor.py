"""`feldspar doctor`: what is free to check of a run, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RecipePath, Settings

if TYPE_CHECKING:
    from rich.table import Table

    from feldspar.ahead import Check

WRONG = 1
_STYLES = {"ok": "green", "note": "yellow", "wrong": "red"}
_TICKS = {"ok": "\N{CHECK MARK}", "note": "\N{EN DASH}", "wrong": "\N{BALLOT X}"}


def doctor(
    recipe: RecipePath,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Look at all that a run needs and is free to check. Exit code 1: something is wrong."""
    from rich.console import Console

    from feldspar.cli.progress import make_progress
    from feldspar.config import read_recipe
    from feldspar.prepare import doctor as look

    checks = look(read_recipe(recipe, settings or []), recipe.parent, make_progress())
    if as_json:
        import json

        typer.echo(json.dumps({"checks": as_rows(checks)}, indent=1))
    else:
        console = Console()
        console.print(checks_table(checks, is_plain=console.options.ascii_only))
    if any(check.state == "wrong" for check in checks):
        raise typer.Exit(WRONG)


def as_rows(checks: Sequence[Check]) -> list[dict[str, str]]:
    """For JSON: `{"name": "base", "state": "ok", "says": "..."}`."""
    return [{"name": c.name, "state": c.state, "says": c.says} for c in checks]


def checks_table(checks: Sequence[Check], *, is_plain: bool = False) -> Table:
    """A line each: a tick, a dash for what should be known, or a cross with the cure."""
    from rich.table import Table

    from feldspar.cli.terminal import escaped

    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for check in checks:
        style = _STYLES[check.state]
        tick = check.state if is_plain else _TICKS[check.state]
        table.add_row(f"[{style}]{tick}[/{style}]", check.name, escaped(check.says))
    return table
