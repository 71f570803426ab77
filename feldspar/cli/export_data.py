"""`feldspar export-data`: a run's samples for other trainers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from feldspar.cli.run import RUNS, RunsRoot


def export_data(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    out: Annotated[
        Path | None, typer.Option(help="A new folder; default: `data` in the run's folder.")
    ] = None,
    form: Annotated[
        Literal["jsonl", "parquet"], typer.Option("--format", help="Of the rows' file.")
    ] = "jsonl",
    runs: RunsRoot = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Write the kept samples as `messages` rows with provenance, licences and a data card."""
    from feldspar.errors import RunError
    from feldspar.generate import export_samples
    from feldspar.runs import find_run, open_step, read_recipe_of
    from feldspar.text.printable import printable

    path = find_run(run, runs)
    recipe = read_recipe_of(path)
    leaves, samples = open_step(path, "leaves"), open_step(path, "samples")
    if samples is None or leaves is None:
        raise RunError(f"{path} has no samples yet; `feldspar generate` the recipe first")
    done = export_samples(
        samples,
        leaves,
        out or path / "data",
        name=recipe.name,
        knowledge_context=recipe.mix.knowledge_context,
        form=form,
    )
    if as_json:
        typer.echo(json.dumps({"path": str(done.path), "num_rows": done.num_rows}))
    else:
        typer.echo(printable(f"{done.num_rows:,} rows: {done.path}"))
