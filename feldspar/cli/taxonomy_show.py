"""What the `taxonomy` commands share: arguments, and findings on a terminal or as records."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console

    from feldspar.taxonomy import Fetcher, Finding, LeafFile

TaxonomyPath = Annotated[Path, typer.Argument(help="A taxonomy, a part of one, or one leaf.")]
Mirror = Annotated[
    Path | None, typer.Option("--mirror", help="Documents laid out OWNER+REPO/COMMIT/FILE.")
]
Documents = Annotated[
    bool, typer.Option("--documents", help="Fetch the documents that leaves name by URL.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]

SEVERITY_STYLE = {"error": "bold red", "warning": "yellow", "note": "cyan"}


def fetcher(is_wanted: bool) -> Fetcher | None:
    """What fetches documents, where a command was told to."""
    if not is_wanted:
        return None
    from feldspar.taxonomy import Fetcher

    return Fetcher()


def console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def say(out: Console, line: str) -> None:
    from feldspar.text import on_one_line

    out.print(on_one_line(line), soft_wrap=True)


def print_findings(out: Console, findings: Iterable[Finding]) -> None:
    from rich.text import Text

    from feldspar.text import on_one_line

    for finding in findings:
        line = Text(f"{finding.place} ")
        line.append(finding.severity, style=SEVERITY_STYLE[finding.severity])
        line.append(on_one_line(f" {finding.code} {finding.message}") + "\n")
        line.append(on_one_line(f"    {finding.cure}"), style="dim")
        out.print(line, soft_wrap=True)


def print_json(record: object) -> None:
    import json

    sys.stdout.write(json.dumps(record, indent=1) + "\n")


def summary(path: Path, read: Sequence[LeafFile]) -> str:
    if not read:
        return f"{path}: no qna.yaml in any folder; name the folder that holds the leaves"
    leaves = [leaf_file.leaf for leaf_file in read if leaf_file.leaf is not None]
    severities = [finding.severity for leaf_file in read for finding in leaf_file.findings]
    counts = ", ".join(counted(severities.count(s), s) for s in ("error", "warning", "note"))
    num_seeds = sum(len(leaf.seeds) for leaf in leaves)
    return f"{len(leaves)} of {len(read)} leaves read, {num_seeds} seeds; {counts}"


def counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def finding_record(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "path": str(finding.path),
        "line": finding.line,
        "column": finding.column,
        "message": finding.message,
        "cure": finding.cure,
    }
