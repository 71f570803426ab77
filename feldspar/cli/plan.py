"""`feldspar plan`: the cost before paying it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.doctor import as_rows, checks_table
from feldspar.cli.plan_cluster import show_cluster_plan
from feldspar.cli.run import RUNS, RecipePath, RunsRoot, Settings
from feldspar.cli.terminal import escaped, figures_table, print_table
from feldspar.errors import RecipeError

if TYPE_CHECKING:
    from rich.table import Table

    from feldspar.ahead import Check
    from feldspar.plan import CallPlan, Plan
    from feldspar.records import MemoryEstimate
    from feldspar.reviews import ReviewCounts

GIB, MIB = 2**30, 2**20


def plan(
    recipe: RecipePath,
    settings: Settings = None,
    gpu: Annotated[
        str | None, typer.Option("--gpu", help="Another machine, such as h200x8 or rtx4090.")
    ] = None,
    cluster: Annotated[
        str | None,
        typer.Option(
            "--cluster",
            help="The timetable of a cluster: GPU x GPUs per node x nodes, such as h100x8x10.",
        ),
    ] = None,
    probes: Annotated[
        int,
        typer.Option(
            "--probe",
            min=0,
            help="Ask this many of the run's calls, to time the teacher; on a CPU, time training.",
        ),
    ] = 0,
    runs: RunsRoot = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what a run will cost: calls, money, optimizer steps, hours, memory, disk."""
    from feldspar.cli.progress import make_progress
    from feldspar.config import read_recipe
    from feldspar.generate import reviews_of_run
    from feldspar.planning import plan_recipe
    from feldspar.prepare import doctor
    from feldspar.progress import SILENT

    read = read_recipe(recipe, settings or [])
    if cluster is not None:
        if gpu is not None:
            raise RecipeError("--gpu and --cluster both name the machine; leave one out")
        show_cluster_plan(read, recipe.parent, cluster, num_probes=probes, as_json=as_json)
        return
    made = plan_recipe(read, recipe.parent, make_progress(), gpu=gpu, num_probes=probes)
    checks = doctor(read, recipe.parent, SILENT)
    reviewed = reviews_of_run(runs / read.name)
    reviews = reviewed.counts if reviewed else None
    if as_json:
        typer.echo(_as_json(made, checks, reviews))
    else:
        _print(made, read.name, checks, reviews)


def _as_json(made: Plan, checks: Sequence[Check], reviews: ReviewCounts | None) -> str:
    import dataclasses
    import json

    told = dataclasses.asdict(made)
    told["calls"] = [dataclasses.asdict(call) for call in made.calls]
    told["steps"] = [e._asdict() for e in made.estimates]
    del told["estimates"]
    told["memory"] = [
        {**m._asdict(), "total": m.total, "fits": _fits(m, made)} for m in made.memory
    ]
    for phase, planned in zip(told["phases"], made.phases, strict=True):
        phase["steps_per_epoch"], phase["num_steps"] = planned.steps_per_epoch, planned.num_steps
    told["checks"] = as_rows(checks)
    told["reviews"] = reviews and dataclasses.asdict(reviews)
    return json.dumps(told, indent=1)


def _print(made: Plan, name: str, checks: Sequence[Check], reviews: ReviewCounts | None) -> None:
    from rich.console import Console

    console = Console()
    console.print(
        f"\n[bold]{escaped(name)}[/bold]  on {escaped(str(made.machine))}\n", highlight=False
    )
    tables = [_calls_table(made)] if made.calls else []
    tables.append(_steps_table(made))
    tables += [_memory_table(made)] if made.memory else []
    for table in tables:
        print_table(console, table)
    closing = _closing_table(made)
    if reviews is not None:
        closing.add_row("reviews", escaped(reviews.sentence))
    console.print(closing)
    console.print("\n[bold]Before it starts[/bold]")
    console.print(checks_table(checks, is_plain=console.options.ascii_only))
    for warning in made.warnings:
        console.print(escaped(f"warning: {warning}"), style="yellow", highlight=False)


def _calls_table(made: Plan) -> Table:
    table = figures_table("Teacher", "stage", "calls", "tokens read", "tokens written", "cost")
    for step in dict.fromkeys(call.step for call in made.calls):
        table.add_row(escaped(step))
        for call in (c for c in made.calls if c.step == step):
            table.add_row(escaped(f"  {call.stage}"), *_call_cells([call]))
    table.add_section()
    table.add_row("all", *_call_cells(made.calls))
    table.caption = "if no sample is rejected on the way; 4 characters a token"
    return table


