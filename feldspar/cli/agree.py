"""`feldspar agree`: whether the reward prefers what people preferred."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RecipePath, Settings

if TYPE_CHECKING:
    from feldspar.prefer.agree import Agreement


def agree(
    recipe: RecipePath,
    pairs: Annotated[
        Path, typer.Option("--pairs", help="JSONL of prompt, chosen, rejected and subset.")
    ],
    settings: Settings = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Try the recipe's reward pair on stored preferences, before it decides what is tuned on."""
    from feldspar.cli.progress import make_progress
    from feldspar.config import read_recipe
    from feldspar.trials import agree_with_pairs

    placed = read_recipe(recipe, settings or [])
    found = agree_with_pairs(placed, recipe.parent, pairs, make_progress())
    if as_json:
        typer.echo(_as_json(found))
    else:
        _print(found)


def _as_json(found: list[Agreement]) -> str:
    import json

    rows = [a._asdict() | {"interval": list(a.interval)} for a in found]
    return json.dumps({"agreement": rows}, indent=1)


def _print(found: list[Agreement]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    by_subset: dict[str, list[Agreement]] = {}
    for agreement in found:
        by_subset.setdefault(agreement.subset, []).append(agreement)
    table = Table(title="The chosen answer is preferred", title_justify="left", box=box.SIMPLE)
    # Of a narrow screen the figures come first.
    table.add_column("category", overflow="fold")
    table.add_column("pairs", justify="right", no_wrap=True)
    for agreement in found[:3]:
        table.add_column(agreement.by, no_wrap=True)
    for subset, agreements in by_subset.items():
        table.add_row(subset, str(agreements[0].num_pairs), *map(_cell, agreements))
    table.caption = "95 % intervals; half would be chance"
    Console().print(table)


def _cell(agreement: Agreement) -> str:
    low, high = agreement.interval
    return f"{agreement.share:.2f} ({low:.2f}, {high:.2f})"
