"""`feldspar publish`: a directory that plain transformers loads."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
import typer.core

from feldspar.cli.run import RUNS, RunsRoot

if TYPE_CHECKING:
    from feldspar.publish.gguf import GgufFile


def publish(
    run: Annotated[str, typer.Argument(help="A run, by name or path.")],
    out: Annotated[
        Path | None, typer.Option(help="Where to; default: `published` in the run's folder.")
    ] = None,
    push: Annotated[
        str | None, typer.Option(help="Upload to this repository of the hub, OWNER/NAME.")
    ] = None,
    gguf: Annotated[
        list[str] | None,
        typer.Option(
            "--gguf",
            metavar="[TYPE]",
            help="A GGUF file for llama.cpp and Ollama, by llama.cpp's own tools: f16, q8_0, "
            "q4_k_m, ...; alone: f16. May be repeated.",
        ),
    ] = None,
    adapter: Annotated[
        bool, typer.Option("--adapter", help="The un-merged LoRA adapter too, in `adapter/`.")
    ] = False,
    runs: RunsRoot = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Write the result as a Hugging Face directory with its cards, and check that it loads."""
    from feldspar.cli.progress import make_progress
    from feldspar.publish.push import check_hub, push_to_hub
    from feldspar.publishing import publish_result
    from feldspar.runs import find_run, read_recipe_of
    from feldspar.text.printable import on_one_line

    path = find_run(run, runs)
    if push:
        check_hub(push)
    folder = out or path / "published"
    progress = make_progress()
    files = publish_result(path, folder, types=gguf or (), adapter=adapter, progress=progress)
    made: dict[str, object] = {"folder": str(folder), "gguf": [str(file.path) for file in files]}
    if push:
        private = read_recipe_of(path).publish.private
        made["hub"] = push_to_hub(folder, push, private=private)
    if as_json:
        typer.echo(json.dumps(made))
        return
    lines = [str(folder), *(_line(file) for file in files), *filter(None, [made.get("hub")])]
    typer.echo("\n".join(on_one_line(str(line)) for line in lines))


def _line(file: GgufFile) -> str:
    line = f"{file.path}, {file.num_bytes / 1e6:.0f} MB"
    return f"{line}, {file.fallback} matrices are of another type" if file.num_others else line


class PublishCommand(typer.core.TyperCommand):
    """Takes a `--gguf` that no type follows, at the end or before another option, for f16."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, with_types(args))


def with_types(args: list[str]) -> list[str]:
    """
    >>> with_types(["demo", "--gguf", "--gguf", "q8_0", "--push", "a/b", "--gguf"])
    ['demo', '--gguf', 'f16', '--gguf', 'q8_0', '--push', 'a/b', '--gguf', 'f16']
    """
    filled = []
    for arg, following in zip(args, [*args[1:], "--"], strict=True):
        filled += [arg, "f16"] if arg == "--gguf" and following.startswith("-") else [arg]
    return filled
