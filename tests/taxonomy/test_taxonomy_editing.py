"""A leaf that is edited in a form keeps its comments, its key order and its style."""

import string
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from feldspar.errors import TaxonomyError
from feldspar.taxonomy.editing import (
    FormExample,
    FormPair,
    LeafForm,
    edited,
    empty_leaf,
    field_places,
    read_form,
)

KNOWLEDGE = """\
# About the island.
created_by: anna   # she knows
version: 3

domain: 'islands'
seed_examples:
  # The harbour.
  - context: |
      The harbour lies in the north.
      It is deep.

    questions_and_answers:
      - question: Where is the harbour?
        answer: In the north.  # not the south
      - {question: "Is it deep?", answer: "Yes: very."}
  # The mill.
  - context: >-
      The mill stands
      on a hill.
    questions_and_answers:
      - question: "Where is the mill?"
        answer: 'On a hill.'
# The documents.
document_outline: An island
document:
  path: documents
"""
SKILL = """\
version: 3
task_description: Add.
seed_examples:
- question: 2 + 2?
  answer: "4"
- question: 3 + 3?
  answer: "6"
created_by: ben
"""


def pair(question: str, answer: str) -> FormPair:
    return FormPair(question=question, answer=answer)


def lines_changed(before: str, after: str) -> tuple[list[str], list[str]]:
    old, new = before.splitlines(), after.splitlines()
    return [x for x in old if x not in new], [x for x in new if x not in old]


@pytest.mark.parametrize(("text", "is_knowledge"), [(KNOWLEDGE, True), (SKILL, False)])
def test_a_form_that_says_the_same_changes_nothing(text: str, is_knowledge: bool) -> None:
    assert edited(text, read_form(text), is_knowledge=is_knowledge) == text


def test_a_value_is_replaced_in_its_place() -> None:
    form = read_form(KNOWLEDGE)
    first, second = form.examples
    changed = replace(
        form,
        domain="towns",
        examples=(
            replace(
                first,
                pairs=(
                    replace(first.pairs[0], answer="North: by the sea."),
                    replace(first.pairs[1], question="How deep?"),
                ),
            ),
            replace(second, context="The mill stands.\n\nIt turns."),
        ),
    )
    made = edited(KNOWLEDGE, changed, is_knowledge=True)
    gone, new = lines_changed(KNOWLEDGE, made)
    assert new == [
        "domain: towns",
        '        answer: "North: by the sea."  # not the south',
        '      - {question: "How deep?", answer: "Yes: very."}',
        "      The mill stands.",
        "      It turns.",
    ]
    assert all(line in made for line in KNOWLEDGE.splitlines() if line.strip().startswith("#"))
    assert read_form(made).examples[1].context == "The mill stands.\n\nIt turns."
    assert len(gone) == 6


def test_seeds_are_added_behind_and_taken_out_with_the_rest_as_it_was() -> None:
    form = read_form(KNOWLEDGE)
    first, second = form.examples
    new = FormExample(context="The lamp\nis red.", pairs=(pair("What is red?", "The lamp."),))
    made = edited(
        KNOWLEDGE,
        replace(
            form,
            examples=(replace(first, pairs=(first.pairs[1], pair("Who?", "Ola."))), second, new),
        ),
        is_knowledge=True,
    )
    assert made == KNOWLEDGE.replace(
        """\
      - question: Where is the harbour?
        answer: In the north.  # not the south
""",
        "",
    ).replace(
        """\
      - {question: "Is it deep?", answer: "Yes: very."}
""",
        """\
      - {question: "Is it deep?", answer: "Yes: very."}
      - question: Who?
        answer: Ola.
""",
    ).replace(
        """\
        answer: 'On a hill.'
""",
        """\
        answer: 'On a hill.'
  - context: |
      The lamp
      is red.
    questions_and_answers:
      - question: What is red?
        answer: The lamp.
""",
    )
    only_new = edited(KNOWLEDGE, replace(form, examples=(new,)), is_knowledge=True)
    assert read_form(only_new).examples[0].context == new.context
    assert "# The documents." in only_new


