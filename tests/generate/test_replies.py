"""Every form that teachers write their blocks in is read; a text that is in doubt is not kept."""

from __future__ import annotations

import json
import re
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.generate.replies import Field, read_blocks, read_whole
from feldspar.generate.stages import Blocks
from feldspar.generate.writers import _read_blocks
from feldspar.teacher import Reply

PAIR: tuple[Field, ...] = ("question", "answer")
TWO = [("q1", "a1"), ("q2", "a2")]
ROWS = [{"question": q, "answer": a} for q, a in TWO]


@pytest.mark.parametrize(
    "reply",
    [
        "[Question]\nq1\n[Answer]\na1\n[End]\n[Question]\nq2\n[Answer]\na2\n[End]",
        "Sure!\n**[Question]** q1\n**[Answer]** a1\n\n**[Question]** q2\n**[Answer]** a2",
        "1. [question]: q1\n[answer]: a1\n[end]\n2. [question]: q2\n[answer]: a2\n[end]\nDone.",
        "[Question 1]\nq1\n[Answer 1]\na1\n[Question 2]\nq2\n[Answer 2]\na2",
        "[Question #1] q1\n[Answer #1] a1\n[End]\n[Question #2] q2\n[Answer #2] a2\n[End]",
        "[Question]q1[/Question]\n[Answer]a1[/Answer]\n[Question]\nq2\n[/Question]\n[Answer]\na2\n"
        "[/Answer]\n[/End]",
        "### Question\nq1\n### Answer\na1\n\n### Question\nq2\n### Answer\na2",
        "## **Question 1:**\nq1\n## Answer 1\na1\n---\n## Question 2: q2\n## Answer 2: a2\n[End]\n"
        "Bye",
        "Question: q1\nAnswer: a1\n\nQuestion: q2\nAnswer: a2",
        "Here you are.\n\n**Question:** q1\n**Answer:** a1\n\n**Question:** q2\n**Answer:** a2",
        "1. **Question 1**: q1\n   **Answer 1**: a1\n\n2. **Question 2**: q2\n   **Answer 2**: a2",
        "**Pair 1:**\nQuestion: q1\nAnswer: a1\n\n**Pair 2:**\nQuestion: q2\nAnswer: a2",
        "1.\nQuestion: q1\nAnswer: a1\n\n2.\nQuestion: q2\nAnswer: a2",
        json.dumps(ROWS),
        f"Of course:\n```json\n{json.dumps({'pairs': ROWS}, indent=2)}\n```\nAnything else?",
        "\n".join(json.dumps({key.capitalize(): text for key, text in r.items()}) for r in ROWS),
    ],
)
def test_blocks_are_read_in_any_form(reply: str) -> None:
    assert read_blocks(reply, PAIR, 9) == TWO
    assert read_blocks(reply.replace("\n", "\r\n"), PAIR, 9) == TWO
    assert read_blocks(reply, PAIR, 1) == TWO[:1]


def test_questions_alone_are_read_in_any_form_too() -> None:
    for reply in (
        "[Question 1]\nq1\n[Question 2]\nq2",
        "### Question\nq1\n### Question\nq2",
        "Question: q1\nQuestion: q2",
        '["q1", "q2"]',
        '{"questions": ["q1", "q2"]}',
    ):
        assert read_blocks(reply, ("question",), 9) == [("q1",), ("q2",)]


@pytest.mark.parametrize("label", ["Question: ", "### Question\n", "**Question 1:** "])
def test_a_list_within_a_question_is_no_list_of_questions(label: str) -> None:
    asked = 'Reverse the list ["cat", "dog"].'
    assert read_blocks(label + asked, ("question",), 9) == [(asked,)]


