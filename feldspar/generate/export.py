"""A run's samples as rows for other trainers, with where each comes from, and a data card."""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Literal, NamedTuple

from feldspar.errors import RunError
from feldspar.records import Leaf, Sample, user_turn

ROWS_FILE = "train.jsonl"
CARD_FILE = "README.md"
UNKNOWN = "unknown"


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
) -> Exported:
    """Write the kept samples to the new folder `out`: `train.jsonl` and a card.

        {"messages": [{"role": "user", "content": "2 + 2?"},
                      {"role": "assistant", "content": "4"}],
         "unmask": false, "metadata": "{...judgments...}", "id": "...", "leaf": "...",
         "branch": "foundational", "licence": "Apache-2.0", "attribution": "...",
         "document": "", "seeds": ["..."], "teacher": "MODEL@REVISION"}

    Raises RunError where `out` exists.
    """
    if out.exists():
        raise RunError(f"{out} exists; name another --out, or remove it")
    by_path = {leaf.path: leaf for leaf in leaves}
    documents = {chunk.id: chunk.document for leaf in by_path.values() for chunk in leaf.chunks}
    beside = out.with_name(out.name + ".part")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir(parents=True)
    counts: Counter[tuple[str, str]] = Counter()
    teachers: set[str] = set()
    with (beside / ROWS_FILE).open("w", encoding="utf-8") as file:
        for sample in samples:
            if sample.is_kept:
                leaf = by_path[sample.leaf]
                document = documents.get(sample.chunk or "", "")
                row = _row(sample, leaf, document, knowledge_context)
                file.write(json.dumps(row, ensure_ascii=False) + "\n")
                counts[leaf.path, leaf.licence or UNKNOWN] += 1
                teachers.add(sample.teacher)
    card = data_card(name, counts, sorted(teachers))
    (beside / CARD_FILE).write_text(card, encoding="utf-8")
    os.replace(beside, out)
    return Exported(out, counts.total())


def data_card(name: str, counts: Counter[tuple[str, str]], teachers: list[str]) -> str:
    """What the rows are, who wrote them, and under which licences; `counts` by leaf and licence."""
    licences: Counter[str] = Counter()
    for (_, licence), number in counts.items():
        licences[licence] += number
    lines = [
        "---",
        f"pretty_name: {json.dumps(name)}",
        "configs: [{config_name: default, data_files: train.jsonl}]",
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
) -> dict[str, object]:
    is_shown = leaf.branch != "knowledge" or knowledge_context == "keep"
    asked = user_turn(sample.question, sample.context if is_shown else None)
    judgments = [dataclasses.asdict(judgment) for judgment in sample.judgments]
    metadata = {"judgments": judgments, "draw": sample.draw, "chunk": sample.chunk}
    return {
        "messages": [
            {"role": "user", "content": asked},
            {"role": "assistant", "content": sample.answer},
        ],
        "unmask": False,
        "metadata": json.dumps(metadata, ensure_ascii=False),
        "id": sample.id,
        "leaf": leaf.path,
        "branch": leaf.branch,
        "licence": leaf.licence or UNKNOWN,
        "attribution": leaf.attribution,
        "document": document,
        "seeds": list(sample.seeds),
        "teacher": sample.teacher,
    }
