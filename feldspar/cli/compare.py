"""`feldspar compare`: what differs between two checkpoints, and whether it is more than noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot
from feldspar.cli.terminal import escaped, print_table

if TYPE_CHECKING:
    from pathlib import Path

    from feldspar.evaluate.comparing import Scored
    from feldspar.evaluate.retrieval import LeafAdvice
    from feldspar.evaluate.scores import Comparison


def compare(
    before: Annotated[str, typer.Argument(help="A run, by name or path; RUN@CHECKPOINT for one.")],
    after: Annotated[
        str | None, typer.Argument(help="Another; left out: the run's result against its base.")
    ] = None,
    base: Annotated[
        str | None, typer.Argument(help="A third, which both are also set against.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    runs: RunsRoot = RUNS,
) -> None:
    """Paired differences over what both have answered, with 95 % intervals, and the runs' rows of
    published benchmarks under those of published models."""
    from feldspar.evaluate.comparing import BASE, compare_scored, open_scored
    from feldspar.evaluate.retrieval import read_advice
    from feldspar.runs import find_run

    path = find_run(before.partition("@")[0], runs)
    if after is None:
        pairs = [(open_scored(path, BASE), _open(before, runs))]
    else:
        first, second = _open(before, runs), _open(after, runs)
        pairs = [(first, second)]
        if base is not None:
            third = _open(base, runs)
            pairs += [(third, first), (third, second)]
    found = [(one, other, compare_scored(one, other, path)) for one, other in pairs]
    if as_json:
        advice = read_advice(path) if after is None else []
        typer.echo(_as_json(found, advice))
        return
    for one, other, comparisons in found:
        print_changes(one, other, comparisons)
    if after is None:
        _print_advice(read_advice(path))
    _print_published([scored for pair in reversed(pairs) for scored in pair])


def _open(name: str, runs: Path) -> Scored:
    from feldspar.evaluate.comparing import open_scored
    from feldspar.runs import find_run

    run, _, checkpoint = name.partition("@")
    return open_scored(find_run(run, runs), checkpoint or None)


def _as_json(found: list[tuple[Scored, Scored, list[Comparison]]], advice: list[LeafAdvice]) -> str:
    import dataclasses
    import json

    tables = [
        {
            "before": first.name,
            "after": second.name,
            "exams": [
                dataclasses.asdict(c) | {"is_beyond_noise": c.difference.is_beyond_noise}
                for c in comparisons
            ],
        }
        for first, second, comparisons in found
    ]
    if advice:
        tables[0]["retrieval"] = [_advice_as_json(row) for row in advice]
    # Two runs are one object, as they are one table; a third makes a list of it.
    return json.dumps(tables[0] if len(tables) == 1 else tables, indent=1)


def _advice_as_json(row: LeafAdvice) -> dict[str, object]:
    return {
        "leaf": row.leaf,
        "items": row.num_items,
        "right": [
            {"checkpoint": name, "way": way, "share": share}
            for (name, way), share in row.right.items()
        ],
        "taught_less_retrieved": row.taught_or_retrieved._asdict(),
        "passages_for_taught": row.both._asdict(),
        "verdict": row.verdict,
    }


def _print_advice(advice: list[LeafAdvice]) -> None:
    """Teach or retrieve, leaf by leaf, where the run has asked both."""
    if not advice:
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from feldspar.evaluate.retrieval import WAYS

    table = Table(title="Teach or retrieve", title_justify="left", box=box.SIMPLE)
    table.add_column("leaf", overflow="fold")
    table.add_column("items", justify="right", no_wrap=True)
    checkpoints = list(dict.fromkeys(name for name, _ in advice[0].right))
    for name in checkpoints:
        for way in ("alone", "BM25", "right passage"):
            table.add_column(escaped(f"{name}: {way}"), justify="right")
    table.add_column("taught less retrieved", no_wrap=True)
    table.add_column("verdict", no_wrap=True)
    for row in advice:
        shares = [f"{row.right[name, way]:.2f}" for name in checkpoints for way in WAYS]
        low, high = row.taught_or_retrieved.interval
        difference = f"{row.taught_or_retrieved.value:+.2f} ({low:+.2f}, {high:+.2f})"
        leaf = escaped(row.leaf or "all")
        table.add_row(leaf, str(row.num_items), *shares, difference, row.verdict)
    table.caption = (
        "share of right answers; BM25: with passages it finds; taught less retrieved: the result "
        "alone, less the base with BM25, paired"
    )
    print_table(Console(), table)


def print_changes(first: Scored, second: Scored, found: list[Comparison]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=escaped(f"{second.name} less {first.name}"), title_justify="left", box=box.SIMPLE
    )
    # Of a narrow screen the figures come first.
    table.add_column("exam", overflow="fold")
    table.add_column("items", justify="right", no_wrap=True)
    table.add_column("difference", no_wrap=True)
    table.add_column("of", overflow="fold")
    for comparison in sorted(found, key=lambda one: one.metric == "log-likelihood"):
        if ": " not in comparison.exam:
            measure = "share right" if comparison.metric == "accuracy" else comparison.metric
            num_pairs = str(comparison.difference.num_pairs)
            table.add_row(escaped(comparison.exam), num_pairs, _cell(comparison), escaped(measure))
    table.caption = "paired, 95 % intervals; ~ and dim: not distinguishable from noise"
    print_table(Console(), table)


def _cell(comparison: Comparison) -> str:
    low, high = comparison.difference.interval
    text = f"{comparison.difference.value:+.2f} ({low:+.2f}, {high:+.2f})"
    return text if comparison.difference.is_beyond_noise else f"[dim]{text} ~[/dim]"


def _print_published(runs: list[Scored]) -> None:
    """The runs' own rows under the published ones, with the settings of both."""
    from rich.console import Console
    from rich.table import Table

    from feldspar import reference_scores
    from feldspar.text.printable import on_one_line

    scores = {one.name: [p.score for p in one.published] for one in runs}
    own = [
        reference_scores.OwnRow(model=name, scores=row.scores)
        for name, of_run in scores.items()
        for row in reference_scores.own_rows(of_run)
    ]
    if not own:
        return
    table = Table(title="Beside published models", title_justify="left", box=None)
    table.add_column("model", overflow="fold")
    for column in reference_scores.COLUMNS:
        table.add_column(column.title, justify="right", no_wrap=True)
    for printed in reference_scores.PUBLISHED_ROWS:
        table.add_row(printed.model, *(score or "-" for score in printed.scores))
    for row in own:
        table.add_row(f"[bold]{escaped(row.model)}[/bold]", *(score or "-" for score in row.scores))
    lines = [f"published, {c.title}: {c.settings}" for c in reference_scores.COLUMNS]
    for name, of_run in scores.items():
        lines += [f"{name}, {line}" for line in reference_scores.own_settings(of_run)]
    console = Console()
    print_table(console, table)
    for line in [*lines, *reference_scores.FOOTNOTES]:
        console.print(on_one_line(line), style="dim", markup=False, highlight=False, soft_wrap=True)
