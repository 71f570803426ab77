"""`feldspar taxonomy check | tree | chunks`: what a folder of examples holds, and what to mend."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rich.console import Console
    from rich.tree import Tree

    from feldspar.taxonomy import Finding, LeafFile

TaxonomyPath = Annotated[Path, typer.Argument(help="A taxonomy, a part of one, or one leaf.")]
Mirror = Annotated[
    Path | None, typer.Option("--mirror", help="Documents laid out OWNER+REPO/COMMIT/FILE.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON.")]
MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Longest chunk in words; 400 by default.")
]

SEVERITY_STYLE = {"error": "bold red", "warning": "yellow", "note": "cyan"}

app = typer.Typer(help="Look at a taxonomy: what is in it, and what to mend.", no_args_is_help=True)


@app.command()
def check(path: TaxonomyPath, mirror: Mirror = None, as_json: AsJson = False) -> None:
    """List everything to mend, with its place and its cure. Exit code 3 when there are errors."""
    from feldspar.errors import TaxonomyError
    from feldspar.taxonomy import inspect_taxonomy

    console = _console()
    read: list[LeafFile] = []
    num_errors = 0
    for leaf_file in inspect_taxonomy(path, mirror):
        read.append(leaf_file)
        num_errors += len(leaf_file.errors)
        if not as_json:
            _print_findings(console, leaf_file.findings)
    if as_json:
        _print_json(_as_record(read))
    else:
        _say(console, _summary(path, read))
    if num_errors or not read:
        raise typer.Exit(TaxonomyError.exit_code)


@app.command()
def tree(path: TaxonomyPath, mirror: Mirror = None, as_json: AsJson = False) -> None:
    """Show the branches and leaves with their seeds, documents and findings."""
    from feldspar.taxonomy import inspect_taxonomy

    read = list(inspect_taxonomy(path, mirror))
    if as_json:
        _print_json([_leaf_record(leaf_file) for leaf_file in read])
        return
    console = _console()
    console.print(_tree(str(path), read))
    _say(console, _summary(path, read))


@app.command()
def chunks(path: TaxonomyPath, mirror: Mirror = None, max_tokens: MaxTokens = None) -> None:
    """Show how the documents of knowledge leaves are cut. Exit code 3 when some are not found."""
    from rich.text import Text

    from feldspar.config import TaxonomyConfig
    from feldspar.errors import TaxonomyError
    from feldspar.taxonomy import count_words, cut_documents, inspect_taxonomy, printable

    longest = TaxonomyConfig(path=str(path)).chunk_tokens if max_tokens is None else max_tokens
    console = _console()
    num_leaves = num_chunks = num_missing = 0
    for leaf_file in inspect_taxonomy(path, mirror):
        if leaf_file.branch not in (None, "knowledge"):
            continue
        _print_findings(console, [f for f in leaf_file.findings if f.severity != "note"])
        cut = cut_documents(leaf_file.documents, longest, count_words)
        num_leaves, num_chunks = num_leaves + 1, num_chunks + len(cut)
        num_missing += not cut
        for number, chunk in enumerate(cut, start=1):
            title = f"{leaf_file.path}  {number}/{len(cut)}  {chunk.num_tokens} words  {chunk.id}"
            heading = Text(printable(f"{title}\n{chunk.document}"), style="bold")
            console.print(heading, soft_wrap=True)
            _say(console, f"{chunk.text}\n")
    _say(
        console, f"{num_chunks} chunks of at most {longest} words in {num_leaves} knowledge leaves"
    )
    if num_missing or not num_leaves:
        raise typer.Exit(TaxonomyError.exit_code)


def _console() -> Console:
    from rich.console import Console

    return Console(markup=False, highlight=False, emoji=False)


def _say(console: Console, text: str) -> None:
    from feldspar.taxonomy import printable

    console.print(printable(text), soft_wrap=True)


def _print_findings(console: Console, findings: Iterable[Finding]) -> None:
    from rich.text import Text

    from feldspar.taxonomy import printable

    for finding in findings:
        line = Text(f"{finding.place} ")
        line.append(finding.severity, style=SEVERITY_STYLE[finding.severity])
        line.append(printable(f" {finding.code} {finding.message}\n"))
        line.append(printable(f"    {finding.cure}"), style="dim")
        console.print(line, soft_wrap=True)


def _summary(path: Path, read: Sequence[LeafFile]) -> str:
    if not read:
        return f"{path}: no qna.yaml in any folder; name the folder that holds the leaves"
    leaves = [leaf_file.leaf for leaf_file in read if leaf_file.leaf is not None]
    severities = [finding.severity for leaf_file in read for finding in leaf_file.findings]
    counts = ", ".join(_counted(severities.count(s), s) for s in ("error", "warning", "note"))
    num_seeds = sum(len(leaf.seeds) for leaf in leaves)
    return f"{len(leaves)} of {len(read)} leaves read, {num_seeds} seeds; {counts}"


def _tree(title: str, read: Sequence[LeafFile]) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    from feldspar.taxonomy import printable

    root = Tree(Text(printable(title)))
    nodes: dict[tuple[str, ...], Tree] = {(): root}
    for leaf_file in read:
        parts = tuple(leaf_file.path.split("/")) if leaf_file.path else (str(leaf_file.file),)
        for depth in range(1, len(parts) + 1):
            if parts[:depth] not in nodes:
                label = Text(printable(parts[depth - 1]))
                nodes[parts[:depth]] = nodes[parts[: depth - 1]].add(label)
        said = nodes[parts].label
        assert isinstance(said, Text)
        said.append(f"  {_figures(leaf_file)}", style="dim")
        for severity, style in SEVERITY_STYLE.items():
            number = sum(finding.severity == severity for finding in leaf_file.findings)
            if number:
                said.append(f"  {_counted(number, severity)}", style=style)
    return root


def _counted(number: int, noun: str) -> str:
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _figures(leaf_file: LeafFile) -> str:
    leaf = leaf_file.leaf
    if leaf is None:
        return "not read"
    figures = [_counted(len(leaf.seeds), "seed")]
    if any(seed.context for seed in leaf.seeds):
        figures.append("grounded")
    if leaf_file.documents:
        figures.append(_counted(len(leaf_file.documents), "document"))
    return ", ".join(figures)


def _print_json(record: object) -> None:
    import json

    sys.stdout.write(json.dumps(record, indent=1) + "\n")


def _as_record(read: Sequence[LeafFile]) -> dict[str, object]:
    leaves = [leaf_file.leaf for leaf_file in read if leaf_file.leaf is not None]
    return {
        "num_files": len(read),
        "num_leaves": len(leaves),
        "num_seeds": sum(len(leaf.seeds) for leaf in leaves),
        "findings": [_finding_record(f) for leaf_file in read for f in leaf_file.findings],
    }


def _leaf_record(leaf_file: LeafFile) -> dict[str, object]:
    leaf = leaf_file.leaf
    return {
        "path": leaf_file.path,
        "file": str(leaf_file.file),
        "branch": leaf_file.branch,
        "is_read": leaf is not None,
        "num_seeds": len(leaf.seeds) if leaf is not None else 0,
        "domain": leaf.domain if leaf is not None else "",
        "licence": leaf.licence if leaf is not None else "",
        "documents": [document.name for document in leaf_file.documents],
        "findings": [_finding_record(finding) for finding in leaf_file.findings],
    }


def _finding_record(finding: Finding) -> dict[str, object]:
    return {
        "code": finding.code,
        "severity": finding.severity,
        "path": str(finding.path),
        "line": finding.line,
        "column": finding.column,
        "message": finding.message,
        "cure": finding.cure,
    }
