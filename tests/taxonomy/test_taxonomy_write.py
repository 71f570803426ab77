"""Leaves that are written for their authors: they pass `check`, and say what was put in."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from typer.testing import CliRunner

from feldspar.cli.taxonomy import app
from feldspar.errors import TaxonomyError
from feldspar.taxonomy import Fetcher, check_taxonomy, import_table, inspect_taxonomy, new_leaf
from feldspar.taxonomy.draft import DRAFT, draft_leaf, read_pairs
from feldspar.taxonomy.findings import Findings
from feldspar.taxonomy.nodes import compose
from feldspar.taxonomy.qna import read_qna
from feldspar.taxonomy.writing import Pair, leaf_text

BRANCHES = ["knowledge", "foundational_skills", "compositional_skills"]


@pytest.mark.parametrize("branch", BRANCHES)
def test_a_new_leaf_passes_check_without_a_word(tmp_path: Path, branch: str) -> None:
    folder = tmp_path / branch / "astronomy" / "phoenix"
    result = CliRunner().invoke(app, ["new", str(folder)])
    assert result.exit_code == 0
    assert "# " in (folder / "qna.yaml").read_text()
    assert list(check_taxonomy(tmp_path)) == []
    (leaf_file,) = inspect_taxonomy(tmp_path)
    assert leaf_file.leaf is not None
    assert len(leaf_file.leaf.seeds) == 5
    assert bool(leaf_file.documents) == (branch == "knowledge")


def test_nothing_is_written_over(tmp_path: Path) -> None:
    folder = tmp_path / "knowledge" / "phoenix"
    folder.mkdir(parents=True)
    (folder / "document.md").write_text("mine")
    with pytest.raises(TaxonomyError, match=r"document\.md: is there already"):
        new_leaf(folder)
    assert [path.read_text() for path in folder.iterdir()] == ["mine"]


@pytest.mark.parametrize("path", ["phoenix", "knowledge", "a/knowledge"])
def test_a_leaf_lies_below_a_branch(tmp_path: Path, path: str) -> None:
    with pytest.raises(TaxonomyError, match=r"a leaf lies below one of knowledge"):
        new_leaf(Path(path))


CSV = 'Question,Answer,Extra\n"What, now?","No: ""yes""\ntwo lines",x\n\nq2,007,y\n'
JSONL = "".join(
    json.dumps(row) + "\n"
    for row in (
        {"question": "What, now?", "answer": 'No: "yes"\ntwo lines', "id": 7},
        {"question": "q2", "answer": "007"},
    )
)
MARKDOWN = """\
# A page

| a | b |
|---|---|
| x | y |

