"""`feldspar agree`: whether the reward prefers what people preferred."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RecipePath, Settings
from feldspar.cli.terminal import print_table

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
    print_table(Console(), table)
    _print_domains(found)
    _print_sections(_sections(found))


def _print_domains(found: list[Agreement]) -> None:
    """Which domain's prompt the pair read before the questions of which category."""
    from rich.console import Console

    read: dict[str, list[str]] = {}
    for agreement in found:
        if agreement.domain and agreement.by == "log ratio":
            read.setdefault(agreement.domain, []).append(agreement.subset)
    for domain, subsets in read.items():
        line = f"read with the prompt of {domain}: {', '.join(subsets)}"
        Console().print(line, style="dim", markup=False, highlight=False)


def _print_sections(by_way: dict[str, list[RewardSection]]) -> None:
    """The sections of RewardBench or RewardBench 2, and published rows of log-ratio pairs."""
    if not by_way:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from feldspar.prefer.reward_bench import SECTIONS
    from feldspar.reference_scores import PUBLISHED_REWARDS

    console = Console()
    found = next(iter(by_way.values()))
    table = Table(title=f"{found[0].benchmark}, in %", title_justify="left", box=box.SIMPLE)
    table.add_column("section", no_wrap=True)
    for by in by_way:
        table.add_column(by, justify="right")
    for place, section in enumerate(found):
        cells = (f"{100 * of_way[place].share:.1f}" for of_way in by_way.values())
        table.add_row(section.name, *cells)
    print_table(console, table)
    lines = []
    if missing := found[-1].missing:
        lines.append(f"no score of the benchmark: without {', '.join(missing)}")
    if found[0].benchmark == "RewardBench":
        for row in PUBLISHED_REWARDS:
            parts = [f"{n} {s}" for n, s in zip(SECTIONS, row.scores, strict=True) if s]
            scores = ", ".join([*parts, f"average {row.average}"])
            lines.append(f"published, {row.pair}: {scores} ({row.source})")
    for line in lines:
        console.print(line, style="dim", markup=False, highlight=False)


def _cell(agreement: Agreement) -> str:
    low, high = agreement.interval
    return f"{agreement.share:.2f} ({low:.2f}, {high:.2f})"