def _call_cells(calls: Sequence[CallPlan]) -> list[str]:
    counts = (
        sum(c.calls for c in calls),
        sum(c.prompt_tokens for c in calls),
        sum(c.completion_tokens for c in calls),
    )
    cost = sum(c.cost for c in calls)
    return [*(f"{n:,}" for n in counts), f"{cost:,.2f}" if cost else "-"]


def _steps_table(made: Plan) -> Table:
    columns = ("phase", "rows/epoch", "rows/step", "steps/epoch", "epochs", "steps", "time")
    table = figures_table("Training", *columns)
    for p in made.phases:
        numbers = (p.rows_per_epoch, p.batch_samples, p.steps_per_epoch, p.num_epochs, p.num_steps)
        table.add_row(escaped(p.name), *(f"{n:,}" for n in numbers), _time(p.hours))
    table.add_section()
    steps = sum(p.num_steps for p in made.phases)
    table.add_row("all", "", "", "", "", f"{steps:,}", _time(made.training_hours))
    row_tokens = f"{made.row_tokens:,}" if made.row_tokens else "unknown"
    table.caption = f"parameters: {_count(made.num_parameters)}; tokens a row: {row_tokens}"
    return table


def _memory_table(made: Plan) -> Table:
    room = made.machine.room_bytes
    largest = max(way.total for way in made.memory)
    unit, name = (GIB, "GiB") if largest >= GIB else (MIB, "MiB")
    title = f"Memory on each GPU, {name}" if room else f"Memory, {name}"
    columns = ("way of training", "weights", "gradients", "states", "activations", "all")
    table = figures_table(title, *columns, *(["fits"] if room else []))
    for place, way in enumerate(made.memory):
        options = ", ".join(way.options) or "all weights"
        parts = (way.weights, way.gradients, way.optimizer, way.activations, way.total)
        cells = [f"{part / unit:,.1f}" for part in parts]
        if room:
            cells.append("[green]yes[/green]" if _fits(way, made) else "[red]no[/red]")
        table.add_row(f"[bold]{options} (recipe)[/bold]" if place == 0 else options, *cells)
    if made.memory[0].process:
        process = made.memory[0].process / unit
        table.caption = f"all: with {process:,.1f} {name} of the interpreter and its libraries"
    if room:
        table.caption = f"{room / GIB:.0f} GiB of each can be used"
    return table


def _closing_table(made: Plan) -> Table:
    from rich.table import Table

    table = Table.grid(padding=(0, 2))
    if made.rate is None and made.calls:
        table.add_row("teacher", "time unknown: --probe 32 times 32 of the run's own calls")
    elif made.rate is not None:
        speed = f"{made.rate.tokens_per_second:,.0f} tokens/s written ({made.rate.known_by})"
        table.add_row("teacher", f"{_time(made.teacher_hours)} at {speed}")
    if made.training_hours is None:
        why = "the base's sizes are unknown: " + escaped("[plan.architecture] states them")
        if made.memory:
            why = "no GPU whose peak is known: --gpu names one, or --probe 1 times some steps here"
        table.add_row("training", f"time unknown, {why}")
    elif made.training_rate is not None:
        speed = f"{made.training_rate.tokens_per_second:,.0f} tokens/s"
        known_by = made.training_rate.known_by
        table.add_row("training", f"{_time(made.training_hours)} at {speed} ({known_by})")
    else:
        table.add_row("training", f"{_time(made.training_hours)} at the MFU that plan.mfu states")
    for e in made.estimates:
        if e.step == "preferred":
            hours = f", {_time(made.preference_hours)}" if made.preference_hours else ""
            table.add_row("preferences", f"{e.optimizer_steps:,} steps{hours}; {e.note}")
        if e.step == "general":
            table.add_row("general", e.note)
        if e.step == "benchmarks":
            table.add_row("benchmark", e.note)
    gigabytes = f"{made.disk_bytes / 1e9:,.2f} GB of {made.free_bytes / 1e9:,.1f} GB free"
    table.add_row("disk", gigabytes)
    if made.cost:
        table.add_row("cost", f"{made.cost:,.2f} in the recipe's currency")
    for place, part in enumerate(made.not_included):
        table.add_row("" if place else "not included", part)
    return table


def _time(hours: float | None) -> str:
    if hours is None:
        return "-"
    if hours >= 1:
        return f"{hours:,.1f} h"
    return f"{hours * 60:.0f} min" if hours >= 1 / 60 else "under a minute"


def _count(number: int) -> str:
    for unit, name in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return "unknown"


def _fits(way: MemoryEstimate, made: Plan) -> bool | None:
    room = made.machine.room_bytes
    return None if room is None else way.total <= room
