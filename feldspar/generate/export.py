"""A run's samples as rows for other trainers, with where each comes from, and a data card."""

from __future__ import annotations

import dataclasses
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from feldspar.errors import RunError
from feldspar.files import whole_folder
from feldspar.records import SHOWN_KINDS, Leaf, Sample, user_turn
from feldspar.table_files import Column, Format, Row, write_table
from feldspar.text.licence_names import UNKNOWN, hub_names

CARD_FILE = "README.md"
COLUMNS: dict[str, Column] = {
    "messages": "messages",
    "unmask": "flag",
    "metadata": "text",
    "id": "text",
    "leaf": "text",
    "branch": "text",
    "kind": "text",
    "licence": "text",
    "attribution": "text",
    "document": "text",
    "seeds": "texts",
    "teacher": "text",
}


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
        with write_table(beside / file_name, COLUMNS, form) as write:
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
        "| `kind` | `pair`; `document` (with `unmask`); `retrieval` (among other passages); "
        "`reversed`, `across` (two passages), `unanswerable` (the passage does not tell) |",
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
    is_fact = leaf.branch == "knowledge" and sample.kind not in SHOWN_KINDS
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