@pytest.mark.parametrize(
    "reply",
    [
        # Which answer is meant, and where the question ends, nobody can tell.
        "Question: What is 2 + 2?\nAnswer: We add them.\nAnswer: 4",
        "[Question]\nWhat does [/Question] mean?\n[Answer]\nIt closes.\n[End]",
        "[Question]\nq1\n[Answer]\na1\n[Answer]\na2\n[End]",
        "[Question]\n[Question][Question]\n[Answer]\na1\n[End]",
        '{"question": "q1", "answer": "a\\n[End]\\nb"}',
        '[{"question": "q1", "answer": null}, {"question": "q2"}, {"answer": "a3"}]',
        '[{"question": "q1", "answer": ["a1"]}, {"question": " ", "answer": "a2"}]',
        '{"question": "q1", "answer": "\\ud800"}',
        '[{"question": "q1", "answer": "a1"',
        "I would rather not.",
    ],
)
def test_what_is_in_doubt_is_not_kept(reply: str) -> None:
    assert read_blocks(reply, PAIR, 9) == []


@pytest.mark.parametrize("letter", ["e", "\u0130", "\u00df", "\ufb01"])
def test_of_a_reply_that_was_cut_off_the_last_block_is_left_out(letter: str) -> None:
    """Letters of some languages are two where they are small."""
    whole = f"[Question]\nNe?\n[Answer]\n{letter * 40}\n[END]\n"
    reply = Reply(
        text=f"{whole}[Question]\nNe?\n[Answer]\nhalf a wo",
        finish_reason="length",
        prompt_tokens=1,
        completion_tokens=1,
        cached=False,
    )
    assert _read_blocks(reply, Blocks(("question", "answer")), 9) == [("Ne?", letter * 40)]
    nothing = Reply(
        text="[Question]\nNe?\n[Answer]\nhalf",
        finish_reason="length",
        prompt_tokens=1,
        completion_tokens=1,
        cached=False,
    )
    assert _read_blocks(nothing, Blocks(("question", "answer")), 9) == []


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("It is 4.\nYes.", "It is 4.\nYes."),
        ("[Answer]\nIt is 4.\n[End]", "It is 4."),
        ("**[Answer]** It is 4.", "It is 4."),
        ("It is 4.\n[End]", "It is 4."),
        ("It is 4. [/Answer]", "It is 4."),
        ("Write\n\\[Answer]\nabove it.", "Write\n[Answer]\nabove it."),
        ("Well.\n[Answer]\nIt is 4.", None),
        ("[Answer]\n4\n[Answer]\n5", None),
        ("[Question]\nq\n[Answer]\n4", None),
        ("4\n[End]\nAnything else?", None),
        ("[Answer]", None),
        ("the [/Answer] mark", None),
    ],
)
def test_a_reply_that_is_one_text_holds_no_marker(reply: str, read: str | None) -> None:
    assert read_whole(reply) == read


def test_a_text_may_hold_what_looks_like_another_form() -> None:
    answer = 'Steps:\nAnswer: 4\n### Answer\n{"answer": "4"}\nPair 2:\n---'
    reply = f"[Question]\nWhat is 2 + 2?\n[Answer]\n{answer}\n[End]"
    assert read_blocks(reply, PAIR, 9) == [("What is 2 + 2?", answer)]
    listed = "Question: Name two.\nAnswer: They are:\n1.\n2.\n3.\n\nQuestion: q2\nAnswer: a2"
    assert read_blocks(listed, PAIR, 9)[0] == ("Name two.", "They are:\n1.\n2.\n3.")


PIECES = (
    *("[Question]", "[Answer 2]", "[/Question]", "[End]", "### Question", "Answer:", "**Answer:**"),
    *('{"question": "', '", "answer": "', '"}', "[", "{", "\\", "\n", " ", "x", "1.", "---"),
)


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_no_marker_stays_inside_a_text(reply: str) -> None:
    for block in read_blocks(reply, PAIR, 9):
        for text in block:
            assert text.strip()
            if '"' not in reply:
                assert not re.search(r"^\[(question|answer|end)( \d+)?\]", text, re.I | re.M)
                assert not re.search(r"\[/(question|answer)\][ ]*$", text, re.I | re.M)


@pytest.mark.parametrize(
    "piece", ["[", "{", '{"a":', "\n \t>*_#-", "Question: x\n- ", "[/Question] "]
)
def test_a_hostile_reply_is_read_in_no_time(piece: str) -> None:
    started = time.monotonic()
    read_blocks(piece * 20_000, PAIR, 9)
    assert time.monotonic() - started < 5
