"""A user's rows, whatever file they come in."""

import json
from pathlib import Path

import pytest
import zstandard

from feldspar.errors import RecipeError
from feldspar.mix.files import TEXT_CHARACTERS, BadRow, count_rows, read_file
from feldspar.records import Conversation, Message

ROWS = [
    {
        "messages": [
            {"role": "user", "content": "2 + 2?"},
            {"role": "assistant", "content": "4"},
        ],
        "unmask": False,
    },
    {"messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "ho"}]}
    | {"unmask": True},
    {"text": "Granite holds feldspar."},
]


def jsonl(path: Path) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


def packed(path: Path) -> Path:
    there = path.with_name(path.name + ".zst")
    there.write_bytes(zstandard.compress(path.read_bytes()))
    return there


def parquet(path: Path, rows: list[dict[str, object]]) -> Path:
    pa = pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    from pyarrow import parquet as pq

    pq.write_table(pa.Table.from_pylist(rows), path)
    return path


def says(row: Conversation | BadRow) -> tuple[str, str]:
    assert isinstance(row, Conversation), row
    return row.train_on, row.messages[-1].content


WANTED = [("answers", "4"), ("turns", "ho"), ("everything", "Granite holds feldspar.")]


@pytest.mark.parametrize("kind", ["jsonl", "jsonl.zst", "parquet"])
def test_the_same_rows_come_out_of_every_kind_of_file(tmp_path, kind):
    path = jsonl(tmp_path / "rows.jsonl")
    if kind == "jsonl.zst":
        path = packed(path)
    elif kind == "parquet":
        every = [{"messages": None, "unmask": None, "text": None} | row for row in ROWS]
        path = parquet(tmp_path / "rows.parquet", every)
    rows = list(read_file(path, "mine"))
    assert [says(row) for row in rows] == WANTED
    assert {row.source for row in rows} == {"mine"}
    assert count_rows(path) == 3


def test_a_text_file_is_cut_between_paragraphs_and_trained_on_whole(tmp_path):
    paragraphs = [f"{n} " + "word " * 300 for n in range(20)]
    long = "x" * (TEXT_CHARACTERS + 5)
    path = tmp_path / "book.txt"
    path.write_text("\ufeff" + "\n\n\n".join([*paragraphs, long]) + "\n", encoding="utf-8")
    rows = list(read_file(path, "book"))
    texts = [text for kind, text in map(says, rows) if kind == "everything"]
    assert len(texts) == len(rows) == count_rows(path)
    assert "\n\n".join(texts) == "\n\n".join([*(p.strip() for p in paragraphs), long])
    assert texts[-1] == long
    assert all(TEXT_CHARACTERS / 2 < len(text) <= TEXT_CHARACTERS for text in texts[:-2])
    assert rows[0].messages == (Message(role="assistant", content=texts[0]),)
    assert count_rows(packed(path)) == len(rows)


def test_a_parquet_file_without_rows_to_read_says_so(tmp_path):
    with pytest.raises(RecipeError, match="no column `messages` or `text`"):
        list(read_file(parquet(tmp_path / "a.parquet", [{"body": "x"}]), "a"))
    (tmp_path / "b.parquet").write_bytes(b"PAR1 it is not")
    pytest.importorskip("pyarrow", reason="the parquet extra is not installed")
    with pytest.raises(RecipeError, match="not a Parquet file"):
        list(read_file(tmp_path / "b.parquet", "b"))


def test_an_unknown_kind_of_file_and_bytes_that_are_no_text_are_errors(tmp_path):
    (tmp_path / "a.xlsx").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"rows are read from .*\.parquet files"):
        list(read_file(tmp_path / "a.xlsx", "a"))
    (tmp_path / "b.txt").write_bytes(b"caf\xe9")
    with pytest.raises(RecipeError, match="not UTF-8"):
        list(read_file(tmp_path / "b.txt", "b"))
    with pytest.raises(RecipeError, match="No such file"):
        count_rows(tmp_path / "gone.jsonl")
