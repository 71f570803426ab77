"""`feldspar taxonomy check | tree | chunks`: what a folder of examples holds, and what to mend."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from feldspar.cli import taxonomy_show as show
from feldspar.cli.taxonomy_check import check
from feldspar.cli.taxonomy_diff import diff
from feldspar.cli.taxonomy_write import draft, import_, new

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.tree import Tree

    from feldspar.taxonomy import LeafFile

MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Longest chunk in words; 400 by default.")
]

app = typer.Typer(help="Look at a taxonomy: what is in it, and what to mend.", no_args_is_help=True)
app.command()(check)
app.command()(diff)
app.command()(new)
app.command("import")(import_)
app.command()(draft)


@app.command()
def tree(path: show.TaxonomyPath, mirror: show.Mirror = None, as_json: show.AsJson = False) -> None:
    """Show the branches and leaves with their seeds, documents and findings."""
    from feldspar.taxonomy import inspect_taxonomy

    read = list(inspect_taxonomy(path, mirror))
    if as_json:
        show.print_json([_leaf_record(leaf_file) for leaf_file in read])
        return
    console = show.console()
    console.print(_tree(str(path), read))
    show.say(console, show.summary(path, read))


@app.command()
def chunks(
    path: show.TaxonomyPath, mirror: show.Mirror = None, max_tokens: MaxTokens = None
) -> None:
    """Show how the documents of knowledge leaves are cut. Exit code 3 when some are not found."""
    from rich.text import Text

    from feldspar.config import TaxonomyConfig
    from feldspar.errors import TaxonomyError
    from feldspar.taxonomy import cut_documents, inspect_taxonomy, printable
    from feldspar.tokens.count import count_words

    longest = TaxonomyConfig(path=str(path)).chunk_tokens if max_tokens is None else max_tokens
    console = show.console()
    num_leaves = num_chunks = num_missing = 0
    for leaf_file in inspect_taxonomy(path, mirror):
        if leaf_file.branch not in (None, "knowledge"):
            continue
        show.print_findings(console, [f for f in leaf_file.findings if f.severity != "note"])
        cut = cut_documents(leaf_file.documents, longest, count_words)
        num_leaves, num_chunks = num_leaves + 1, num_chunks + len(cut)
        num_missing += not cut
        for number, chunk in enumerate(cut, start=1):
            title = f"{leaf_file.path}  {number}/{len(cut)}  {chunk.num_tokens} words  {chunk.id}"
            heading = Text(printable(f"{title}\n{chunk.document}"), style="bold")
            console.print(heading, soft_wrap=True)
            show.say(console, f"{chunk.text}\n")
    show.say(
        console, f"{num_chunks} chunks of at most {longest} words in {num_leaves} knowledge leaves"
    )
    if num_missing or not num_leaves:
        raise typer.Exit(TaxonomyError.exit_code)


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
        for severity, style in show.SEVERITY_STYLE.items():
            number = sum(finding.severity == severity for finding in leaf_file.findings)
            if number:
                said.append(f"  {show.counted(number, severity)}", style=style)
    return root


def _figures(leaf_file: LeafFile) -> str:
    leaf = leaf_file.leaf
    if leaf is None:
        return "not read"
    figures = [show.counted(len(leaf.seeds), "seed")]
    if any(seed.context for seed in leaf.seeds):
        figures.append("grounded")
    if leaf_file.documents:
        figures.append(show.counted(len(leaf_file.documents), "document"))
    return ", ".join(figures)


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
        "findings": [show.finding_record(finding) for finding in leaf_file.findings],
    }
