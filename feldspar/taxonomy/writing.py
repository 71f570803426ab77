"""Leaves written as files: one to start from, and one from a table of questions and answers."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

import yaml

from feldspar.errors import TaxonomyError
from feldspar.files import write_texts_together
from feldspar.taxonomy.documents.find import ATTRIBUTION, QNA
from feldspar.taxonomy.places import BRANCH_FOLDERS
from feldspar.taxonomy.templates import ATTRIBUTION_TEXT, DOCUMENT_TEXT, KNOWLEDGE, SKILL
from feldspar.taxonomy.text_files import ReadFault, read_text

MAX_TABLE_BYTES = 20_000_000
_COLUMNS = ("question", "answer", "context")
_RULE = re.compile(r":?-+:?")
_CELL_END = re.compile(r"(?<!\\)\|")


class Pair(NamedTuple):
    """A question with its answer, and the context both stand on."""

    question: str
    answer: str
    context: str = ""


def new_leaf(folder: Path) -> list[Path]:
    """Write a leaf with comments that passes `check`; return the files. Raises TaxonomyError."""
    branch = _branch(folder)
    files = {QNA: KNOWLEDGE if branch == "knowledge" else SKILL}
    if branch == "knowledge":
        files |= {"document.md": DOCUMENT_TEXT, ATTRIBUTION: ATTRIBUTION_TEXT}
    return _write(folder, files)


def import_table(table: Path, folder: Path) -> list[Path]:
    """Write a leaf of the questions and answers in a table. Raises TaxonomyError.

    CSV and Markdown tables name their columns `question`, `answer` and, for some, `context`;
    lines of JSON their keys. A knowledge leaf names the folder `documents`, still to be filled.
    """
    branch = _branch(folder)
    pairs = _pairs(table)
    if branch == "knowledge" and not all(pair.context for pair in pairs):
        raise TaxonomyError(
            f"{table}: a question without context; add a column `context` with a passage of the "
            "document, or import the table as a skill"
        )
    return _write(folder, {QNA: leaf_text(pairs, is_knowledge=branch == "knowledge")})


def leaf_text(pairs: Sequence[Pair], *, is_knowledge: bool, path: str | None = "documents") -> str:
    """A qna.yaml with these seeds; the description is left for its author to write."""
    head: dict[str, object] = {"version": 3, "created_by": "your-name"}
    if not is_knowledge:
        seeds = [
            {key: text for key, text in zip(_COLUMNS, pair, strict=True) if text} for pair in pairs
        ]
        description = "# Say what is asked for: the teacher is shown it.\ntask_description: ''\n"
        return f"{_yaml(head)}{description}{_yaml({'seed_examples': seeds})}"
    contexts: dict[str, list[dict[str, str]]] = {}
    for pair in pairs:
        entry = {"question": pair.question, "answer": pair.answer}
        contexts.setdefault(pair.context, []).append(entry)
    examples = [
        {"context": context, "questions_and_answers": asked} for context, asked in contexts.items()
    ]
    tail: dict[str, object] = {"seed_examples": examples}
    if path is not None:
        tail["document"] = {"path": path}
    return f"{_yaml(head)}domain: ''\ndocument_outline: ''\n{_yaml(tail)}"


def _branch(folder: Path) -> str:
    names = [part for part in folder.parts if part in BRANCH_FOLDERS]
    if not names or PurePosixPath(folder.as_posix()).name in BRANCH_FOLDERS:
        below = ", ".join(BRANCH_FOLDERS)
        raise TaxonomyError(f"{folder}: no leaf's path; a leaf lies below one of {below}")
    return names[0]


def _write(folder: Path, files: Mapping[str, str]) -> list[Path]:
    written = [folder / name for name in files]
    for path in written:
        if path.exists():
            raise TaxonomyError(f"{path}: is there already; remove it or name another leaf")
    write_texts_together(dict(zip(written, files.values(), strict=True)))
    return written


def _pairs(table: Path) -> list[Pair]:
    readers = {".csv": _csv_rows, ".tsv": _csv_rows, ".jsonl": _json_rows, ".md": _markdown_rows}
    reader = readers.get(table.suffix.lower())
    if reader is None:
        raise TaxonomyError(f"{table}: `{table.suffix}` is not read; give {', '.join(readers)}")
    try:
        text = read_text(table, MAX_TABLE_BYTES)
    except ReadFault as fault:
        raise TaxonomyError(f"{table}: {fault}; save it as UTF-8 text") from fault
    pairs = [_pair(table, number, row) for number, row in reader(table, text)]
    if not pairs:
        raise TaxonomyError(f"{table}: no rows; name the columns {' and '.join(_COLUMNS[:2])}")
    return list(dict.fromkeys(pairs))


def _pair(table: Path, line: int, row: Mapping[str, str]) -> Pair:
    texts = {key: (row.get(key) or "").strip() for key in _COLUMNS}
    missing = [key for key in _COLUMNS[:2] if not texts[key]]
    if missing:
        named = ", ".join(sorted(row)) or "nothing"
        raise TaxonomyError(f"{table}:{line}: no {' and no '.join(missing)}; the row has {named}")
    return Pair(**texts)


def _csv_rows(table: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    delimiter = _delimiter(text)
    rows = csv.reader(io.StringIO(text, newline=""), strict=True, delimiter=delimiter)
    try:
        names = [name.strip().lower() for name in next(rows, [])]
        for row in rows:
            if any(row):
                cure = f"put a text that holds {delimiter!r} between quotes"
                yield rows.line_num, _named(names, row, f"{table}:{rows.line_num}", cure)
    except csv.Error as error:
        raise TaxonomyError(
            f"{table}:{rows.line_num}: not CSV: {error}; mend its quotes"
        ) from error


def _named(names: list[str], cells: list[str], place: str, cure: str) -> dict[str, str]:
    if any(cell.strip() for cell in cells[len(names) :]):
        raise TaxonomyError(f"{place}: {len(cells)} cells for {len(names)} columns; {cure}")
    return dict(zip(names, cells, strict=False))


def _delimiter(text: str) -> str:
    """A comma; a semicolon or a tab where only these part the header into the columns' names, as
    Excel writes in many countries."""
    header = text.partition("\n")[0]
    for delimiter in (",", ";", "\t"):
        names = {name.strip().strip('"').lower() for name in header.split(delimiter)}
        if set(_COLUMNS[:2]) <= names:
            return delimiter
    return ","


def _json_rows(table: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    for number, line in enumerate(text.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except (ValueError, RecursionError) as error:
            raise TaxonomyError(f"{table}:{number}: not JSON; write one object a line") from error
        if not isinstance(row, dict) or not all(isinstance(row.get(k, ""), str) for k in _COLUMNS):
            raise TaxonomyError(f"{table}:{number}: no object of texts; write one object a line")
        yield number, row


def _markdown_rows(table: Path, text: str) -> Iterator[tuple[int, dict[str, str]]]:
    """The rows of every table whose header names a question and an answer."""
    names: list[str] = []
    # U+2028 and its like may stand inside a row.
    lines = text.split("\n")
    for number, line in enumerate(lines, start=1):
        is_last = number == len(lines)
        if "|" not in line:
            names = []
        elif not is_last and _is_rule(lines[number]):
            names = [cell.lower() for cell in _cells(line)]
        elif set(_COLUMNS[:2]) <= set(names) and not _is_rule(line):
            cure = r"write `\|` for a line within a text"
            yield number, _named(names, _cells(line), f"{table}:{number}", cure)


def _is_rule(line: str) -> bool:
    """Whether a line is `|---|:--|`, which parts a table's header from its rows."""
    return "-" in line and all(_RULE.fullmatch(cell) for cell in _cells(line))


def _cells(line: str) -> list[str]:
    cells = _CELL_END.split(line.strip().removeprefix("|"))
    if cells and not cells[-1].strip():
        cells.pop()
    return [
        re.sub(r"<br\s*/?>", "\n", cell.strip(), flags=re.IGNORECASE).replace("\\|", "|")
        for cell in cells
    ]


class _Dumper(yaml.SafeDumper):
    """Long texts after `|`, as people write them."""


def _represent_text(dumper: _Dumper, text: str) -> yaml.ScalarNode:
    style = "|" if "\n" in text or len(text) > 80 else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


_Dumper.add_representer(str, _represent_text)


def _yaml(record: Mapping[str, object]) -> str:
    text = yaml.dump(record, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=10_000)
    assert isinstance(text, str)
    return text
