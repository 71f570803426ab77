"""`feldspar learn`: one leaf more for a model that was trained."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot, Settings
from feldspar.cli.terminal import escaped, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from feldspar.evaluate.scores import Comparison


def learn(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    leaf: Annotated[Path, typer.Argument(help="Folder of the new leaf, within a taxonomy.")],
    settings: Settings = None,
    runs: RunsRoot = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Add a leaf to a run's result with replay; shows what it learned and what it forgot."""
    from rich.console import Console

    from feldspar.add_leaf import is_new, learn_leaf
    from feldspar.cli.progress import make_progress
    from feldspar.evaluate.comparing import BASE, compare_scored, open_scored
    from feldspar.runs import find_run, read_recipe_of

    path = learn_leaf(find_run(run, runs), leaf, settings or [], make_progress())
    found = compare_scored(open_scored(path, BASE), open_scored(path), path)
    recipe = read_recipe_of(path)
    if as_json:
        exams = [
            dataclasses.asdict(c)
            | {"is_new": is_new(c.exam, recipe), "is_beyond_noise": c.difference.is_beyond_noise}
            for c in found
        ]
        typer.echo(json.dumps({"run": str(path), "exams": exams}, indent=1))
        return
    console = Console()
    for title, is_wanted in (("Learned", True), ("Kept or forgotten", False)):
        rows = [c for c in found if is_new(c.exam, recipe) is is_wanted]
        if rows:
            print_table(console, _table(title, rows))
    last = f"the new model: feldspar chat {path.name}; report: {path / 'report.html'}"
    console.print(escaped(last), soft_wrap=True)


def _table(title: str, rows: Sequence[Comparison]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, title_justify="left", title_style="bold", box=box.SIMPLE_HEAD)
    table.add_column("exam", no_wrap=True)
    for column in ("measure", "items", "change"):
        table.add_column(column, no_wrap=True)
    for row in rows:
        low, high = row.difference.interval
        change = f"{row.difference.value:+.2f} ({low:+.2f}, {high:+.2f})"
        if not row.difference.is_beyond_noise:
            change = f"[dim]{change}[/dim]"
        table.add_row(escaped(row.exam), row.metric, str(row.difference.num_pairs), change)
    table.caption = "after less before, paired, 95 % intervals; dim: not beyond noise"
    return table
