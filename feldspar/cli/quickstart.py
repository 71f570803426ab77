"""`feldspar quickstart` and `feldspar demo`: a shipped recipe, run where one stands."""

from __future__ import annotations

from pathlib import Path

import typer

from feldspar.cli.run import RUNS, AsJson, RunsRoot, Settings, run
from feldspar.cli.shipped import copy_recipe
from feldspar.cli.terminal import escaped

NUM_TRIED = 6
"""Questions of the exams that the demo asks both models at its end."""


def quickstart(settings: Settings = None, runs: RunsRoot = RUNS, as_json: AsJson = False) -> None:
    """Teach a tiny model an invented world: minutes, no GPU, no key, no download.

    Writes quickstart.toml into the current folder and runs it; one that is there is run as it is.
    """
    run(_written("quickstart", as_json), settings, runs, None, as_json)


def demo(settings: Settings = None, runs: RunsRoot = RUNS, as_json: AsJson = False) -> None:
    """Teach a real chat model of 135 million parameters an invented island, and talk to both.

    Writes demo.toml and its documents in demo/ into the current folder; files that are there are
    used as they are: change a sentence and run it again. Downloads 98 MB.
    """
    from feldspar.cli.talk import chat
    from feldspar.config import read_recipe

    recipe = _written("demo", as_json)
    run(recipe, settings, runs, None, as_json)
    if not as_json:
        name = read_recipe(recipe, settings or []).name
        chat(name, beside_base=True, num_tried=NUM_TRIED, runs=runs)


def _written(name: str, as_json: bool) -> Path:
    """The recipe in the current folder."""
    path = Path(f"{name}.toml")
    copied = copy_recipe(name, Path(), keeps_files=True)
    if not as_json:
        if path in copied.kept:
            typer.echo(escaped(f"{path}: run as it is here"))
        elif copied.written:
            typer.echo(f"{path}: written; every key is explained in docs/recipe.md")
    return path
