"""`feldspar journal stats|export|gc|forget`: the teacher's answers that were paid for."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from feldspar.cli.terminal import escaped
from feldspar.files import whole_file

if TYPE_CHECKING:
    from feldspar.teacher import Journal

app = typer.Typer(help="The teacher's answers that were paid for.", no_args_is_help=True)

RecipePath = Annotated[Path, typer.Argument(help="A recipe: its journal is meant.")]


@app.command()
def stats(
    recipe: RecipePath,
    as_json: Annotated[bool, typer.Option("--json", help="For machines.")] = False,
) -> None:
    """Say what the journal holds: answers and tokens by model and stage."""
    import json

    from rich.console import Console
    from rich.table import Table

    with _open(recipe) as journal:
        found = journal.stats()
        size_bytes = journal.size_bytes
    if as_json:
        rows = [row._asdict() for row in found]
        typer.echo(json.dumps({"size_bytes": size_bytes, "stages": rows}, indent=1))
        return
    table = Table(title=escaped(str(journal.path)), title_justify="left", title_style="bold")
    for column in ("model", "stage", "answers", "prompt tokens", "completion tokens"):
        justify: Literal["left", "right"] = "left" if column in ("model", "stage") else "right"
        # `gc --keep` wants the whole name.
        table.add_column(column, justify=justify, overflow="fold")
    for row in found:
        table.add_row(
            escaped(row.model), escaped(row.stage), *(f"{number:,}" for number in row[2:])
        )
    console = Console()
    console.print(table)
    console.print(f"{size_bytes / 1e6:.1f} MB")


@app.command()
def export(
    recipe: RecipePath,
    out: Annotated[Path, typer.Option("--out", help="A JSONL file to write.")],
    model: Annotated[str, typer.Option("--model", help="MODEL@REVISION; else all.")] = "",
) -> None:
    """Write the answers as JSONL."""
    import json

    num_written = 0
    with _open(recipe) as journal:
        if model:
            _refuse_unknown([model], _counts(journal), journal)
        with whole_file(out) as beside, beside.open("w", encoding="utf-8") as file:
            for entry in journal.answers(model):
                file.write(json.dumps(entry._asdict(), ensure_ascii=False) + "\n")
                num_written += 1
    typer.echo(f"{num_written:,} answers: {out}")


@app.command()
def gc(
    recipe: RecipePath,
    keep: Annotated[
        list[str], typer.Option("--keep", help="MODEL@REVISION to keep; may be repeated.")
    ],
    sure: Annotated[bool, typer.Option("--yes", help="Do it, and not only tell.")] = False,
) -> None:
    """Forget the answers of models that are no longer asked. They would have to be paid again."""
    with _open(recipe) as journal:
        counts = _counts(journal)
        _refuse_unknown(keep, counts, journal)
        stale = sorted(set(counts) - set(keep))
        num_stale = sum(counts[model] for model in stale)
        if not sure:
            typer.echo(f"would forget {num_stale:,} answers of {', '.join(stale) or 'no model'}")
            typer.echo("nothing is changed yet; add --yes to do it")
            return
        before = journal.size_bytes
        journal.remove(stale)
        freed = before - journal.size_bytes
    typer.echo(f"{num_stale:,} answers forgotten, {freed / 1e6:.1f} MB given back")


@app.command()
def forget(
    recipe: RecipePath,
    refusals: Annotated[
        bool, typer.Option("--refusals", help="What models refused, to be asked again.")
    ] = False,
) -> None:
    """Forget refusals, where they were the server's fault. Nothing that was paid for is lost."""
    from feldspar.errors import RecipeError

    if not refusals:
        raise RecipeError("name what to forget: --refusals; `gc` forgets the answers of models")
    with _open(recipe) as journal:
        num_forgotten = journal.remove_refusals()
    typer.echo(f"{num_forgotten:,} refusals forgotten: the next step that asks asks them again")


def _open(recipe_path: Path) -> Journal:
    from feldspar.config import read_recipe
    from feldspar.errors import RecipeError
    from feldspar.teacher import Journal

    path = recipe_path.parent / read_recipe(recipe_path).journal
    if not path.exists():
        raise RecipeError(f"{path}: no journal there yet; `feldspar generate` makes one")
    return Journal(path)


def _counts(journal: Journal) -> dict[str, int]:
    """Answers by model and revision."""
    counts: dict[str, int] = {}
    for row in journal.stats():
        counts[row.model] = counts.get(row.model, 0) + row.num_answers
    return counts


def _refuse_unknown(named: Collection[str], counts: dict[str, int], journal: Journal) -> None:
    from feldspar.errors import RecipeError

    unknown = sorted(set(named) - set(counts))
    if unknown:
        there = ", ".join(counts) or "none"
        raise RecipeError(f"{journal.path}: holds nothing of {unknown[0]!r}; there is: {there}")
