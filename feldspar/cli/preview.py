"""`feldspar preview`: samples of each leaf, with prompts, replies and verdicts, before a run."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from feldspar.cli.run import AsJson, RecipePath, Settings

if TYPE_CHECKING:
    from rich.console import Console

    from feldspar.generate import LeafPreview, PreviewedSample
    from feldspar.teacher import Exchange
    from feldspar.trials import Preview

Prompts = Literal["first", "every", "none"]
INDENT = 2
DEEPER = 4


def preview(
    recipe: RecipePath,
    settings: Settings = None,
    samples: Annotated[int, typer.Option(min=1, max=1000, help="Of each leaf.")] = 5,
    prompts: Annotated[
        Prompts,
        typer.Option(help="Show the first prompt of each stage in a leaf, every one, or none."),
    ] = "first",
    as_json: AsJson = False,
) -> None:
    """Write and judge a few samples of each leaf, and show what was asked and said.

    They are the run's own first calls: the run finds the answers and does not pay for them again.
    """
    from rich.console import Console

    from feldspar.cli.progress import make_progress
    from feldspar.config import read_recipe
    from feldspar.trials import preview_recipe

    read = read_recipe(recipe, settings or [])
    found = preview_recipe(read, recipe.parent, make_progress(), samples)
    if as_json:
        typer.echo(_as_json(found))
        return
    console = Console(highlight=False)
    for leaf in found.leaves:
        _print_leaf(console, leaf, prompts)
    _print_closing(console, found)


def _as_json(found: Preview) -> str:
    import dataclasses
    import json

    told = {
        "leaves": [dataclasses.asdict(leaf) for leaf in found.leaves],
        "calls_asked": found.num_paid,
        "spent": found.spent._asdict(),
    }
    return json.dumps(told, indent=1)


def _print_leaf(console: Console, leaf: LeafPreview, prompts: Prompts) -> None:
    _print(console, leaf.leaf, 0, "bold underline")
    if leaf.note:
        _print(console, leaf.note, INDENT, "yellow")
    stages: set[str] = set()
    told: set[Exchange] = set()
    for number, shown in enumerate(leaf.samples, start=1):
        _print_sample(console, number, shown)
        for exchange in shown.exchanges:
            if exchange in told:
                _print(console, f"{exchange.stage}: the reply above", INDENT, "cyan")
                continue
            is_first = exchange.stage not in stages
            has_prompt = prompts == "every" or (prompts == "first" and is_first)
            _print_exchange(console, exchange, has_prompt=has_prompt)
            stages.add(exchange.stage)
            told.add(exchange)
    console.print()


def _print_sample(console: Console, number: int, shown: PreviewedSample) -> None:
    sample = shown.sample
    console.print()
    if sample.is_kept:
        _print(console, f"{number}. kept", 0, "bold green")
    else:
        _print(console, f"{number}. rejected: {sample.rejected_because}", 0, "bold red")
    for name, text in (("question", sample.question), ("answer", sample.answer)):
        if text:
            _print(console, f"{name}: {text}", INDENT)
    if sample.judgments:
        told = ", ".join(f"{j.criterion} {j.value:g}" for j in sample.judgments)
        _print(console, f"judged: {told}", INDENT)


def _print_exchange(console: Console, exchange: Exchange, *, has_prompt: bool) -> None:
    if has_prompt:
        for message in exchange.messages:
            _print(console, f"{exchange.stage}: {message.role} prompt", INDENT, "cyan")
            _print(console, message.content, DEEPER, "dim")
    _print(console, f"{exchange.stage}: reply", INDENT, "cyan")
    _print(console, exchange.reply or "(nothing)", DEEPER)


def _print_closing(console: Console, found: Preview) -> None:
    samples = [shown.sample for leaf in found.leaves for shown in leaf.samples]
    kept = sum(sample.is_kept for sample in samples)
    spent = found.spent
    cost = f", cost {spent.cost:,.2f}" if spent.cost else ""
    _print(console, f"{kept} of {len(samples)} samples kept", 0, "bold")
    told = f"{spent.calls:,} calls, {spent.tokens:,} tokens{cost}; {found.num_paid:,} asked now"
    _print(console, f"{told}. The run finds all of them in its journal.", 0)


def _print(console: Console, text: str, indent: int, style: str = "") -> None:
    """Text from outside, wrapped and set in; nothing in it is markup or steers the terminal."""
    from rich.padding import Padding
    from rich.text import Text

    from feldspar.text.printable import printable

    console.print(Padding(Text(printable(text), style=style), (0, 0, 0, indent)))
