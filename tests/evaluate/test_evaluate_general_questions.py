import json
from collections import Counter
from importlib.resources import files

import pytest

from feldspar.evaluate.contamination import NEAR_DUPLICATE
from feldspar.evaluate.general.questions import (
    GeneralItem,
    asked_half,
    general_items,
    halves,
    kinds,
)
from feldspar.text.match import is_right
from feldspar.text.similarity import SimilarTexts
from feldspar.text.words import normalise, numbers_and_names

ITEMS = general_items()
LEAST_OF_A_KIND = 25
SAID = {
    "refusal": "I'm sorry, I can't help with that.",
    "unknown": "I don't know that.",
    "upper": "A WHALE",
    "lower": "a whale",
}
"""What is right where no answer is written down."""
BANK = files("feldspar").joinpath("mix", "bank", "questions.jsonl")
"""What base replay asks: what is examined must not be trained."""


def test_ids_and_questions_are_there_once():
    assert max(Counter(item.id for item in ITEMS).values()) == 1
    asked = Counter(normalise(question) for item in ITEMS for question in item.ask)
    assert [question for question, times in asked.items() if times > 1] == []


def test_every_kind_has_enough_items():
    sizes = {kind: len(items) for kind, items in kinds(ITEMS).items()}
    assert min(sizes.values()) >= LEAST_OF_A_KIND, sizes
    assert 600 <= len(ITEMS) <= 700
    assert all(item.id.startswith(f"{item.kind.lower().replace(' ', '-')}/") for item in ITEMS)


@pytest.mark.parametrize("kind", kinds(ITEMS))
def test_an_item_is_right_by_its_own_check(kind):
    for item in kinds(ITEMS)[kind]:
        first, second = item.posed()
        assert normalise(first.question) != normalise(second.question)
        for posed in (first, second):
            for answer in item.accepted or [SAID[item.match]]:
                assert is_right(_written(item, answer), posed), posed
            assert not is_right("", posed)
            assert not is_right("Hmm hmm Hmm hmm hmm hmm hmm.", posed), posed
            assert not any(is_right(one, posed) for one in item.wrong)


def test_halves_are_of_one_size_in_every_kind_and_never_change():
    found = halves(ITEMS)
    assert sorted(item.id for half in found.values() for item in half) == sorted(
        item.id for item in ITEMS
    )
    reported, chosen = kinds(found["report"]), kinds(found["select"])
    assert all(0 <= len(reported[kind]) - len(chosen[kind]) <= 1 for kind in kinds(ITEMS))
    # What was chosen by in one version must not be reported in the next.
    assert [item.id for item in found["select"][:3]] == SELECTED
    assert halves(ITEMS[::-1])["select"][::-1] == found["select"]


def test_a_quick_look_asks_some_of_every_kind():
    few, all_of = asked_half("report", 3), halves(ITEMS)["report"]
    assert {len(items) for items in kinds(few).values()} == {3}
    assert set(kinds(few)) == set(kinds(ITEMS))
    assert set(few) < set(all_of)
    assert set(few) < set(asked_half("report", 4))
    assert asked_half("report", None) == all_of


@pytest.mark.skipif(not BANK.is_file(), reason="there is no bank of questions for base replay")
def test_the_replay_bank_holds_no_question_of_the_exam():
    similar = SimilarTexts()
    for item in ITEMS:
        for question in item.ask:
            similar.add(question, question, numbers_and_names(question))
    bank = [json.loads(line)["question"] for line in BANK.read_text().splitlines()]
    found = {
        question: match.key
        for question in bank
        if (match := similar.likest(question, NEAR_DUPLICATE, numbers_and_names(question)))
    }
    assert len(bank) > 100
    assert found == {}


SELECTED = ["capitals/italy", "capitals/portugal", "capitals/china"]


def _written(item: GeneralItem, answer: str) -> str:
    """An answer that is written as its form wants it."""
    if item.match == "items":
        return ", ".join(["thing"] * int(answer))
    if item.match == "lines":
        return "\n".join(["- thing"] * int(answer))
    if item.match == "words":
        return " ".join(["thing"] * int(answer))
    if item.match == "starts":
        return f"{answer} it is so."
    return f"It is {answer}." if item.match in ("ends", "final", "holds", "number") else answer
