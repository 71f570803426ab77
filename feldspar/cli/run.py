"""`feldspar run`, and one step of it: `generate`, `mix`, `train`, `prefer`, `evaluate`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.processes import training_processes
from feldspar.cli.terminal import escaped

if TYPE_CHECKING:
    from feldspar.ahead.checks import Until

RecipePath = Annotated[Path, typer.Argument(help="A recipe, such as recipes/quickstart.toml.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.key=value over the recipe; may be repeated."),
]
RunsRoot = Annotated[Path, typer.Option("--runs", help="Folder of run directories.")]
RUNS = Path("runs")
NumProcesses = Annotated[
    int | None,
    typer.Option("--nproc", min=1, help="Processes that train together, one a GPU."),
]


def run(
    recipe: RecipePath,
    settings: Settings = None,
    runs: RunsRoot = RUNS,
    nproc: NumProcesses = None,
) -> None:
    """Do the whole method; the same command again goes on after anything."""
    _run(recipe, settings or [], runs, "scores", nproc)


def _run(
    recipe_path: Path, settings: list[str], runs: Path, until: Until, nproc: int | None = None
) -> None:
    with training_processes(nproc) as num_processes:
        # None: this process only follows the first one.
        if num_processes is not None:
            _run_here(recipe_path, settings, runs, until, num_processes)


def _run_here(
    recipe_path: Path, settings: list[str], runs: Path, until: Until, num_processes: int
) -> None:
    from rich.console import Console

    from feldspar.cli.progress import make_progress
    from feldspar.cli.tables import score_tables
    from feldspar.config import read_recipe
    from feldspar.flow import run_recipe
    from feldspar.runs import claim_run

    recipe = read_recipe(recipe_path, settings)
    path = runs / recipe.name
    claim_run(path, recipe_path.parent)
    scores = run_recipe(
        recipe,
        recipe_path.parent,
        path,
        make_progress(),
        until=until,
        num_processes=num_processes,
    )
    console = Console()
    if scores is not None:
        found = list(scores)
        left_out = [phase.name for phase in recipe.train.phase[:-1]]
        left_out += [s.checkpoint for s in found if s.checkpoint.startswith("control-")]
        console.print(*score_tables(found, left_out), sep="\n")
        console.print(escaped(f"report: {path / 'report.html'}"), soft_wrap=True)
    else:
        console.print(escaped(f"done up to {until}: {path}"), soft_wrap=True)


def _step_command(until: Until, what: str) -> Callable[..., None]:
    def command(recipe: RecipePath, settings: Settings = None, runs: RunsRoot = RUNS) -> None:
        _run(recipe, settings or [], runs, until)

    command.__doc__ = what
    return command


def _training_command(until: Until, what: str) -> Callable[..., None]:
    def command(
        recipe: RecipePath,
        settings: Settings = None,
        runs: RunsRoot = RUNS,
        nproc: NumProcesses = None,
    ) -> None:
        _run(recipe, settings or [], runs, until, nproc)

    command.__doc__ = what
    return command


STEPS = {
    "generate": _step_command("samples", "Have the teacher write and judge samples."),
    "mix": _step_command("phases", "Put the samples into phases with their replay."),
    "train": _training_command("trained", "Train the student through the phases."),
    "prefer": _training_command("preferred", "Tune the student on preferences."),
    "evaluate": _training_command("scores", "Score every checkpoint on the exams."),
}
