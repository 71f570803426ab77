"""`feldspar serve`: a run's result, or a model folder, behind an OpenAI-compatible server."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot

if TYPE_CHECKING:
    from feldspar.serve.start import Serving

KEY_VARIABLE = "FELDSPAR_API_KEY"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    run: Annotated[str, typer.Argument(help="A run, by name or path, or a model folder.")],
    host: Annotated[
        str, typer.Option(help=f"Any but this machine's own needs a key in {KEY_VARIABLE}.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    checkpoint: Annotated[
        str | None,
        typer.Option(help="Another model of the run than its result: `base`, a phase, a round."),
    ] = None,
    runs: RunsRoot = RUNS,
    as_json: Annotated[
        bool, typer.Option("--json", help="Say where it listens as one line of JSON.")
    ] = False,
) -> None:
    """Serve a run's result, or a model folder, to OpenAI's clients: chat, completions, streams."""
    import os

    from feldspar.errors import RunError
    from feldspar.runs import find_run

    key = os.environ.get(KEY_VARIABLE) or None
    if host not in _LOOPBACK and not key:
        raise RunError(
            f"--host {host} is open to others, so it needs a key: set {KEY_VARIABLE} to a secret "
            "that clients send as their API key"
        )
    is_folder = (Path(run) / "config.json").is_file()
    if is_folder and checkpoint is not None:
        raise RunError(f"{run} is a model folder and has no --checkpoint {checkpoint}; name a run")
    path = Path(run) if is_folder else find_run(run, runs)
    import asyncio

    from feldspar.serve.start import folder_to_serve, run_to_serve, serve_model

    served = folder_to_serve(run) if is_folder else run_to_serve(path, checkpoint)
    say = partial(_say, as_json=as_json)
    try:
        asyncio.run(serve_model(served, host=host, port=port, key=key, say=say))
    except KeyboardInterrupt:
        typer.echo("stopped", err=True)


def _say(serving: Serving, *, as_json: bool) -> None:
    from feldspar.text import on_one_line

    if as_json:
        typer.echo(json.dumps(serving._asdict()))
    else:
        typer.echo(on_one_line(f"{serving.url} serves {serving.model} ({serving.what})"))