def test_a_skill_keeps_its_flat_seeds() -> None:
    form = read_form(SKILL)
    made = edited(
        SKILL,
        replace(
            form,
            examples=(
                form.examples[1],
                FormExample(context="Of apples", pairs=(pair("1 + 1?", "2"),)),
            ),
        ),
        is_knowledge=False,
    )
    assert made == SKILL.replace('- question: 2 + 2?\n  answer: "4"\n', "").replace(
        'answer: "6"\n', 'answer: "6"\n- question: 1 + 1?\n  answer: "2"\n  context: Of apples\n'
    )


@pytest.mark.parametrize("is_knowledge", [True, False])
def test_a_new_leaf_is_an_empty_one_that_was_edited(is_knowledge: bool) -> None:
    form = LeafForm(
        created_by="anna",
        domain="islands" if is_knowledge else "",
        description="What it is: an island",
        examples=(FormExample(context="c" if is_knowledge else "", pairs=(pair("Q?", "A."),)),),
    )
    made = edited(empty_leaf(is_knowledge=is_knowledge), form, is_knowledge=is_knowledge)
    said = read_form(made)
    assert (said.created_by, said.description) == ("anna", "What it is: an island")
    assert said.examples[0].pairs[0].question == "Q?"
    assert "[]" not in made


def test_a_knowledge_leaf_without_documents_takes_passages_with_several_questions() -> None:
    text = "version: 3\ncreated_by: anna\nseed_examples: []\n"
    for pairs in ((pair("Q?", "A."), pair("R?", "B.")), (pair("Q?", "A."),)):
        form = replace(read_form(text), examples=(FormExample(context="c", pairs=pairs),))
        made = edited(text, form, is_knowledge=True)
        assert "questions_and_answers:" in made
        assert read_form(made).examples[0].pairs == tuple(
            replace(one, old=number) for number, one in enumerate(pairs)
        )


@pytest.mark.parametrize(
    "text",
    [
        "{a: b}",
        "- a",
        "a: [",
        "seed_examples: x",
        "seed_examples:\n - [a]",
        "a: &x 1\nb: *x",
        'a: "\\',
        "",
    ],
)
def test_what_has_no_form_is_said_in_a_line(text: str) -> None:
    with pytest.raises(TaxonomyError) as caught:
        edited(text, read_form(text), is_knowledge=True)
    assert "\n" not in str(caught.value)


def test_fields_know_their_lines() -> None:
    places = {place.field: (place.first, place.last) for place in field_places(KNOWLEDGE)}
    assert places["created_by"] == (2, 2)
    assert places["example-0-context"] == (8, 11)
    assert places["example-0-pair-1-answer"] == (15, 15)
    assert places["description"] == (24, 24)


TEXTS = st.text(
    st.sampled_from(string.ascii_letters + "0: #-'\"|>&*{}[]%@`\n\t\\é,?!~"), max_size=40
)


@pytest.mark.slow
@settings(deadline=None)
@given(TEXTS, TEXTS, TEXTS)
def test_whatever_is_written_is_read_again(context: str, question: str, answer: str) -> None:
    new = FormExample(context=context, pairs=(pair(question, answer),))
    for text in (KNOWLEDGE, empty_leaf(is_knowledge=True)):
        form = read_form(text)
        changed = [
            replace(e, context=answer, pairs=(replace(e.pairs[0], answer=context),))
            for e in form.examples
        ]
        wanted = replace(form, description=question, examples=(*changed, new))
        made = read_form(edited(text, wanted, is_knowledge=True))
        assert made.description == question.strip()
        assert made.examples[-1].context == context.strip()
        assert made.examples[-1].pairs[0].answer == answer.strip()
        assert made.examples[0].context == (answer if form.examples else context).strip()
