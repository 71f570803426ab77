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
    with pytest.raises(RecipeError, match="not a whole Parquet file"):
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


CHAT = {"messages": [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]}


def rows_of(path: Path) -> list[Conversation | BadRow]:
    return list(read_file(path, "mine"))


@pytest.mark.parametrize("indent", [None, 1])
@pytest.mark.parametrize("name", ["rows.json", "rows.JSONL", "rows.json.ZST"])
def test_one_json_list_is_read_as_its_rows(tmp_path, name, indent):
    path = tmp_path / name
    data = b"\xef\xbb\xbf\n" + json.dumps([*ROWS, 7], indent=indent).encode()
    path.write_bytes(zstandard.compress(data) if name.endswith("ZST") else data)
    *rows, bad = rows_of(path)
    assert [says(row) for row in rows] == WANTED
    assert (bad.line, bad.reason) == (4, "no `messages` list and no `text`")
    assert count_rows(path) == 4


def test_null_is_as_if_the_key_were_not_there(tmp_path):
    path = tmp_path / "rows.jsonl"
    rows = [CHAT | {"unmask": None, "text": None, "id": None}, {"text": "x", "messages": None}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert [says(row) for row in rows_of(path)] == [("answers", "a"), ("everything", "x")]


def weighted(*turns: tuple[str, str, object], key: str = "weight") -> dict[str, object]:
    messages = [{"role": role, "content": text, key: weight} for role, text, weight in turns]
    return {"messages": messages}


@pytest.mark.parametrize(("key", "no", "yes"), [("weight", 0, 1), ("train", False, True)])
def test_an_answer_with_the_weight_0_is_not_trained_on(tmp_path, key, no, yes):
    path = tmp_path / "rows.jsonl"
    rows = [
        weighted(("user", "q", no), ("assistant", "a", yes), ("user", "r", 1),
                 ("assistant", "bad", no), key=key),
        weighted(("user", "q", None), ("assistant", "bad", no), key=key),
        weighted(("user", "q", 1), ("assistant", "bad", no), ("user", "r", 1),
                 ("assistant", "a", yes), key=key),
        weighted(("user", "q", no), ("assistant", "a", None), key=key),
        weighted(("user", "q", 1), ("assistant", "a", 0.5), key=key),
    ]  # fmt: skip
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    cut, nothing, between, plain, half = rows_of(path)
    assert cut.messages == (
        Message(role="user", content="q"),
        Message(role="assistant", content="a"),
    )
    assert "every answer has the weight 0" in nothing.reason
    assert "stands before one that is trained on" in between.reason
    assert says(plain) == ("answers", "a")
    assert "only 0 and 1" in half.reason


def test_a_row_in_which_the_assistant_speaks_first_is_of_no_use(tmp_path):
    path = tmp_path / "rows.jsonl"
    first = {"messages": [{"role": "assistant", "content": "Hi."}, *CHAT["messages"]]}
    system = {"messages": [{"role": "system", "content": "Be kind."}, *CHAT["messages"]]}
    path.write_text("".join(json.dumps(row) + "\n" for row in (first, system)))
    bad, good = rows_of(path)
    assert (bad.line, bad.reason.split(";")[0]) == (1, "the assistant speaks first")
    assert says(good) == ("answers", "a")


def test_a_packed_file_that_was_cut_is_never_read_as_a_shorter_one(tmp_path):
    lines = [json.dumps(CHAT | {"id": str(i)}).encode() + b"\n" for i in range(2000)]
    frames = zstandard.compress(b"".join(lines[:900])) + zstandard.compress(b"".join(lines[900:]))
    path = tmp_path / "rows.jsonl.zst"
    path.write_bytes(frames)
    assert len(rows_of(path)) == count_rows(path) == 2000
    between = len(zstandard.compress(b"".join(lines[:900])))
    for size in (1, 3, between - 1, between + 1, len(frames) // 2 + 9, len(frames) - 1):
        path.write_bytes(frames[:size])
        for read in (rows_of, count_rows):
            with pytest.raises(RecipeError, match=r"rows\.jsonl\.zst: .*not whole zstd data"):
                read(path)


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b'{"text": "\xff"}', "not UTF-8"),
        (b'{"text": ' + b"[" * 100_000, "nested too deep"),
        (b'{"text": ' + b"9" * 10_000 + b"}", "not JSON: a number that is too long"),
        (b'{"text": "a"', "not JSON: Expecting ',' delimiter"),
        (b"[" * 100_000, "a JSON list that is nested too deep"),
    ],
)
def test_a_row_that_is_no_json_says_why(tmp_path, line, reason):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(line)
    (bad,) = rows_of(path)
    assert (bad.line, bad.reason) == (1, reason)


def test_a_text_in_another_encoding_is_told_when_it_is_counted_too(tmp_path):
    path = tmp_path / "rows.TXT"
    path.write_bytes(b"caf\xe9\n")
    for read in (rows_of, count_rows):
        with pytest.raises(RecipeError, match="not UTF-8 text"):
            read(path)