| Question | Answer |
|:--|--:|
| What, now? | No: "yes"<br>two lines |
| q2 | 007 |
"""


@pytest.mark.parametrize(("name", "text"), [("t.csv", CSV), ("t.jsonl", JSONL), ("t.md", MARKDOWN)])
def test_a_table_becomes_a_leaf(tmp_path: Path, name: str, text: str) -> None:
    table = tmp_path / name
    table.write_text(text, encoding="utf-8")
    import_table(table, tmp_path / "tree" / "compositional_skills" / "a")
    (leaf_file,) = inspect_taxonomy(tmp_path / "tree")
    assert leaf_file.leaf is not None
    assert [(seed.question, seed.answer) for seed in leaf_file.leaf.seeds] == [
        ("What, now?", 'No: "yes"\ntwo lines'),
        ("q2", "007"),
    ]
    assert not leaf_file.errors


def test_knowledge_is_imported_with_its_contexts(tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("question,answer,context\nq1,a1,c1\nq2,a2,c1\nq3,a3,c2\n")
    folder = tmp_path / "tree" / "knowledge" / "a"
    import_table(table, folder)
    (folder / "documents").mkdir()
    (folder / "documents" / "a.md").write_text("c1 and c2\n")
    (leaf_file,) = inspect_taxonomy(tmp_path / "tree")
    assert leaf_file.leaf is not None
    assert [seed.context for seed in leaf_file.leaf.seeds] == ["c1", "c1", "c2"]
    assert not leaf_file.errors
    table.write_text("question,answer\nq1,a1\n")
    with pytest.raises(TaxonomyError, match="a question without context"):
        import_table(table, tmp_path / "knowledge" / "b")


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("t.csv", "question,answer\nq1,\n", ":2: no answer; the row has answer, question"),
        ("t.csv", "prompt,answer\nq1,a\n", ":2: no question"),
        ("t.csv", "", "no rows"),
        ("t.csv", "question,answer\nWhere?,Paris, in France\n", ":2: 3 cells for 2 columns; put"),
        ("t.md", "|question|answer|\n|---|---|\n|a|b|c|\n", ":3: 3 cells for 2 columns; write"),
        ("t.csv", 'question,answer\n"q1,a\n', "not CSV"),
        ("t.jsonl", '{"question": "q"}\n', ":1: no answer"),
        ("t.jsonl", "{}\n[", ":1: no question"),
        ("t.jsonl", "[]\n", ":1: no object"),
        ("t.jsonl", '\n{"question": 7, "answer": "a"}\n', ":2: no object of texts"),
        ("t.jsonl", "[" * 100_000, ":1: not JSON"),
        ("t.md", "no table\n", "no rows"),
        ("t.xlsx", "", "`.xlsx` is not read"),
        ("t.csv", "question,answer\n\udcff,a\n", "line 2 is not UTF-8"),
    ],
)
def test_a_bad_table_is_told_with_its_line(tmp_path: Path, name: str, text: str, told: str) -> None:
    (tmp_path / name).write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(TaxonomyError) as caught:
        import_table(tmp_path / name, tmp_path / "knowledge" / "a")
    assert told in str(caught.value)
    assert not (tmp_path / "knowledge").exists()


WRITTEN = st.text(st.characters(exclude_categories=["Cs", "Cc"]) | st.just("\n"), min_size=1)


@pytest.mark.slow
@settings(max_examples=200, deadline=None)
@given(
    pairs=st.lists(st.tuples(WRITTEN, WRITTEN, WRITTEN), min_size=1, max_size=4),
    is_knowledge=st.booleans(),
)
def test_any_text_is_read_as_it_was_written(
    pairs: list[tuple[str, str, str]], is_knowledge: bool
) -> None:
    wanted = [Pair(*(text.strip() or "x" for text in pair)) for pair in pairs]
    qna = read_qna(
        compose(leaf_text(wanted, is_knowledge=is_knowledge)).root, Findings(Path("qna.yaml"))
    )
    assert qna is not None
    read = {(seed.question, seed.answer, seed.context) for seed in qna.seeds}
    assert read == set(wanted)


PAGE = "".join(f"## Star {i}\n\n" + f"Star {i} is bright and far. " * 30 + "\n\n" for i in range(9))


async def ask_for_one(prompt: str) -> str:
    star = prompt.split("## ")[1].split("\n")[0]
    return f"Sure!\n\n1. **Question:** Is {star} far?\n**Answer:** Yes: it is far.\n"


def test_a_draft_keeps_the_document_word_for_word_and_is_not_taught(tmp_path: Path) -> None:
    folder = tmp_path / "knowledge" / "stars"
    folder.mkdir(parents=True)
    (folder / "stars.md").write_text(PAGE)
    fetcher = Fetcher(cache=tmp_path / "cache")
    path = asyncio.run(draft_leaf(folder, ask_for_one, mirror=None, fetcher=fetcher))
    assert path.name == DRAFT
    assert path.read_text().startswith("# A DRAFT")
    assert list(inspect_taxonomy(tmp_path)) == []
    with pytest.raises(TaxonomyError, match="is there already"):
        asyncio.run(draft_leaf(folder, ask_for_one, mirror=None, fetcher=fetcher))
    path.rename(folder / "qna.yaml")
    (leaf_file,) = inspect_taxonomy(tmp_path)
    assert leaf_file.leaf is not None
    assert [f.code for f in leaf_file.findings] == ["FT045"]
    assert len(leaf_file.leaf.seeds) == 5
    assert all(seed.context is not None and seed.context in PAGE for seed in leaf_file.leaf.seeds)
    assert leaf_file.leaf.seeds[0].answer == "Yes: it is far."


def test_a_draft_for_a_leaf_that_is_there_uses_its_documents(tmp_path: Path) -> None:
    folder = tmp_path / "knowledge" / "stars"
    new_leaf(folder)

    async def ask(prompt: str) -> str:
        assert "Labradorite" in prompt
        return "Question: a?\nAnswer: b\nQuestion 2: c?\nAnswer 2: d"

    path = asyncio.run(
        draft_leaf(folder, ask, mirror=None, fetcher=Fetcher(cache=tmp_path / "cache"))
    )
    assert path.read_text().count("question: ") == 2
    assert "document:" not in path.read_text()


def test_a_draft_without_documents_or_answers_says_so(tmp_path: Path) -> None:
    async def ask(prompt: str) -> str:
        return "I cannot."

    fetcher = Fetcher(cache=tmp_path / "cache")
    with pytest.raises(TaxonomyError, match="no Markdown, text or HTML file"):
        asyncio.run(draft_leaf(tmp_path, ask, mirror=None, fetcher=fetcher))
    (tmp_path / "a.md").write_text("A star.\n")
    with pytest.raises(TaxonomyError, match="proposed no question"):
        asyncio.run(draft_leaf(tmp_path, ask, mirror=None, fetcher=fetcher))
    assert not (tmp_path / DRAFT).exists()


def test_replies_are_read_in_many_forms() -> None:
    for reply in (
        "Question: a?\nAnswer: b",
        "**Question:** a?\n**Answer:** b",
        "Q\nQUESTION 1: a?\n\nANSWER: b\n",
    ):
        assert read_pairs(reply, "c") == [Pair("a?", "b", "c")]
    for reply in ("", "Question: a?", "Answer: b", "Question:\nAnswer:"):
        assert read_pairs(reply, "c") == []
