"""`feldspar taxonomy`: its commands, and what a folder of examples holds: `tree`, `chunks`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, NamedTuple

import typer

from feldspar.cli import taxonomy_show as show
from feldspar.cli.taxonomy_check import check
from feldspar.cli.taxonomy_diff import diff
from feldspar.cli.taxonomy_write import draft, import_, new

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rich.console import Console
    from rich.table import Table
    from rich.tree import Tree

    from feldspar.records import Chunk, Seed
    from feldspar.taxonomy import LeafFile

MaxTokens = Annotated[
    int | None, typer.Option("--max-tokens", min=1, help="Longest chunk in words; 400 by default.")
]

app = typer.Typer(
    help="Look at a taxonomy, mend it, and write leaves for it.", no_args_is_help=True
)
app.command()(check)
app.command()(diff)
app.command()(new)
app.command("import")(import_)
app.command()(draft)


@app.command()
def tree(
    path: show.TaxonomyPath,
    mirror: show.Mirror = None,
    documents: show.Documents = False,
    as_json: show.AsJson = False,
) -> None:
    """Show the branches and leaves with their seeds, chunks and findings."""
    from feldspar.taxonomy import inspect_taxonomy

    read = [
        _Seen(leaf, _cut(leaf)) for leaf in inspect_taxonomy(path, mirror, show.fetcher(documents))
    ]
    if as_json:
        show.print_json([_leaf_record(seen) for seen in read])
        return
    out = show.console()
    out.print(_tree(str(path), read))
    for title, key in (("branch", _branch_of), ("domain", _domain_of)):
        out.print(_statistics(title, key, read))
    show.say(out, show.summary(path, [seen.file for seen in read]))


@app.command()
def chunks(
    path: show.TaxonomyPath,
    mirror: show.Mirror = None,
    documents: show.Documents = False,
    max_tokens: MaxTokens = None,
    as_json: show.AsJson = False,
) -> None:
    """Show how documents are cut, and which contexts of seeds the pieces hold.

    Exit code 3 when the documents of a knowledge leaf are not found.
    """
    from feldspar.errors import TaxonomyError
    from feldspar.taxonomy import inspect_taxonomy

    longest = _longest() if max_tokens is None else max_tokens
    out = show.console()
    num_leaves = num_chunks = num_missing = 0
    records: list[dict[str, object]] = []
    for leaf_file in inspect_taxonomy(path, mirror, show.fetcher(documents)):
        if leaf_file.branch not in (None, "knowledge"):
            continue
        cut = _cut(leaf_file, longest)
        num_leaves, num_chunks = num_leaves + 1, num_chunks + len(cut)
        num_missing += not cut
        records.append(_chunks_record(leaf_file, cut))
        if not as_json:
            show.print_findings(out, [f for f in leaf_file.findings if f.severity != "note"])
            _print_chunks(out, leaf_file, cut)
    if as_json:
        show.print_json(records)
    else:
        show.say(
            out,
            f"{show.counted(num_chunks, 'chunk')} of at most {longest} words in "
            f"{num_leaves} knowledge {'leaf' if num_leaves == 1 else 'leaves'}",
        )
    if num_missing or not num_leaves:
        raise typer.Exit(TaxonomyError.exit_code)


class _Seen(NamedTuple):
    """A leaf's file with what its documents are cut into."""

    file: LeafFile
    chunks: tuple[Chunk, ...]

    @property
    def seeds(self) -> tuple[Seed, ...]:
        return self.file.leaf.seeds if self.file.leaf is not None else ()


def _longest() -> int:
    from feldspar.config import TaxonomyConfig

    return TaxonomyConfig(path=".").chunk_tokens


def _cut(leaf_file: LeafFile, longest: int | None = None) -> tuple[Chunk, ...]:
    from feldspar.taxonomy import cut_documents
    from feldspar.tokens.count import count_words

    if not leaf_file.documents:
        return ()
    return cut_documents(leaf_file.documents, longest or _longest(), count_words)


def _print_chunks(out: Console, leaf_file: LeafFile, cut: tuple[Chunk, ...]) -> None:
    from rich.text import Text

    from feldspar.taxonomy import cover
    from feldspar.text import on_one_line, printable

    seeds = leaf_file.leaf.seeds if leaf_file.leaf is not None else ()
    coverage = cover([document.text for document in leaf_file.documents], cut, seeds)
    for number, chunk in enumerate(cut, start=1):
        title = f"{leaf_file.path}  {number}/{len(cut)}  {chunk.num_tokens} words  {chunk.id}"
        head = f"{on_one_line(title)}\n{on_one_line(chunk.document)}"
        out.print(Text(head, style="bold"), soft_wrap=True)
        lines = coverage.lines_by_chunk[chunk.id]
        if lines:
            show.say(out, f"holds the context of the seeds at {_lines(lines)}")
        out.print(f"{printable(chunk.text)}\n", soft_wrap=True)
    if coverage.num_words:
        share = coverage.num_covered / coverage.num_words
        told = f"{leaf_file.path}: chunks cover {share:.1%} of {coverage.num_words} words"
        if coverage.torn:
            told += f"; no one chunk holds the context of the seeds at {_lines(coverage.torn)}"
        show.say(out, told)


