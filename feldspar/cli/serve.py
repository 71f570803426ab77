"""`feldspar serve`: a run's result behind an OpenAI-compatible server."""

from __future__ import annotations

from typing import Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot

KEY_VARIABLE = "FELDSPAR_API_KEY"
_LOOPBACK = ("127.0.0.1", "::1", "localhost")


def serve(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    host: Annotated[
        str, typer.Option(help=f"Any but this machine's own needs a key in {KEY_VARIABLE}.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 8000,
    runs: RunsRoot = RUNS,
) -> None:
    """Serve the result of a run to OpenAI's clients: chat, completions, streams."""
    import os

    from feldspar.errors import RunError
    from feldspar.runs import find_run

    key = os.environ.get(KEY_VARIABLE)
    if host not in _LOOPBACK and not key:
        raise RunError(
            f"--host {host} is open to others, so it needs a key: set {KEY_VARIABLE} to a secret "
            "that clients send as their API key"
        )
    path = find_run(run, runs)
    import asyncio

    from feldspar.publish import serve_run

    asyncio.run(serve_run(path, host=host, port=port, key=key, say=typer.echo))
