"""`feldspar plan --cluster`: who of a run holds which GPUs when, and what that costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import typer

from feldspar.cli.terminal import escaped, figures_table, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from feldspar.config import Recipe
    from feldspar.plan import ClusterPlan
    from feldspar.plan.timetable import Timetable


def show_cluster_plan(
    recipe: Recipe, folder: Path, cluster: str, *, num_probes: int, as_json: bool
) -> None:
    """Print the timetable of a cluster such as `h100x8x10`. Raises RecipeError for one that is not
    known, or too small."""
    from feldspar.cli.progress import make_progress
    from feldspar.plan import named_cluster
    from feldspar.planning import plan_cluster

    made = plan_cluster(
        recipe, folder, make_progress(), named_cluster(cluster), num_probes=num_probes
    )
    if as_json:
        typer.echo(_as_json(made.cluster))
    else:
        _print(made.cluster, recipe.name, made.plan.warnings)


def _as_json(made: ClusterPlan) -> str:
    import dataclasses
    import json

    told = {
        "cluster": dataclasses.asdict(made.timetable.cluster),
        "turns": [dataclasses.asdict(turn) for turn in made.timetable.turns],
        "bookings": [dataclasses.asdict(booking) for booking in made.timetable.bookings],
        "expected": _bill(made, made.timetable),
        "fastest": _bill(made, made.fastest),
        "slowest": _bill(made, made.slowest),
        "copies": [dataclasses.asdict(copies) for copies in made.copies],
        "assumptions": made.assumptions,
        "not_included": made.not_included,
    }
    return json.dumps(told, indent=1)


def _bill(made: ClusterPlan, timetable: Timetable) -> dict[str, float]:
    return {
        "hours": timetable.hours,
        "gpu_hours": timetable.gpu_hours,
        "idle_share": timetable.idle_share,
        "cost": made.cost(timetable),
    }


def _print(made: ClusterPlan, name: str, warnings: tuple[str, ...]) -> None:
    from rich.console import Console

    console = Console()
    title = f"\n[bold]{escaped(name)}[/bold]  on {escaped(str(made.timetable.cluster))}\n"
    console.print(title, highlight=False)
    print_table(console, _turns_table(made.timetable))
    print_table(console, _bill_table(made))
    if made.copies:
        print_table(console, _copies_table(made))
    console.print(_closing_table(made))
    for warning in warnings:
        console.print(escaped(f"warning: {warning}"), style="yellow", highlight=False)


def _turns_table(timetable: Timetable) -> Table:
    table = figures_table("Timetable", "part", "role", "from h", "to h", "GPUs", "GPU-hours")
    for turn in timetable.turns:
        held = f"{turn.num_replicas} x {turn.gpus_each}"
        span = f"{turn.start:,.2f}", f"{turn.end:,.2f}"
        table.add_row(escaped(turn.part), turn.role, *span, held, f"{turn.gpu_hours:,.1f}")
    table.caption = "GPUs: copies x GPUs of each; hours from the run's start"
    return table


def _bill_table(made: ClusterPlan) -> Table:
    table = figures_table("The whole cluster", "", "hours", "GPU-hours", "idle", "cost")
    ways = (("expected", made.timetable), ("fastest", made.fastest), ("slowest", made.slowest))
    for name, timetable in ways:
        cost = made.cost(timetable)
        table.add_row(
            name,
            f"{timetable.hours:,.1f}",
            f"{timetable.gpu_hours:,.0f}",
            f"{timetable.idle_share:.0%}",
            f"{cost:,.0f}" if cost else "-",
        )
    table.caption = "idle: no job, or one that starts"
    return table


def _copies_table(made: ClusterPlan) -> Table:
    columns = ("table", "replicas", "gpus_each", "nodes_each")
    table = figures_table("To write in the recipe", *columns)
    for copies in made.copies:
        figures = (copies.replicas, copies.gpus_each, copies.nodes_each)
        table.add_row(escaped(f"[{copies.table}]"), *map(str, figures))
    return table


def _closing_table(made: ClusterPlan) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    for title, parts in (("assumed", made.assumptions), ("not included", made.not_included)):
        for place, part in enumerate(parts):
            table.add_row("" if place else title, escaped(part))
    return table
