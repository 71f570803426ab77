"""`feldspar calibrate`: what the judge is worth, before it decides what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RecipePath, Settings

if TYPE_CHECKING:
    from feldspar.records import JudgeScore


def calibrate(
    recipe: RecipePath,
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Try the judge on good pairs and on corrupted ones, made from the seeds."""
    from feldspar.cli.progress import make_progress
    from feldspar.config import read_recipe
    from feldspar.trials import calibrate_judge

    scores = calibrate_judge(read_recipe(recipe, settings or []), recipe.parent, make_progress())
    if as_json:
        typer.echo(_as_json(scores))
    else:
        _print(scores)


def _as_json(scores: list[JudgeScore]) -> str:
    import dataclasses
    import json

    from feldspar.generate import reliability

    criteria = [found._asdict() for found in reliability(scores)]
    pairs = [dataclasses.asdict(score) for score in scores]
    return json.dumps({"criteria": criteria, "pairs": pairs}, indent=1)


def _print(scores: list[JudgeScore]) -> None:
    from rich.console import Console
    from rich.table import Table

    from feldspar.generate import reliability

    console = Console()
    judged = Table(title="The judge on known pairs", title_justify="left", title_style="bold")
    for column in ("criterion", "pairs", "count", "accepted", "unreadable"):
        judged.add_column(column, justify="left" if column in ("criterion", "pairs") else "right")
    for score in scores:
        accepted = f"{score.num_accepted / score.num_pairs:.0%}"
        counts = (str(score.num_pairs), accepted, str(score.num_unreadable))
        judged.add_row(score.criterion, score.kind, *counts)
    worth = Table(title="Precision and recall", title_justify="left", title_style="bold")
    for column in ("criterion", "precision", "recall", "count"):
        worth.add_column(column, justify="left" if column == "criterion" else "right")
    for found in reliability(scores):
        figures = (f"{found.precision:.2f}", f"{found.recall:.2f}", str(found.num_pairs))
        worth.add_row(found.criterion, *figures)
    console.print(judged, worth)
    console.print("precision: as if half of all pairs were good", style="dim")
