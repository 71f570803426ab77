"""`feldspar verify`: is everything that a run holds as it was written?"""

from __future__ import annotations

from typing import Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot


def verify(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    runs: RunsRoot = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="Machine-readable output.")] = False,
) -> None:
    """Check every file of a run, its checkpoints and its journal; exits 6 where one is damaged."""
    import json

    from feldspar.errors import RunError
    from feldspar.runs import find_run
    from feldspar.text import on_one_line
    from feldspar.verify import verify_run

    path = find_run(run, runs)
    checked = verify_run(path)
    if as_json:
        typer.echo(json.dumps({"run": str(path), **checked._asdict()}, indent=1))
    else:
        for fault in checked.faults:
            typer.echo(on_one_line(fault))
        num_bad = len(checked.faults)
        typer.echo(f"{checked.num_checked} checks: " + (f"{num_bad} damaged" if num_bad else "ok"))
    if checked.faults:
        raise typer.Exit(RunError.exit_code)
