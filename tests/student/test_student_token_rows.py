"""Rows of tokens: kept on disk, found again, and the same as in memory."""

from pathlib import Path

import numpy as np
import pytest
from test_student_render import make_own
from tiny import CHAT, chats, make_tiny

from feldspar.records import Conversation, Message
from feldspar.student.model import Student
from feldspar.student.token_rows import Kept, TokenRows, tokenise, tokenise_once


@pytest.fixture(scope="module")
def student() -> Student:
    return make_tiny()


def refused():
    """Rows that must not be read."""
    raise AssertionError("tokenised again")
    yield


def kept(folder: Path, rows, name: str = "a", digest: str = "1") -> Kept:
    return Kept(name, rows, digest, folder / "tokens")


def assert_equal(one: TokenRows, other: TokenRows) -> None:
    assert (one.key, one.num_rows, one.num_dropped) == (
        other.key,
        other.num_rows,
        other.num_dropped,
    )
    for i in range(len(one)):
        assert one.row(i).ids.tolist() == other.row(i).ids.tolist()
        assert one.row(i).mask.tolist() == other.row(i).mask.tolist()
    assert one.lengths.tolist() == other.lengths.tolist()
    assert one.trained.tolist() == other.trained.tolist()


def test_rows_on_disk_are_those_in_memory(student, tmp_path):
    here = tokenise(student.template, [("a", chats(9)), ("b", chats(5, seed=2))], 20)
    sources = [kept(tmp_path, chats(9)), kept(tmp_path, chats(5, seed=2), "b", "2")]
    there = tokenise_once(student.template, sources, 20)
    assert sum(there.num_dropped) > 0
    assert_equal(here, there)
    assert there.source_of.tolist() == [0] * there.num_rows[0] + [1] * there.num_rows[1]
    assert isinstance(there.sources[0][1].ids, np.memmap)


def test_tokens_are_made_once_for_the_same_rows_and_template(student, tmp_path):
    first = tokenise_once(student.template, [kept(tmp_path, chats(9))], 20)
    assert_equal(first, tokenise_once(student.template, [kept(tmp_path, refused())], 20))


@pytest.mark.parametrize("changed", ["rows", "limit", "template"])
def test_other_rows_limits_and_templates_are_tokenised_anew(student, tmp_path, changed):
    tokenise_once(student.template, [kept(tmp_path, chats(9))], 20)
    other = make_tiny(system_prompt="Be kind.") if changed == "template" else student
    source = kept(tmp_path, refused(), digest="2" if changed == "rows" else "1")
    with pytest.raises(AssertionError, match="tokenised again"):
        tokenise_once(other.template, [source], 61 if changed == "limit" else 20)


def test_what_a_killed_process_left_is_not_taken_for_tokens(student, tmp_path):
    def dying():
        yield from chats(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tokenise_once(student.template, [kept(tmp_path, dying())], 20)
    rows = tokenise_once(student.template, [kept(tmp_path, chats(9))], 20)
    assert_equal(rows, tokenise(student.template, [("a", chats(9))], 20))


def test_long_text_is_cut_into_rows_and_long_chats_are_left_out(student):
    text = "red and blue and green " * 20
    whole = Conversation(
        id="t", source="a", messages=(Message(role="assistant", content=text),),
        train_on="everything",
    )  # fmt: skip
    rows = tokenise(student.template, [("a", [whole, *chats(3)])], 30)
    ids = student.template.render(whole).ids
    num_pieces = -(-len(ids) // 30)
    pieces = [rows.row(i).ids for i in range(num_pieces)]
    assert np.concatenate(pieces).tolist() == ids.tolist()
    assert max(map(len, pieces)) == 30
    assert rows.num_dropped == (num_pieces + 3 - len(rows),)


def test_no_rows_are_no_tokens(student, tmp_path):
    rows = tokenise_once(student.template, [kept(tmp_path, [])], 20)
    assert len(rows) == 0
    assert rows.num_rows == (0,)


def test_a_row_that_a_template_cannot_write_is_left_out_and_counted(caplog):
    student = make_own("chatml")
    first = Message(role="assistant", content="hello!")
    bad = Conversation(id="mine:3", source="a", messages=(first, *CHAT), train_on="turns")
    rows = tokenise(student.template, [("a", [*chats(2), bad, *chats(2, seed=2)])], 100)
    assert (rows.num_rows, rows.num_dropped) == ((4,), (1,))
    assert "1 rows are left out that the chat template cannot write; the first: mine:3: the" in (
        caplog.text
    )
