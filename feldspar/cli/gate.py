"""`feldspar gate`: whether a run's result keeps the bounds of its recipe."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RUNS, AsJson, RunsRoot, Settings
from feldspar.cli.terminal import escaped, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from feldspar.evaluate.gate import BoundCheck, GateReport

BELOW = 8
"""Exit code where a bound is not kept."""
CARD = "gate.md"


def gate(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    settings: Settings = None,
    runs: RunsRoot = RUNS,
    as_json: AsJson = False,
) -> None:
    """Hold a run's result to the bounds of [gate]; writes a card, gate.md, for a pull request.

    Exit code 8: a bound is not kept.
    """
    from rich.console import Console

    from feldspar.config import lay_settings
    from feldspar.evaluate.gate import check_gate, markdown_card
    from feldspar.files import write_text_whole
    from feldspar.runs import find_run, read_recipe_of

    path = find_run(run, runs)
    recipe = lay_settings(read_recipe_of(path), settings or [])
    report = check_gate(path, recipe.gate)
    card = path / CARD
    write_text_whole(card, markdown_card(report))
    if as_json:
        typer.echo(json.dumps(_as_json(report) | {"card": str(card)}, indent=1))
    else:
        console = Console()
        print_table(console, _table(report))
        console.print(escaped(f"card: {card}"), soft_wrap=True)
    if not report.passes:
        raise typer.Exit(BELOW)


def _as_json(report: GateReport) -> dict[str, object]:
    return {
        "checkpoint": report.checkpoint,
        "passes": report.passes,
        "checks": [dataclasses.asdict(c) | {"passes": c.passes} for c in report.checks],
        "num_forgotten": report.num_forgotten,
        "forgotten": [f._asdict() for f in report.forgotten],
    }


def _table(report: GateReport) -> Table:
    from rich import box
    from rich.table import Table

    title = f"{report.checkpoint} {'passes' if report.passes else 'does not pass'}"
    table = Table(title=escaped(title), title_justify="left", title_style="bold", box=box.SIMPLE)
    table.add_column("bound", overflow="fold")
    for name in ("at least", "found", "items", ""):
        table.add_column(name, no_wrap=True)
    for check in report.checks:
        word = "[green]ok[/green]" if check.passes else "[red]below[/red]"
        table.add_row(
            escaped(check.name), f"{check.wanted:g}", _found(check), str(check.num_items), word
        )
    table.caption = "95 % intervals, of which the lower end counts"
    return table


def _found(check: BoundCheck) -> str:
    low, high = check.interval
    return f"{check.value:.3f} ({low:.3f}, {high:.3f})"
