"""`feldspar publish`: a directory that plain transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from feldspar.cli.run import RUNS, RunsRoot


def publish(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to; default: `published` in the run's folder.")
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Upload to this repository of the hub, OWNER/NAME.")
    ] = None,
    gguf: Annotated[
        bool, typer.Option("--gguf", help="Convert for llama.cpp too, by its own converter.")
    ] = False,
    runs: RunsRoot = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Write the result as a Hugging Face directory with its cards, and check that it loads."""
    from feldspar.publish.directory import publish_run, write_checksums
    from feldspar.publish.push import check_hub, find_converter, push_to_hub, write_gguf
    from feldspar.runs import find_run
    from feldspar.text.printable import printable

    path = find_run(run, runs)
    if gguf:
        find_converter()
    if push:
        check_hub(push)
    folder = publish_run(path, out or path / "published")
    made = {"folder": str(folder)}
    if gguf:
        made["gguf"] = str(write_gguf(folder, path.name))
        write_checksums(folder)
    if push:
        made["hub"] = str(push_to_hub(folder, push))
    typer.echo(json.dumps(made) if as_json else printable("\n".join(made.values())))
