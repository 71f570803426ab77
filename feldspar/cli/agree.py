"""`feldspar agree`: whether the reward prefers what people preferred."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RecipePath, Settings

if TYPE_CHECKING:
    from feldspar.prefer.agree import Agreement
    from feldspar.prefer.reward_bench import RewardSection


def agree(
    recipe: RecipePath,
    pairs: Annotated[
        str,
        typer.Option(
            "--pairs",
            help="JSONL or Parquet of prompt, chosen, rejected and subset, or a data set of the "
            "hub, OWNER/NAME.",
        ),
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

    from feldspar.reference_scores import PUBLISHED_REWARDS

    rows = [a._asdict() | {"interval": list(a.interval)} for a in found]
    said: dict[str, object] = {"agreement": rows}
    if by_way := _sections(found):
        said["sections"] = [{"by": by} | s._asdict() for by, of in by_way.items() for s in of]
        said["published"] = [row._asdict() for row in PUBLISHED_REWARDS]
    return json.dumps(said, indent=1)


def _sections(found: list[Agreement]) -> dict[str, list[RewardSection]]:
    """By each way; empty where the pairs are not those of a benchmark."""
    from feldspar.prefer.agree import ALL
    from feldspar.prefer.reward_bench import sections

    shares: dict[str, dict[str, float]] = {}
    for agreement in found:
        if agreement.subset != ALL:
            shares.setdefault(agreement.by, {})[agreement.subset] = agreement.share
    return {by: of_way for by, of in shares.items() if (of_way := sections(of))}


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
    for way in dict.fromkeys(agreement.by for agreement in found):
        table.add_column(way, no_wrap=True)
    for subset, agreements in by_subset.items():
        table.add_row(subset, str(agreements[0].num_pairs), *map(_cell, agreements))
    table.caption = "95 % intervals; half would be chance"
    Console().print(table)
    _print_sections(_sections(found))


def _print_sections(by_way: dict[str, list[RewardSection]]) -> None:
    """The sections of RewardBench or RewardBench 2, and published rows of log-ratio pairs."""
    if not by_way:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from feldspar.prefer.reward_bench import AVERAGE, SECTIONS
    from feldspar.reference_scores import PUBLISHED_REWARDS

    first = next(iter(by_way.values()))
    table = Table(title=first[0].benchmark, title_justify="left", box=box.SIMPLE)
    table.add_column("", overflow="fold")
    names = [*(SECTIONS if first[0].benchmark == "RewardBench" else ()), AVERAGE]
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for by, found in by_way.items():
        values = {section.name: f"{100 * section.share:.1f}" for section in found}
        table.add_row(f"this recipe, {by}", *(values.get(name, "-") for name in names))
    if len(names) > 1:
        for row in PUBLISHED_REWARDS:
            cells = [score or "-" for score in (*row.scores, row.average)]
            table.add_row(f"published: {row.pair}", *cells, style="dim")
    missing = first[-1].missing
    if missing:
        table.caption = f"no score of the benchmark: without {', '.join(missing)}"
    Console().print(table)


def _cell(agreement: Agreement) -> str:
    low, high = agreement.interval
    return f"{agreement.share:.2f} ({low:.2f}, {high:.2f})"
