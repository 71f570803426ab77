"""`feldspar taxonomy new | import | draft`: leaves to start from."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from feldspar.cli import taxonomy_show as show

LeafPath = Annotated[
    Path,
    typer.Argument(
        help="The leaf's folder, or its path in ./taxonomy: `knowledge/astronomy/phoenix`."
    ),
]
TAXONOMY = Path("taxonomy")
TablePath = Annotated[
    Path, typer.Argument(help="A .csv, .jsonl or .md table of questions and answers.")
]
TeacherUrl = Annotated[
    str, typer.Option("--teacher", help="The teacher's address, such as http://localhost:8000/v1.")
]


def new(leaf: LeafPath) -> None:
    """Write a leaf with comments to start from; it passes `check` as it stands."""
    from feldspar.taxonomy import new_leaf

    _tell(new_leaf(_in_taxonomy(leaf)))


def import_(table: TablePath, leaf: LeafPath) -> None:
    """Write a leaf of a table with the columns question, answer and, for some, context."""
    from feldspar.taxonomy import import_table

    _tell(import_table(table, _in_taxonomy(leaf)))


def draft(leaf: LeafPath, teacher: TeacherUrl, mirror: show.Mirror = None) -> None:
    """Let a teacher propose seeds from the leaf's documents, for you to review."""
    import asyncio

    from feldspar.runs import cache_folder
    from feldspar.taxonomy.draft import draft_with_teacher
    from feldspar.text.printable import on_one_line

    journal_path = cache_folder() / "drafts.sqlite"
    path = asyncio.run(draft_with_teacher(_in_taxonomy(leaf), teacher, journal_path, mirror=mirror))
    typer.echo(on_one_line(f"{path}: a draft; review it, then rename it to qna.yaml"))


def _in_taxonomy(leaf: Path) -> Path:
    """The leaf's folder. `knowledge/x`, a path as `tree` shows, is `taxonomy/knowledge/x` where
    the working directory holds a taxonomy as `init` writes it, and no branch folder.
    """
    from feldspar.taxonomy.places import BRANCH_FOLDERS

    branch = leaf.parts[0] if leaf.parts else ""
    is_path = branch in BRANCH_FOLDERS and not Path(branch).is_dir()
    return TAXONOMY / leaf if is_path and TAXONOMY.is_dir() else leaf


def _tell(files: list[Path]) -> None:
    from feldspar.cli.terminal import quoted
    from feldspar.text.printable import on_one_line

    for file in files:
        typer.echo(on_one_line(f"wrote {file}"))
    typer.echo(on_one_line(f"next: feldspar taxonomy check {quoted(files[0].parent)}"))
