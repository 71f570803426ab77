"""`feldspar run`, and one step of it: `generate`, `mix`, `train`, `prefer`, `evaluate`."""

from __future__ import annotations

import dataclasses
import json
import os
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from feldspar.children import module_command
from feldspar.cli.processes import training_processes
from feldspar.cli.slurm import is_within_job, run_as_job
from feldspar.cli.terminal import escaped, print_table

if TYPE_CHECKING:
    from feldspar.ahead.checks import Until

RecipePath = Annotated[Path, typer.Argument(help="A recipe, such as recipes/quickstart.toml.")]
Settings = Annotated[
    list[str] | None,
    typer.Option("--set", help="section.key=value over the recipe; may be repeated."),
]
RunsRoot = Annotated[Path, typer.Option("--runs", help="Folder of run directories.")]
RUNS = Path("runs")
AsJson = Annotated[bool, typer.Option("--json", help="For machines.")]
NumProcesses = Annotated[
    int | None,
    typer.Option("--nproc", min=1, help="Processes that train together, one a GPU."),
]


def run(
    recipe: RecipePath,
    settings: Settings = None,
    runs: RunsRoot = RUNS,
    nproc: NumProcesses = None,
    as_json: AsJson = False,
) -> None:
    """Do the whole method; the same command again goes on after anything."""
    _run(_Wanted(recipe, settings or [], runs, "scores", as_json), nproc)


class _Wanted(NamedTuple):
    recipe_path: Path
    settings: list[str]
    runs: Path
    until: Until
    as_json: bool


def _run(wanted: _Wanted, nproc: int | None = None) -> None:
    with training_processes(nproc) as num_processes:
        # None: this process only follows the first one.
        if num_processes is not None:
            _run_here(wanted, num_processes)


def _run_here(wanted: _Wanted, num_processes: int) -> None:
    from rich.console import Console

    from feldspar.cli.progress import make_progress
    from feldspar.cli.tables import merge_table, score_tables
    from feldspar.config import read_recipe
    from feldspar.flow import run_recipe
    from feldspar.reviews import read_honoured
    from feldspar.runs import claim_run
    from feldspar.views.changes import is_control
    from feldspar.views.merges import read_merges
    from feldspar.views.run_files import RunFiles

    folder, until = wanted.recipe_path.parent, wanted.until
    recipe = read_recipe(wanted.recipe_path, wanted.settings)
    path = wanted.runs / recipe.name
    claim_run(path, folder)
    if recipe.slurm is not None and not is_within_job():
        command = [*module_command("feldspar.cli.main"), *sys.argv[1:]]
        with_ray = recipe.cluster.engine == "ray"
        raise typer.Exit(run_as_job(command, recipe.slurm, with_ray, path))
    scores = run_recipe(
        recipe, folder, path, make_progress(), until=until, num_processes=num_processes
    )
    funnel = RunFiles(path).funnel
    reach = funnel.reach if funnel else None
    if wanted.as_json:
        rows = [dataclasses.asdict(score) for score in scores or ()]
        report = None if scores is None else str(path / "report.html")
        merges = [dataclasses.asdict(merge) for merge in read_merges(path)]
        reviews = None if until == "samples" else read_honoured(path)
        told = {
            "run": str(path),
            "until": until,
            "report": report,
            "scores": rows,
            "merges": merges,
            "reviews": reviews and dataclasses.asdict(reviews),
            "coverage": reach and reach._asdict(),
        }
        typer.echo(json.dumps(told, indent=1))
        return
    console = Console()
    if scores is not None:
        found = list(scores)
        left_out = [phase.name for phase in recipe.train.phase[:-1]]
        left_out += [s.checkpoint for s in found if is_control(s.checkpoint)]
        for table in [*map(merge_table, read_merges(path)), *score_tables(found, left_out)]:
            print_table(console, table)
        console.print(escaped(f"report: {path / 'report.html'}"), soft_wrap=True)
        console.print(escaped(f"talk to it: {_chat_command(wanted, recipe.name)}"), soft_wrap=True)
    else:
        if reach is not None and until == "samples":
            console.print(escaped(reach.sentence), soft_wrap=True)
        console.print(escaped(f"done up to {until}: {path}"), soft_wrap=True)


def _chat_command(wanted: _Wanted, name: str) -> str:
    """What shows the result's answers next to its base's, some questions of its exams first."""
    root = "" if wanted.runs == RUNS else f" --runs {shlex.quote(str(wanted.runs))}"
    return f"{_own_command()} chat {shlex.quote(name)} --beside-base --try 6{root}"


def _own_command() -> str:
    """As it can be pasted, also where it is not on the path: `.venv/bin/feldspar`."""
    called = Path(sys.argv[0])
    if called.name != "feldspar" or shutil.which("feldspar"):
        return "feldspar"
    return shlex.quote(os.path.relpath(called))


def _step_command(until: Until, what: str) -> Callable[..., None]:
    def command(
        recipe: RecipePath,
        settings: Settings = None,
        runs: RunsRoot = RUNS,
        as_json: AsJson = False,
    ) -> None:
        _run(_Wanted(recipe, settings or [], runs, until, as_json))

    command.__doc__ = what
    return command


def _training_command(until: Until, what: str) -> Callable[..., None]:
    def command(
        recipe: RecipePath,
        settings: Settings = None,
        runs: RunsRoot = RUNS,
        nproc: NumProcesses = None,
        as_json: AsJson = False,
    ) -> None:
        _run(_Wanted(recipe, settings or [], runs, until, as_json), nproc)

    command.__doc__ = what
    return command


STEPS = {
    "generate": _step_command("samples", "Have the teacher write and judge samples."),
    "mix": _step_command("phases", "Put the samples into phases with their replay."),
    "train": _training_command("trained", "Train the student through the phases."),
    "prefer": _training_command("preferred", "Tune the student on preferences."),
    "evaluate": _training_command("scores", "Score every checkpoint on the exams."),
}
