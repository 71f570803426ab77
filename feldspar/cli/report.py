"""`feldspar report`: a run's page."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot


def report(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    runs: RunsRoot = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Write the run's page anew and print where it is. Works on an unfinished run too."""
    from feldspar.runs import find_run
    from feldspar.text.printable import on_one_line
    from feldspar.views import write_report

    path = write_report(find_run(run, runs))
    if as_json:
        typer.echo(json.dumps({"page": str(path), "tables": str(path.with_suffix(".md"))}))
    else:
        typer.echo(on_one_line(str(path)))
