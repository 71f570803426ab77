"""`feldspar report`: a run's page."""

from __future__ import annotations

from typing import Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot


def report(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")], runs: RunsRoot = RUNS
) -> None:
    """Write the run's page anew and print where it is. Works on an unfinished run too."""
    from feldspar.report import write_report
    from feldspar.runs import find_run

    typer.echo(write_report(find_run(run, runs)))
