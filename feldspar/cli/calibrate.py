"""`feldspar calibrate`: what the judge is worth, before it decides what is kept."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli.run import RUNS, RecipePath, RunsRoot, Settings
from feldspar.cli.terminal import escaped, print_table

if TYPE_CHECKING:
    from rich.table import Table

    from feldspar.generate import JudgeAndPeople
    from feldspar.records import JudgeScore


def calibrate(
    recipe: RecipePath,
    settings: Settings = None,
    runs: RunsRoot = RUNS,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Try the judge on good pairs and on corrupted ones, made from the seeds.

    Where people reviewed samples of the recipe's run, also how often the judge agrees with them.
    """
    from feldspar.cli.progress import make_progress
    from feldspar.config import read_recipe
    from feldspar.trials import calibrate_judge, judge_and_people_of

    read = read_recipe(recipe, settings or [])
    scores = calibrate_judge(read, recipe.parent, make_progress())
    people = judge_and_people_of(runs / read.name)
    if as_json:
        typer.echo(_as_json(scores, people))
    else:
        _print(scores)
        if people is not None:
            _print_people(people)


def _as_json(scores: list[JudgeScore], people: JudgeAndPeople | None) -> str:
    import dataclasses
    import json

    from feldspar.generate import reliability

    criteria = [found._asdict() for found in reliability(scores)]
    pairs = [dataclasses.asdict(score) for score in scores]
    told = people and dataclasses.asdict(people)
    return json.dumps({"criteria": criteria, "pairs": pairs, "people": told}, indent=1)


def _print(scores: list[JudgeScore]) -> None:
    from rich.console import Console
    from rich.table import Table

    from feldspar.generate import reliability

    console = Console()
    judged = Table(title="The judge on known pairs", title_justify="left", title_style="bold")
    for column in ("criterion", "pairs", "count", "accepted", "unreadable"):
        judged.add_column(column, justify="left" if column in ("criterion", "pairs") else "right")
    for score in scores:
        accepted = f"{score.num_accepted / score.num_pairs:.0%}"
        counts = (str(score.num_pairs), accepted, str(score.num_unreadable))
        judged.add_row(score.criterion, score.kind, *counts)
    worth = Table(title="Precision and recall", title_justify="left", title_style="bold")
    for column in ("criterion", "precision", "recall", "count"):
        worth.add_column(column, justify="left" if column == "criterion" else "right")
    for found in reliability(scores):
        figures = (f"{found.precision:.2f}", f"{found.recall:.2f}", str(found.num_pairs))
        worth.add_row(found.criterion, *figures)
    console.print(judged, worth)
    console.print("precision: as if half of all pairs were good", style="dim")


MAX_SHOWN = 10


def _print_people(people: JudgeAndPeople) -> None:
    from rich.console import Console

    console = Console()
    low, high = people.interval
    kappa = "" if people.kappa is None else f", kappa {people.kappa:.2f}"
    console.print(
        f"\n[bold]The judge and people[/bold]  agree on {people.agreement:.0%} "
        f"of {people.num_samples} reviewed samples (95 % interval {low:.0%} to {high:.0%}){kappa}"
    )
    console.print(
        f"both keep {people.num_both_keep}, both reject {people.num_both_reject}; "
        f"the judge alone keeps {people.num_judge_only}, people alone {people.num_people_only}"
    )
    if people.disagreements:
        print_table(console, _disagreements(people))


def _disagreements(people: JudgeAndPeople) -> Table:
    from rich.table import Table

    num = len(people.disagreements)
    table = Table(title="Where they disagree", title_justify="left", title_style="bold")
    for column in ("question", "judge", "people"):
        table.add_column(column)
    for found in people.disagreements[:MAX_SHOWN]:
        table.add_row(
            escaped(found.question),
            escaped(found.judge.removeprefix("judge: ")),
            escaped(found.people),
        )
    if num > MAX_SHOWN:
        table.caption = f"{num - MAX_SHOWN} more are on the studio's page Reviews"
    return table
