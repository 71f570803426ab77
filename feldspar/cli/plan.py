"""`feldspar plan`: the cost before paying it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RecipePath, Settings

if TYPE_CHECKING:
    from feldspar.plan import Plan


def plan(
    recipe: RecipePath,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what a run will cost: teacher calls and tokens, optimizer steps, disk."""
    from feldspar.cli.progress import make_progress
    from feldspar.config import read_recipe
    from feldspar.flow import plan_recipe

    made = plan_recipe(read_recipe(recipe, settings or []), recipe.parent, make_progress())
    if as_json:
        typer.echo(_as_json(made))
    else:
        _print(made)


def _as_json(made: Plan) -> str:
    import json

    return json.dumps(
        {
            "steps": [e._asdict() for e in made.estimates],
            "phases": [
                {
                    "name": p.name,
                    "rows_per_epoch": p.rows_per_epoch,
                    "batch_samples": p.batch_samples,
                    "num_epochs": p.num_epochs,
                    "steps_per_epoch": p.steps_per_epoch,
                    "num_steps": p.num_steps,
                }
                for p in made.phases
            ],
            "disk_bytes": made.disk_bytes,
            "free_bytes": made.free_bytes,
            "warnings": made.warnings,
        },
        indent=1,
    )


def _print(made: Plan) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console()
    calls = Table(title="Teacher", title_justify="left", title_style="bold")
    for column in ("step", "calls", "prompt tokens", "completion tokens"):
        calls.add_column(column, justify="left" if column == "step" else "right")
    asking = [e for e in made.estimates if e.calls]
    for e in asking:
        calls.add_row(e.step, f"{e.calls:,}", f"{e.prompt_tokens:,}", f"{e.completion_tokens:,}")
    calls.caption = "; ".join(e.note for e in asking)
    steps = Table(title="Training", title_justify="left", title_style="bold")
    for column in ("phase", "rows/epoch", "samples/step", "steps/epoch", "epochs", "steps"):
        steps.add_column(column, justify="left" if column == "phase" else "right")
    for p in made.phases:
        numbers = (p.rows_per_epoch, p.batch_samples, p.steps_per_epoch, p.num_epochs, p.num_steps)
        steps.add_row(p.name, *(f"{n:,}" for n in numbers))
    console.print(calls, steps)
    console.print(f"disk: {made.disk_bytes / 1e9:.2f} GB of {made.free_bytes / 1e9:.1f} GB free")
    for warning in made.warnings:
        console.print(f"warning: {warning}", style="yellow", markup=False, highlight=False)
