"""The embedded teacher's other kinds of pairs and texts, by the world's truth and its judge."""

from __future__ import annotations

import random

import pytest
from test_brain import RIGHT, WORLD, as_sample, exam_questions, prompt, reply

from feldspar.config import ErrorRates
from feldspar.generate.pipelines import ASKS_WHETHER_TOLD
from feldspar.world import extractive, judge
from feldspar.world.brain import Brain
from feldspar.world.prose import read_facts, write_document
from feldspar.world.sections import Block, read_blocks

FIRST, SECOND = (
    write_document("People", people, random.Random(1)) for people in (WORLD.new[:2], WORLD.new[2:4])
)
BOTH = f"Passage 1:\n{FIRST}\n\nPassage 2:\n{SECOND}"
ISLAND = "The mayor of Orvelin is Ines Calder. Ines Calder lives in Port Anselm."


def ask(stage: str, document: str, brain: Brain = RIGHT, **more: str) -> list[Block]:
    made = []
    for seed in range(3):
        text = prompt(task="t", document=document, **more, how_many="4")
        made += read_blocks(reply(brain, stage, text, seed))
    return made


def judged(stage: str, document: str, question: str, answer: str) -> bool:
    text = prompt(task="t", document=document, question=question, answer=answer)
    return reply(RIGHT, stage, text).endswith("YES")


def test_reversed_questions_have_one_answer_which_is_true() -> None:
    blocks = ask("knowledge-reversed", FIRST)
    assert len({block.question for block in blocks}) == len(blocks) == 12
    names = [person.name for person in WORLD.new[:2]]
    for block in blocks:
        assert not any(name in block.question for name in names)
        assert any(name in block.answer for name in names)
        assert judge.world_truth(WORLD, as_sample(block))
        assert judged("judge-faithful", FIRST, block.question, block.answer)
        assert not judged("judge-faithful", SECOND, block.question, block.answer)
    wrong = ask("knowledge-reversed", FIRST, Brain(WORLD, ErrorRates(wrong_fact=1.0)))
    assert not any(judge.world_truth(WORLD, as_sample(block)) for block in wrong)


def test_questions_across_passages_need_both_and_leave_the_exams_alone() -> None:
    blocks = ask("knowledge-across", BOTH)
    of_set_a = {person.name for person in WORLD.set_a(WORLD.new)}
    assert blocks
    for block in blocks:
        assert judge.world_truth(WORLD, as_sample(block))
        assert judged("judge-faithful", BOTH, block.question, block.answer)
        assert not judged("judge-faithful", FIRST, block.question, block.answer)
        assert not judged("judge-faithful", SECOND, block.question, block.answer)
        assert {fact.name for fact in read_facts(block.answer)} <= of_set_a
        assert "age" not in block.question
    assert ask("knowledge-across", FIRST) == []


def test_what_a_passage_does_not_tell_is_said_and_judged() -> None:
    blocks = ask("knowledge-unanswerable", FIRST)
    assert len({block.question for block in blocks}) == 12
    assert not {block.question for block in blocks} & exam_questions()
    for question, answer in ((block.question, block.answer) for block in blocks):
        asked = ASKS_WHETHER_TOLD.format(question)
        assert judged("judge-faithful", FIRST, asked, f"No. {answer}")
        assert not judged("judge-faithful", FIRST, asked, "Yes. It tells.")
        solution = WORLD.solve(question)
        assert solution is not None
        assert not judged("judge-faithful", FIRST, asked, f"No. {solution.answer}")
    told = WORLD.new[0].name
    asked = ASKS_WHETHER_TOLD.format(f"How old is {told}?")
    assert not judged(
        "judge-faithful", FIRST, asked, f"No. The text does not tell how old {told} is."
    )


def test_a_focal_text_says_what_is_asked_in_other_words_and_ends_with_it() -> None:
    person = WORLD.new[0]
    question = f"How old is {person.name}?"
    text = prompt(task="t", document=FIRST, question=question)
    written = reply(RIGHT, "focal-text", text)
    assert {fact.name for fact in read_facts(written)} == {person.name}
    assert len(read_facts(written)) == 5
    assert written.endswith(f"The age of {person.name} is {person.age}.")
    assert judged("judge-faithful", FIRST, question, written)
    wrong = reply(Brain(WORLD, ErrorRates(wrong_fact=1.0)), "focal-text", text)
    assert not judged("judge-faithful", FIRST, question, wrong)


def test_each_statement_named_is_asked_about() -> None:
    person = WORLD.new[0]
    named = "\n".join(
        (f"{person.name} lives in {person.home}.", f"{person.name} likes {person.food}.")
    )
    for blocks in (
        ask("knowledge-uncovered", FIRST, statements=named)[n : n + 2] for n in (0, 2, 4)
    ):
        kinds = [WORLD.solve(block.question) for block in blocks]
        assert [solution and solution.kind for solution in kinds] == ["home", "food"]


def test_rules_do_the_same_for_texts_that_are_of_no_world() -> None:
    nowhere = Brain(None, ErrorRates())
    turned = ask("knowledge-reversed", ISLAND, nowhere)
    assert (
        Block(
            question='Of whom or what is it said: "____ lives in Port Anselm"?',
            answer="Ines Calder lives in Port Anselm.",
        )
        in turned
    )
    other = "Tam Wick lives in Sedge. Tam Wick grinds lenses for the lighthouse."
    (joined, *_) = extractive.make_joined(f"Passage 1:\n{ISLAND}\n\nPassage 2:\n{other}", 1)
    assert "Tam Wick lives in Sedge." in joined.answer
    assert not judge.is_supported(ISLAND, joined.question, joined.answer)
    examples = "[Question]\nWhere does Tam Wick live?\n[Answer]\nIn Sedge.\n[End]"
    (untold, *_) = ask("knowledge-unanswerable", ISLAND, nowhere, examples=examples)
    asked = ASKS_WHETHER_TOLD.format(untold.question)
    assert judged("judge-faithful", ISLAND, asked, f"No. {untold.answer}")
    assert not judged("judge-faithful", other, asked, f"No. {untold.answer}")
    text = prompt(task="t", document=ISLAND, question="Who is the mayor of Orvelin?")
    assert reply(nowhere, "focal-text", text) == ISLAND
    (about, *_) = ask("knowledge-uncovered", ISLAND, nowhere, statements=ISLAND.split(". ")[1])
    assert "Port Anselm" in f"{about.question} {about.answer}"


@pytest.mark.parametrize("text", ["", "Passage 1:\n", "Passage 1:\nPassage 2:\n", "[End]\n" * 50])
def test_any_text_is_answered(text: str) -> None:
    for stage in ("reversed", "across", "unanswerable", "uncovered"):
        assert isinstance(reply(RIGHT, f"knowledge-{stage}", prompt(task="t", document=text)), str)
    assert isinstance(
        reply(RIGHT, "focal-text", prompt(task="t", document=text, question="Who?")), str
    )
