"""Chunks: short enough, nothing lost, cut where a reader would cut."""

from __future__ import annotations

import itertools
import re
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from feldspar.records import Seed
from feldspar.taxonomy import cover, cut_chunks
from feldspar.tokens.count import TokenCounter, count_words

BLOCKS = [
    *(
        "# Title\n",
        "Some words. More of them!\n",
        "\n",
        "| a | b |\n",
        "|---|---|\n",
        "```\n",
        "- item\n",
    ),
    *("Head\n====\n", "    code()\n", "\u4e2d\u6587\u3002", "word " * 30, "x" * 90, " \t ", "\r\n"),
]


@settings(max_examples=200, deadline=None)
@example(text="|---|---|\n|---|---|\nSome words. More of them!\n", max_tokens=4)
@example(text="    code()\n|---|---|\nSome words. More of them!\n", max_tokens=4)
@given(
    text=st.lists(st.sampled_from(BLOCKS) | st.text(max_size=20), max_size=12).map("".join),
    max_tokens=st.integers(1, 40),
)
def test_nothing_is_lost_and_nothing_too_long(text: str, max_tokens: int) -> None:
    chunks = cut_chunks(text, "document", max_tokens, count_words)
    assert all(0 < chunk.num_tokens == count_words(chunk.text) <= max_tokens for chunk in chunks)
    whole = re.sub(r"\s", "", text)
    lines = text.replace("\r\n", "\n").splitlines()
    pairs = itertools.pairwise(lines)
    headers = {re.sub(r"\s", "", "".join(two)) for two in pairs if "|" in two[0]}
    pieces = {re.sub(r"\s", "", chunk.text) for chunk in chunks}
    pieces |= {piece.removeprefix(header) for piece in pieces for header in headers}
    reached = [True] + [False] * len(whole)
    for start in range(len(whole)):
        for piece in pieces if reached[start] else ():
            if whole.startswith(piece, start):
                reached[start + len(piece)] = True
    assert reached[-1], "the document is not made of its chunks"


def test_a_section_is_not_torn_where_it_fits() -> None:
    sections = [f"## Section {i}\n\n" + f"word{i} " * 30 + "\n\n" for i in range(4)]
    chunks = cut_chunks("".join(sections), "d", 70, count_words)
    assert [chunk.text.count("##") for chunk in chunks] == [2, 2]
    assert all(chunk.text.startswith("##") for chunk in chunks)


def test_code_and_tables_are_kept_whole_where_they_fit() -> None:
    code = "```python\n" + "\n\n".join(f"call_{i}(1, 2)" for i in range(10)) + "\n```"
    table = "| a | b |\n|---|---|\n" + "".join(f"| {i} | x |\n" for i in range(5))
    chunks = cut_chunks(
        f"{'word ' * 30}\n\n{code}\n\n{'other ' * 30}\n\n{table}", "d", 45, count_words
    )
    texts = [chunk.text for chunk in chunks]
    assert any(code in text for text in texts)
    assert any(table.strip() in text for text in texts)


def test_a_long_table_is_cut_between_rows() -> None:
    table = "".join(f"| row {i} | cell. Two |\n" for i in range(50))
    for chunk in cut_chunks(table, "d", 30, count_words):
        assert all(
            re.fullmatch(r"\| row \d+ \| cell\. Two \|", row) for row in chunk.text.split("\n")
        )


HEADER = "| name | what it is |\n|---|:--:|\n"


def test_each_part_of_a_long_table_begins_with_its_header() -> None:
    rows = [f"| row {i} | cell. Two |" for i in range(50)]
    text = "# Title\n\nWords before.\n\n" + HEADER + "\n".join(rows) + "\n\nWords after.\n"
    chunks = cut_chunks(text, "d", 60, count_words)
    assert len(chunks) > 4
    assert all(chunk.text.count(HEADER) == 1 for chunk in chunks)
    assert all(chunk.text.startswith(HEADER) for chunk in chunks[1:])
    assert all(chunk.num_tokens <= 60 for chunk in chunks)
    held = [line for chunk in chunks for line in chunk.text.split("\n") if line in rows]
    assert held == rows


def test_a_header_that_would_fill_the_chunks_is_not_repeated() -> None:
    text = f"| {'name ' * 30}|\n|---|\n" + "".join(f"| row {i} |\n" for i in range(50))
    chunks = cut_chunks(text, "d", 40, count_words)
    assert sum("name" in chunk.text for chunk in chunks) == 1
    assert all(chunk.num_tokens <= 40 for chunk in chunks)


def test_coverage_says_what_is_held_and_what_is_torn() -> None:
    text = "One two. " * 3 + "\n\nThree four.\n\n" + "Five six. " * 9
    seeds = [
        Seed(id=str(line), question="q", answer="a", context=context, line=line)
        for line, context in ((3, "three\nfour"), (5, "four five"), (7, None))
    ]
    chunks = cut_chunks(text, "d", 9, count_words)
    coverage = cover([text], chunks, seeds)
    assert coverage.torn == (5,)
    (holding,) = (chunk for chunk in chunks if coverage.lines_by_chunk[chunk.id])
    assert "Three four" in holding.text
    assert coverage.num_words == len(text.split()) > coverage.num_covered


def test_a_long_paragraph_is_cut_at_sentences() -> None:
    text = " ".join(f"Sentence number {i} ends here." for i in range(40))
    chunks = cut_chunks(text, "d", 23, count_words)
    assert all(chunk.text.endswith("here.") for chunk in chunks)


def test_ids_are_hashes_of_content() -> None:
    first = cut_chunks("One passage.", "a", 10, count_words)
    second = cut_chunks("\n\nOne passage.  \n", "b", 99, count_words)
    assert first[0].id == second[0].id


def test_tokens_of_a_named_tokenizer_are_counted(tmp_path: Path) -> None:
    tokenizers = pytest.importorskip("tokenizers")
    tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE())
    trainer = tokenizers.trainers.BpeTrainer(vocab_size=60, show_progress=False)
    tokenizer.train_from_iterator(["a few words about the phoenix. " * 9], trainer)
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    count = TokenCounter(str(tmp_path))
    chunks = cut_chunks(
        "".join(f"{i} words about the phoenix. " for i in range(40)), "d", 20, count
    )
    assert len(chunks) > 1
    assert all(count(chunk.text) <= 20 for chunk in chunks)
