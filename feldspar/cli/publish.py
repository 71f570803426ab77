"""`feldspar publish`: a directory that plain transformers loads."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot


def publish(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to; default: `published` in the run's folder.")
    ] = None,
    runs: RunsRoot = RUNS,
) -> None:
    """Write the result as a Hugging Face directory with a model card, and check that it loads."""
    from feldspar.publish import publish_run
    from feldspar.runs import find_run

    path = find_run(run, runs)
    typer.echo(publish_run(path, out or path / "published"))
