"""`feldspar taxonomy diff`: which leaves a branch changes."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli import taxonomy_show as show

if TYPE_CHECKING:
    from feldspar.taxonomy import LeafChange

ComparedPath = Annotated[Path, typer.Argument(help="A taxonomy, or a part of one.")]
Base = Annotated[str, typer.Option("--base", help="The branch, tag or commit to compare with.")]


def diff(
    path: ComparedPath = Path("."), base: Base = "origin/main", as_json: show.AsJson = False
) -> None:
    """List the leaves that are new, changed, removed or renamed, untracked ones included."""
    from feldspar.taxonomy import diff_taxonomy

    changes = diff_taxonomy(path, base)
    if as_json:
        show.print_json([asdict(change) for change in changes])
        return
    out = show.console()
    for change in changes:
        show.say(out, _line(change))
    kinds = ("new", "changed", "removed", "renamed")
    counts = ", ".join(f"{sum(c.change == kind for c in changes)} {kind}" for kind in kinds)
    show.say(out, f"{counts} leaves since {base}")


def _line(change: LeafChange) -> str:
    line = f"{change.change:8}{change.path}"
    if change.old_path:
        line = f"{change.change:8}{change.old_path} -> {change.path}"
    told = []
    if change.num_added:
        told.append(f"{show.counted(change.num_added, 'seed')} more")
    if change.num_removed:
        told.append(f"{show.counted(change.num_removed, 'seed')} less")
    told += change.files[:3]
    if len(change.files) > 3:
        told.append(f"{len(change.files) - 3} more files")
    return f"{line}  {', '.join(told)}" if told else line
