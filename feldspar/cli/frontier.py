"""`feldspar frontier`: arms of one recipe, and what each has learned and kept."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.processes import training_processes
from feldspar.cli.run import RUNS, AsJson, NumProcesses, RecipePath, RunsRoot, Settings
from feldspar.cli.terminal import escaped, print_table

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from feldspar.frontier.arms import ArmRun
    from feldspar.frontier.plan import ArmPlan
    from feldspar.views.frontier import StudyResult

LEAVES = "leaf exams"


def frontier(
    recipe: RecipePath,
    vary: Annotated[
        list[str] | None,
        typer.Option("--vary", help="section.key=VALUE,VALUE; repeated, every combination."),
    ] = None,
    arm: Annotated[
        list[str] | None,
        typer.Option("--arm", help="NAME: section.key=value; section.key=value. Repeatable."),
    ] = None,
    seeds: Annotated[int, typer.Option("--seeds", min=1, help="Seeds of each arm.")] = 1,
    learned: Annotated[
        list[str] | None,
        typer.Option("--learned", help="An exam of what is taught; left out: the leaves' own."),
    ] = None,
    equal_tokens: Annotated[
        bool,
        typer.Option("--equal-tokens", help="Epochs so that all train on as much as the first."),
    ] = False,
    plan: Annotated[bool, typer.Option("--plan", help="Say what it takes; run nothing.")] = False,
    settings: Settings = None,
    runs: RunsRoot = RUNS,
    nproc: NumProcesses = None,
    as_json: AsJson = False,
) -> None:
    """Run a recipe under several settings, sharing all they can; learned against kept."""
    from feldspar.config import read_recipe
    from feldspar.frontier.arms import arm_runs, parse_arms

    study = arm_runs(recipe, settings or [], parse_arms(arm or [], vary or []), seeds)
    if plan:
        _print_plan(study, recipe.parent, as_json=as_json)
        return
    with training_processes(nproc) as num_processes:
        # None: this process only follows the first one.
        if num_processes is not None:
            _study(
                study, recipe.parent, read_recipe(recipe, settings or []).name, runs,
                learned or [LEAVES], equal_tokens=equal_tokens,
                num_processes=num_processes, as_json=as_json,
            )  # fmt: skip


def _study(
    study: Sequence[ArmRun],
    recipe_folder: Path,
    name: str,
    runs: Path,
    learned: Sequence[str],
    *,
    equal_tokens: bool,
    num_processes: int,
    as_json: bool,
) -> None:
    from rich.console import Console

    from feldspar.cli.progress import make_progress
    from feldspar.frontier.page import as_json as to_json
    from feldspar.frontier.page import write_study
    from feldspar.frontier.study import run_study
    from feldspar.runs import claim_run

    root = runs / f"{name}-frontier"
    claim_run(root, recipe_folder)
    result = run_study(
        study, recipe_folder, root, make_progress(),
        learned_exams=learned, equal_tokens=equal_tokens, num_processes=num_processes,
    )  # fmt: skip
    page = write_study(root, name, result)
    if as_json:
        typer.echo(json.dumps({"page": str(page), **to_json(result)}, indent=1))
        return
    console = Console()
    print_table(console, _table(name, result))
    console.print(escaped(f"page: {page}"), soft_wrap=True)


def _table(name: str, result: StudyResult) -> Table:
    from rich import box
    from rich.table import Table

    from feldspar.views.frontier import COLUMNS, cells, notes

    table = Table(
        title=escaped(name), title_justify="left", title_style="bold", box=box.SIMPLE_HEAD
    )
    for number, column in enumerate(COLUMNS):
        table.add_column(column, overflow="fold", no_wrap=number > 0)
    for row in result.rows:
        style = "bold" if row.is_on_front else None
        table.add_row(*(escaped(cell) for cell in cells(row)), style=style)
    table.caption = "\n".join(map(escaped, notes(result)))
    table.caption_justify = "left"
    return table


def _print_plan(study: Sequence[ArmRun], folder: Path, *, as_json: bool) -> None:
    from rich.console import Console

    from feldspar.cli.progress import make_progress
    from feldspar.frontier.plan import plan_study

    planned = plan_study(study, folder, make_progress())
    if as_json:
        typer.echo(json.dumps({"arms": [dataclasses.asdict(p) for p in planned]}, indent=1))
        return
    print_table(Console(), _plan_table(planned))


def _plan_table(planned: Sequence[ArmPlan]) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title="Arms, in order", title_justify="left", box=box.SIMPLE_HEAD)
    for column in ("arm", "seed", "found", "calls", "optimizer steps", "hours"):
        table.add_column(column, overflow="fold")
    for p in planned:
        hours = "-" if p.hours is None else f"{p.hours:.2f}"
        found = ", ".join(p.shares) or "nothing"
        table.add_row(
            escaped(p.arm), str(p.seed), found, f"{p.calls:,}", f"{p.optimizer_steps:,}", hours
        )
    hours_known = [p.hours for p in planned if p.hours is not None]
    total = f"{sum(hours_known):.2f} hours" if len(hours_known) == len(planned) else "hours unknown"
    table.caption = (
        f"together: {sum(p.calls for p in planned):,} calls at most, "
        f"{sum(p.optimizer_steps for p in planned):,} optimizer steps, {total}; exams are not "
        "included, and answers in the journal cost nothing"
    )
    return table