def _lines(lines: tuple[int, ...]) -> str:
    return f"line{'s' if len(lines) > 1 else ''} {', '.join(map(str, lines))}"


def _branch_of(seen: _Seen) -> str:
    return seen.file.branch or "none"


def _domain_of(seen: _Seen) -> str:
    """The domain that a leaf names, else the first folder below its branch."""
    leaf = seen.file.leaf
    if leaf is not None and leaf.domain:
        return leaf.domain.strip().lower()
    parts = seen.file.path.split("/")
    return parts[1].lower() if len(parts) > 1 else "none"


def _statistics(title: str, key: Callable[[_Seen], str], read: Sequence[_Seen]) -> Table:
    from rich.table import Table

    from feldspar.taxonomy import SEVERITIES
    from feldspar.text import on_one_line

    table = Table(title, "leaves", "seeds", "chunks", *(f"{s}s" for s in SEVERITIES), box=None)
    for name in sorted({key(seen) for seen in read}):
        of_name = [seen for seen in read if key(seen) == name]
        findings = [f.severity for seen in of_name for f in seen.file.findings]
        numbers = [
            len(of_name),
            sum(len(seen.seeds) for seen in of_name),
            sum(len(seen.chunks) for seen in of_name),
            *(findings.count(severity) for severity in SEVERITIES),
        ]
        table.add_row(on_one_line(name), *map(str, numbers))
    return table


def _tree(title: str, read: Sequence[_Seen]) -> Tree:
    from rich.text import Text
    from rich.tree import Tree

    from feldspar.text import on_one_line

    root = Tree(Text(on_one_line(title)))
    nodes: dict[tuple[str, ...], Tree] = {(): root}
    for seen in read:
        leaf_file = seen.file
        parts = tuple(leaf_file.path.split("/")) if leaf_file.path else (str(leaf_file.file),)
        for depth in range(1, len(parts) + 1):
            if parts[:depth] not in nodes:
                label = Text(on_one_line(parts[depth - 1]))
                nodes[parts[:depth]] = nodes[parts[: depth - 1]].add(label)
        said = nodes[parts].label
        assert isinstance(said, Text)
        said.append(f"  {_figures(seen)}", style="dim")
        for severity, style in show.SEVERITY_STYLE.items():
            number = sum(finding.severity == severity for finding in leaf_file.findings)
            if number:
                said.append(f"  {show.counted(number, severity)}", style=style)
    return root


def _figures(seen: _Seen) -> str:
    leaf = seen.file.leaf
    if leaf is None:
        return "not read"
    figures = [show.counted(len(leaf.seeds), "seed")]
    if any(seed.context for seed in leaf.seeds):
        figures.append("grounded")
    if seen.file.documents:
        figures.append(show.counted(len(seen.file.documents), "document"))
        figures.append(show.counted(len(seen.chunks), "chunk"))
    return ", ".join(figures)


def _leaf_record(seen: _Seen) -> dict[str, object]:
    leaf_file, leaf = seen.file, seen.file.leaf
    return {
        "path": leaf_file.path,
        "file": str(leaf_file.file),
        "branch": leaf_file.branch,
        "is_read": leaf is not None,
        "num_seeds": len(leaf.seeds) if leaf is not None else 0,
        "domain": leaf.domain if leaf is not None else "",
        "licence": leaf.licence if leaf is not None else "",
        "num_chunks": len(seen.chunks),
        "documents": [document.name for document in leaf_file.documents],
        "findings": [show.finding_record(finding) for finding in leaf_file.findings],
    }


def _chunks_record(leaf_file: LeafFile, cut: tuple[Chunk, ...]) -> dict[str, object]:
    from feldspar.taxonomy import cover

    seeds = leaf_file.leaf.seeds if leaf_file.leaf is not None else ()
    coverage = cover([document.text for document in leaf_file.documents], cut, seeds)
    return {
        "path": leaf_file.path,
        "num_words": coverage.num_words,
        "num_covered": coverage.num_covered,
        "lines_without_chunk": list(coverage.torn),
        "chunks": [
            {
                "id": chunk.id,
                "document": chunk.document,
                "num_words": chunk.num_tokens,
                "text": chunk.text,
                "seed_lines": list(coverage.lines_by_chunk[chunk.id]),
            }
            for chunk in cut
        ],
        "findings": [show.finding_record(finding) for finding in leaf_file.findings],
    }
