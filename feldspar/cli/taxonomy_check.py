"""`feldspar taxonomy check`: what to mend, for people, programs, and pull requests."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli import taxonomy_show as show

if TYPE_CHECKING:
    from feldspar.taxonomy import LeafFile


class Format(StrEnum):
    text = "text"
    json = "json"
    github = "github"
    sarif = "sarif"


class Level(StrEnum):
    error = "error"
    warning = "warning"
    note = "note"


NONE_CHANGED = "no leaf is new or changed since"

CheckedPath = Annotated[Path | None, typer.Argument(help="A taxonomy, a part of one, or one leaf.")]
AsFormat = Annotated[Format, typer.Option("--format", help="How findings are printed.")]
Fix = Annotated[
    bool, typer.Option("--fix", help="First mend globs, tabs, trailing blanks and the version.")
]
Changed = Annotated[
    bool,
    typer.Option("--changed", help="Only leaves that are not as they were at --base."),
]
Base = Annotated[
    str, typer.Option("--base", help="For --changed: the branch, tag or commit to compare with.")
]
FailOn = Annotated[Level, typer.Option("--fail-on", help="The mildest finding that counts.")]
Explain = Annotated[
    str | None, typer.Option("--explain", metavar="CODE", help="Say why a finding is one.")
]


def check(
    path: CheckedPath = None,
    mirror: show.Mirror = None,
    documents: show.Documents = False,
    as_format: AsFormat = Format.text,
    fix: Fix = False,
    fail_on: FailOn = Level.error,
    explain: Explain = None,
    as_json: show.AsJson = False,
    changed: Changed = False,
    base: Base = "origin/main",
) -> None:
    """List everything to mend, with its place and its cure. Exit code 3 when there are errors."""
    from feldspar.errors import TaxonomyError
    from feldspar.taxonomy import SEVERITIES, inspect_taxonomy

    if explain is not None:
        _explain(explain)
        return
    if path is None:
        raise typer.BadParameter("name a folder to check", param_hint="PATH")
    as_format = Format.json if as_json else as_format
    # Before anything is mended: a leaf that --fix alone changes is none that the branch changes.
    wanted = _changed_leaves(path, base) if changed else None
    if fix:
        _fix(path, as_format)
    out = show.console()
    read: list[LeafFile] = []
    for leaf_file in inspect_taxonomy(path, mirror, show.fetcher(documents)):
        if wanted is not None and leaf_file.file.parent.resolve() not in wanted:
            continue
        read.append(leaf_file)
        if as_format is Format.text:
            show.print_findings(out, leaf_file.findings)
    if as_format is Format.text:
        show.say(out, show.summary(path, read) if read or not changed else f"{NONE_CHANGED} {base}")
    else:
        _print_for_programs(as_format, read)
    counting = SEVERITIES[: SEVERITIES.index(fail_on.value) + 1]
    if not (read or changed) or any(f.severity in counting for leaf in read for f in leaf.findings):
        raise typer.Exit(TaxonomyError.exit_code)


def _changed_leaves(path: Path, base: str) -> set[Path]:
    """The folders of the leaves that are new, changed or renamed."""
    from feldspar.taxonomy import diff_taxonomy

    changes = diff_taxonomy(path, base)
    return {(path / change.path).resolve() for change in changes if change.change != "removed"}


def _print_for_programs(as_format: Format, read: list[LeafFile]) -> None:
    from feldspar.taxonomy import github_command, sarif

    findings = [finding for leaf_file in read for finding in leaf_file.findings]
    if as_format is Format.github:
        for finding in findings:
            typer.echo(github_command(finding))
    elif as_format is Format.sarif:
        show.print_json(sarif(findings))
    else:
        leaves = [leaf_file.leaf for leaf_file in read if leaf_file.leaf is not None]
        show.print_json(
            {
                "num_files": len(read),
                "num_leaves": len(leaves),
                "num_seeds": sum(len(leaf.seeds) for leaf in leaves),
                "findings": [show.finding_record(finding) for finding in findings],
            }
        )


def _fix(path: Path, as_format: Format) -> None:
    """Mend what is mechanical; told on standard error where the output is for programs."""
    from feldspar.taxonomy import mend_files
    from feldspar.text import on_one_line

    for file, mended in mend_files(path):
        text = on_one_line(f"{file}:{mended.line} fixed: {mended.what}")
        typer.echo(text, err=as_format is not Format.text)


def _explain(code: str) -> None:
    from feldspar.taxonomy import CODES

    known = CODES.get(code.upper())
    if known is None:
        raise typer.BadParameter(f"no such code; there are {', '.join(CODES)}")
    typer.echo(f"{code.upper()} ({known.severity}): {known.meaning}.\n{known.why}")
