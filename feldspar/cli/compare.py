"""`feldspar compare`: what differs between two checkpoints, and whether it is more than noise."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot

if TYPE_CHECKING:
    from feldspar.evaluate.comparing import Scored
    from feldspar.evaluate.scores import Comparison


def compare(
    before: Annotated[str, typer.Argument(help="A run, by name or path; RUN@CHECKPOINT for one.")],
    after: Annotated[
        str | None, typer.Argument(help="Another; left out: the run's result against its base.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
    runs: RunsRoot = RUNS,
) -> None:
    """Paired differences over the exam items that both have answered, with 95 % intervals."""
    from feldspar.evaluate.comparing import BASE, compare_scored, open_scored
    from feldspar.runs import find_run

    name, _, checkpoint = before.partition("@")
    path = find_run(name, runs)
    if after is None:
        first, second = open_scored(path, BASE), open_scored(path, checkpoint or None)
    else:
        other, _, other_checkpoint = after.partition("@")
        first = open_scored(path, checkpoint or None)
        second = open_scored(find_run(other, runs), other_checkpoint or None)
    found = compare_scored(first, second, path)
    if as_json:
        typer.echo(_as_json(first, second, found))
    else:
        _print(first, second, found)


def _as_json(first: Scored, second: Scored, found: list[Comparison]) -> str:
    import dataclasses
    import json

    rows = [
        dataclasses.asdict(c) | {"is_beyond_noise": c.difference.is_beyond_noise} for c in found
    ]
    return json.dumps({"before": first.name, "after": second.name, "exams": rows}, indent=1)


def _print(first: Scored, second: Scored, found: list[Comparison]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    by_exam: dict[str, dict[str, Comparison]] = {}
    for comparison in found:
        if ": " not in comparison.exam:
            by_exam.setdefault(comparison.exam, {})[comparison.metric] = comparison
    table = Table(title=f"{second.name} less {first.name}", title_justify="left", box=box.SIMPLE)
    table.add_column("exam", no_wrap=True)
    for column in ("right answers", "log-likelihood"):
        table.add_column(column, no_wrap=True)
    for exam, metrics in by_exam.items():
        cells = [_cell(metrics.get(metric)) for metric in ("accuracy", "log-likelihood")]
        table.add_row(exam, *cells)
    table.caption = "paired, 95 % intervals; dim: not distinguishable from noise"
    Console().print(table)


def _cell(comparison: Comparison | None) -> str:
    if comparison is None:
        return "-"
    low, high = comparison.difference.interval
    text = f"{comparison.difference.value:+.2f} ({low:+.2f}, {high:+.2f})"
    return text if comparison.difference.is_beyond_noise else f"[dim]{text}[/dim]"
