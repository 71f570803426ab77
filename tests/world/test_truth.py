"""The micro-world is closed: whatever it asks it can solve, and it knows right from wrong."""

import random

import pytest

from feldspar.world.corpus import Row, base_replay_rows, base_rows, reward_base_rows
from feldspar.world.prose import ATTRIBUTES, FACT_FORMS, ask, describe, read_facts, write_document
from feldspar.world.truth import World, ends_with


@pytest.fixture(scope="module")
def world() -> World:
    return World.make(0, 80, 48)


@pytest.mark.slow
def test_the_same_seed_gives_the_same_world():
    assert World.make(3, 20, 10) == World.make(3, 20, 10)
    assert World.make(3, 20, 10) != World.make(4, 20, 10)
    assert World.make(3, 20, 10).exams() == World.make(3, 20, 10).exams()


def test_every_exam_item_is_solved_and_its_corruption_is_wrong(world: World):
    rng = random.Random(0)
    for name, items in world.exams().items():
        assert len(items) >= 150, name
        assert len({(item.question, item.context) for item in items}) == len(items)
        for item in items:
            assert world.solve(item.question, item.context) == item
            assert ends_with(item.answer, item.final)
            assert world.is_right(item.question, item.answer, item.context)
            wrong = world.corrupt(item, rng)
            assert world.is_right(item.question, wrong, item.context) is False, wrong


def test_a_document_states_every_fact_twice_and_nothing_false(world: World):
    people = world.new[:12]
    facts = read_facts(write_document("The people", people, random.Random(0)))
    assert all(world.is_true(fact) for fact in facts)
    assert all(facts.count(fact) == 2 for entity in people for fact in entity.facts())


def test_a_passage_is_right_only_when_it_is_whole_and_true(world: World):
    entity = world.new[0]
    question = f"Describe {entity.name}."
    passage = describe(entity, random.Random(1))
    assert world.is_right(question, passage)
    assert world.is_right(question, passage[: passage.rindex(".", 0, -1) + 1]) is False
    assert world.is_right(question, passage.replace(entity.home, "Nowhere")) is False


def test_every_form_is_read_back(world: World):
    for attribute in ATTRIBUTES:
        for form in range(len(FACT_FORMS[attribute])):
            solution = world.solve(ask(world.new[0].name, attribute, form))
            assert solution is not None
            assert solution.final == world.new[0].value_of(attribute)


def test_a_question_of_another_world_has_no_answer(world: World):
    assert world.solve("What is the capital of France?") is None
    assert world.is_right("How old is Nobody?", "The age of Nobody is 12.") is None


def test_base_rows_know_nothing_new_and_replay_nothing_of_the_exam(world: World):
    rng = random.Random(0)
    assert not _names_in(base_rows(world, 3000, rng)) & {e.name for e in world.new}
    replayed = _names_in(base_replay_rows(world, 3000, rng))
    assert {e.name for e in world.old_for_replay} <= replayed
    assert not replayed & {e.name for e in world.old_for_exam + world.new}


def test_no_training_row_asks_a_composition_of_set_b_or_of_an_exam_pair(world: World):
    unseen = {e.name for e in world.set_b(world.old) + world.set_b(world.new)}
    for row in reward_base_rows(world, 4000, random.Random(0)):
        solution = world.solve(row.question)
        if solution is not None and solution.branch == "compositional":
            assert not {fact.name for fact in solution.facts} & unseen
            assert not world.is_exam_pair(solution)


def test_half_of_the_reward_base_rows_are_wrong(world: World):
    rows = [
        row for row in reward_base_rows(world, 2000, random.Random(0)) if "\n" not in row.question
    ]
    num_right = sum(world.is_right(row.question, row.answer) is True for row in rows)
    assert 0.45 < num_right / len(rows) < 0.55


def _names_in(rows: list[Row]) -> set[str]:
    return {fact.name for row in rows for fact in read_facts(row.answer)}


def test_a_world_whose_people_are_of_one_age_is_refused_at_once():
    # Nobody is older than another there; its exams were drawn for ever.
    with pytest.raises((ValueError, RecursionError)):
        World.make(4, 3, 3).exams()
