"""`feldspar export-data`: a run's samples, or what its phases train on, for other trainers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Literal

import typer

from feldspar.cli.run import RUNS, RunsRoot

Format = Literal["jsonl", "parquet"]


def export_data(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    out: Annotated[
        Path | None,
        typer.Option(help="A new folder; default: `data`, or `data-of-phases`, in the run's."),
    ] = None,
    phases: Annotated[
        bool,
        typer.Option("--phases", help="What each phase trains on, replay included, a file each."),
    ] = False,
    form: Annotated[Format, typer.Option("--format", help="Of the files of rows.")] = "jsonl",
    runs: RunsRoot = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Write the kept samples as `messages` rows with provenance, licences and a data card."""
    from feldspar.runs import find_run
    from feldspar.text.printable import on_one_line

    path = find_run(run, runs)
    out = out or path / ("data-of-phases" if phases else "data")
    num_rows = _export_phases(path, out, form) if phases else _export_samples(path, out, form)
    if as_json:
        typer.echo(json.dumps({"path": str(out), "num_rows": num_rows}))
    else:
        typer.echo(on_one_line(f"{num_rows:,} rows: {out}"))


def _export_phases(path: Path, out: Path, form: Format) -> int:
    from feldspar.errors import RunError
    from feldspar.mix.export import export_phases
    from feldspar.runs import open_step, read_recipe_of

    recipe, mixed = read_recipe_of(path), open_step(path, "phases")
    if mixed is None:
        raise RunError(f"{path} has no phases yet; `feldspar mix` the recipe first")
    done = export_phases(list(mixed), out, name=recipe.name, seed=recipe.seed, form=form)
    return sum(sum(phase.num_rows.values()) for phase in done)


def _export_samples(path: Path, out: Path, form: Format) -> int:
    from feldspar.errors import RunError
    from feldspar.generate import export_samples, reviews_of_run
    from feldspar.runs import open_step, read_recipe_of

    recipe = read_recipe_of(path)
    leaves, samples = open_step(path, "leaves"), open_step(path, "samples")
    if recipe.taxonomy is None:
        raise RunError(f"{path} generates no samples; --phases exports what its phases train on")
    if samples is None or leaves is None:
        raise RunError(f"{path} has no samples yet; `feldspar generate` the recipe first")
    done = export_samples(
        reviews_of_run(path) or samples,
        leaves,
        out,
        name=recipe.name,
        knowledge_context=recipe.mix.knowledge_context,
        form=form,
    )
    return done.num_rows
