from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from fake_teacher import FakeTeacher
from test_samples import LEAVES, generate

from feldspar import table_files
from feldspar.errors import RunError
from feldspar.generate import export_samples
from feldspar.mix.files import read_file
from feldspar.records import Conversation


def test_rows_say_where_they_come_from_and_are_read_again(tmp_path: Path) -> None:
    leaves = [replace(leaf, licence="CC0-1.0") for leaf in LEAVES[:2]] + [LEAVES[2]]
    with FakeTeacher() as server:
        samples = generate(server, tmp_path, leaves=leaves)
    kept = [sample for sample in samples if sample.is_kept]
    out = tmp_path / "data"
    done = export_samples(samples, leaves, out, name="demo", knowledge_context="drop")
    assert done.num_rows == len(kept) < len(samples)
    rows = [json.loads(line) for line in (out / "train.jsonl").read_text().splitlines()]
    assert [row["id"] for row in rows] == [sample.id for sample in kept]
    assert {row["licence"] for row in rows} == {"CC0-1.0", "unknown"}
    assert {row["document"] for row in rows if row["branch"] == "knowledge"} == {"d"}
    assert all(json.loads(row["metadata"])["judgments"] for row in rows)
    read = list(read_file(out / "train.jsonl", "mine"))
    assert all(isinstance(row, Conversation) for row in read)
    assert [row.messages[1].content for row in read] == [sample.answer for sample in kept]
    card = (out / "README.md").read_text()
    assert f"{len(kept)} question-answer pairs" in card
    assert "| CC0-1.0 |" in card
    assert "\nlicense: [cc0-1.0, unknown]\n" in card
    assert "`expert`" in card
    with pytest.raises(RunError, match="exists"):
        export_samples(samples, leaves, out, name="demo", knowledge_context="drop")


def test_parquet_holds_the_same_rows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="the extra `parquet` is not installed")
    monkeypatch.setattr(table_files, "ROWS_PER_GROUP", 7)
    with FakeTeacher() as server:
        samples = generate(server, tmp_path)
    for form in ("jsonl", "parquet"):
        out = tmp_path / form
        export_samples(samples, LEAVES, out, name="d", knowledge_context="drop", form=form)
    rows = [
        json.loads(line) for line in (tmp_path / "jsonl" / "train.jsonl").read_text().splitlines()
    ]
    file = parquet.ParquetFile(tmp_path / "parquet" / "train.parquet")
    assert file.read().to_pylist() == rows
    assert {"licence", "attribution", "document", "seeds", "teacher"} <= set(
        file.schema_arrow.names
    )
    assert file.num_row_groups == -(-len(rows) // 7)
    assert "data_files: train.parquet" in (tmp_path / "parquet" / "README.md").read_text()


def test_parquet_without_pyarrow_names_the_cure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(RunError, match=r"pip install 'feldspar\[parquet\]'"):
        export_samples([], [], tmp_path / "x", name="d", knowledge_context="drop", form="parquet")
    assert not (tmp_path / "x").exists()
