"""A run's samples as rows for other trainers, with where each comes from, and a data card."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Literal, NamedTuple

from feldspar.errors import RunError
from feldspar.files import whole_folder
from feldspar.records import Leaf, Sample, user_turn
from feldspar.text.licence_names import UNKNOWN, hub_names

Format = Literal["jsonl", "parquet"]
Row = dict[str, object]
CARD_FILE = "README.md"
ROWS_PER_GROUP = 5000
"""Of a Parquet file: what is held in memory at a time."""


class Exported(NamedTuple):
    path: Path
    num_rows: int


def export_samples(
    samples: Iterable[Sample],
    leaves: Iterable[Leaf],
    out: Path,
    *,
    name: str,
    knowledge_context: Literal["keep", "drop"],
    form: Format = "jsonl",
) -> Exported:
    """Write the kept samples to the new folder `out`: `train.jsonl` or `train.parquet`, and a card.

        {"messages": [{"role": "user", "content": "2 + 2?"},
                      {"role": "assistant", "content": "4"}],
         "unmask": false, "metadata": "{...judgments...}", "id": "...", "leaf": "...",
         "branch": "foundational", "kind": "pair", "licence": "Apache-2.0", "attribution": "...",
         "document": "", "seeds": ["..."], "teacher": "MODEL@REVISION"}

    Rows are written as they come, whatever their number. Raises RunError where `out` exists, and
    for Parquet without pyarrow.
    """
    if out.exists():
        raise RunError(f"{out} exists; name another --out, or remove it")
    by_path = {leaf.path: leaf for leaf in leaves}
    documents = {chunk.id: chunk.document for leaf in by_path.values() for chunk in leaf.chunks}
    counts: Counter[tuple[str, str]] = Counter()
    teachers: set[str] = set()
    file_name = f"train.{form}"
    with whole_folder(out) as beside:
        with _WRITERS[form](beside / file_name) as write:
            for sample in samples:
                if sample.is_kept:
                    leaf = by_path[sample.leaf]
                    document = documents.get(sample.chunk or "", "")
                    write(_row(sample, leaf, document, knowledge_context))
                    counts[leaf.path, leaf.licence or UNKNOWN] += 1
                    teachers |= {sample.teacher} - {""}
        card = data_card(name, counts, sorted(teachers), file_name)
        (beside / CARD_FILE).write_text(card, encoding="utf-8")
    return Exported(out, counts.total())


def data_card(
    name: str, counts: Counter[tuple[str, str]], teachers: list[str], file_name: str
) -> str:
    """What the rows are, who wrote them, and under which licences; `counts` by leaf and licence."""
    licences: Counter[str] = Counter()
    for (_, licence), number in counts.items():
        licences[licence] += number
    lines = [
        "---",
        f"pretty_name: {json.dumps(name)}",
        f"license: [{', '.join(hub_names(licences))}]",
        f"configs: [{{config_name: default, data_files: {file_name}}}]",
        "tags: [synthetic, LAB, feldspar]",
        "---",
        "",
        f"# {name}",
        "",
        f"{counts.total():,} question-answer pairs for instruction tuning, made by Feldspar with "
        "[LAB](https://arxiv.org/abs/2403.01081): written from a taxonomy of seed examples by a "
        f"teacher model, judged, de-duplicated and cleaned of exam questions. Teacher: "
        f"{', '.join(f'`{teacher}`' for teacher in teachers) or UNKNOWN}.",
        "",
        "The texts are synthetic and may be wrong. What a teacher's terms allow its texts to be "
        "used for is not told here.",
        "",
        "| column | meaning |",
        "|---|---|",
        "| `messages`, `unmask`, `metadata` | InstructLab's layout; `metadata`: the judgments |",
        "| `id`, `leaf`, `branch`, `seeds` | the sample, and the examples that it was asked with |",
        "| `kind` | `pair`, `document` (with `unmask`), `retrieval` (among other passages) |",
        "| `document` | the text that a knowledge row is grounded in |",
        "| `licence`, `attribution` | of the leaf, and so of its seeds and documents |",
        "| `teacher` | model and revision |",
        "",
        "| licence | rows |",
        "|---|---:|",
        *(f"| {licence} | {number:,} |" for licence, number in licences.most_common()),
        "",
        "| leaf | licence | rows |",
        "|---|---|---:|",
        *(f"| `{leaf}` | {licence} | {number:,} |" for (leaf, licence), number in counts.items()),
        "",
    ]
    return "\n".join(lines)


def _row(
    sample: Sample, leaf: Leaf, document: str, knowledge_context: Literal["keep", "drop"]
) -> Row:
    is_fact = leaf.branch == "knowledge" and sample.kind != "retrieval"
    is_shown = not is_fact or knowledge_context == "keep"
    asked = user_turn(sample.question, sample.context if is_shown else None)
    messages = [{"role": "user", "content": asked}, {"role": "assistant", "content": sample.answer}]
    judgments = [dataclasses.asdict(judgment) for judgment in sample.judgments]
    metadata = {"judgments": judgments, "draw": sample.draw, "chunk": sample.chunk}
    return {
        # InstructLab's mark of a text that is trained on as a whole.
        "messages": messages[1:] if sample.kind == "document" else messages,
        "unmask": sample.kind == "document",
        "metadata": json.dumps(metadata, ensure_ascii=False),
        "id": sample.id,
        "leaf": leaf.path,
        "branch": leaf.branch,
        "kind": sample.kind,
        "licence": leaf.licence or UNKNOWN,
        "attribution": leaf.attribution,
        "document": document,
        "seeds": list(sample.seeds),
        "teacher": sample.teacher,
    }


@contextmanager
def _write_jsonl(path: Path) -> Iterator[Callable[[Row], None]]:
    with path.open("w", encoding="utf-8") as file:

        def write(row: Row) -> None:
            file.write(json.dumps(row, ensure_ascii=False) + "\n")

        yield write


@contextmanager
def _write_parquet(path: Path) -> Iterator[Callable[[Row], None]]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ModuleNotFoundError:
        raise RunError("Parquet needs pyarrow: pip install 'feldspar[parquet]'") from None
    text = pyarrow.string()
    message = pyarrow.struct([("role", text), ("content", text)])
    kinds = {"messages": pyarrow.list_(message), "unmask": pyarrow.bool_()}
    kinds |= dict.fromkeys(("metadata", "id", "leaf", "branch", "kind", "licence"), text)
    kinds |= {"attribution": text, "document": text, "seeds": pyarrow.list_(text), "teacher": text}
    schema = pyarrow.schema(list(kinds.items()))
    group: list[Row] = []
    with pyarrow.parquet.ParquetWriter(path, schema) as writer:

        def flush() -> None:
            writer.write_table(pyarrow.Table.from_pylist(group, schema))
            group.clear()

        def write(row: Row) -> None:
            group.append(row)
            if len(group) == ROWS_PER_GROUP:
                flush()

        yield write
        flush()


_WRITERS: dict[Format, Callable[[Path], AbstractContextManager[Callable[[Row], None]]]] = {
    "jsonl": _write_jsonl,
    "parquet": _write_parquet,
}
