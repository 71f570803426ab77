"""`feldspar studio`: the runs of a folder as live pages on this machine."""

from __future__ import annotations

import getpass
import json
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from feldspar.cli.run import RUNS, AsJson


def studio(
    folder: Annotated[Path, typer.Argument(help="Folder of run directories.")] = RUNS,
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8700,
    read_only: Annotated[
        bool, typer.Option("--read-only", help="Show, and neither write nor start anything.")
    ] = False,
    reviewer: Annotated[
        str | None, typer.Option(help="Under whose name samples are reviewed; default: yours.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Look at runs in the browser, review samples and chat: on this machine alone."""
    import asyncio

    from feldspar.errors import RunError
    from feldspar.reviews import check_reviewer
    from feldspar.studio.start import serve_studio

    # Before the first run of a project there is no folder of runs yet.
    if folder != RUNS and not folder.is_dir():
        raise RunError(f"{folder} is no folder; name the one that holds your runs")
    name = "" if read_only else check_reviewer(reviewer or _login_name())
    say = partial(_say, as_json=as_json)
    try:
        asyncio.run(serve_studio(folder, port=port, read_only=read_only, reviewer=name, say=say))
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def _login_name() -> str:
    """`nobody` where a container has none: a name that is no reviewer's."""
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "nobody"


def _say(url: str, *, as_json: bool) -> None:
    if as_json:
        typer.echo(json.dumps({"url": url}))
    else:
        typer.echo(f"open {url}")
        typer.echo("Ctrl-C stops it; runs go on without it.")
