from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from feldspar.text import SimilarTexts, ngrams, normalise, numbers_and_names, rouge_l, similarity

WORDS = st.lists(st.sampled_from(["the", "home", "of", "Zorbo", "is", "7", "Tarn"]), max_size=9)


def rouge_l_by_table(one: list[str], other: list[str]) -> float:
    """The textbook's dynamic programme."""
    row = [0] * (len(other) + 1)
    for word in one:
        above = row[:]
        for place, candidate in enumerate(other):
            longest = max(above[place + 1], row[place])
            row[place + 1] = above[place] + 1 if word == candidate else longest
    return 2 * row[-1] / (len(one) + len(other)) if one or other else 0.0


@given(WORDS, WORDS)
def test_rouge_l_is_the_textbooks(one: list[str], other: list[str]) -> None:
    table = rouge_l_by_table([w.lower() for w in one], [w.lower() for w in other])
    assert rouge_l(" ".join(one), " ".join(other)) == pytest.approx(table)


@given(st.lists(WORDS, max_size=12), WORDS, st.sampled_from([0.0, 0.5, 0.7, 0.9]))
def test_the_index_finds_what_comparing_all_finds(
    texts: list[list[str]], words: list[str], above: float
) -> None:
    index = SimilarTexts()
    for number, text in enumerate(texts):
        index.add(str(number), " ".join(text))
    best = max((rouge_l(" ".join(words), " ".join(text)) for text in texts), default=0.0)
    match = index.likest(" ".join(words), above)
    assert (match.score if match else None) == (pytest.approx(best) if best > above else None)


def test_case_and_punctuation_do_not_count_but_signs_do() -> None:
    assert normalise("The  HOME, of Zorbo!\n") == normalise("the home of zorbo")
    assert normalise("What is 12 + 5?") != normalise("What is 12 - 5?")
    assert normalise("well-known") == normalise("well known")
    assert normalise("3.14") != normalise("314")


@pytest.mark.parametrize(
    ("one", "other", "are_same"),
    [
        ("What is the home of Zorbo?", "Tell me the home of Zorbo.", True),
        ("What is the home of Zorbo?", "What is the home of Mirad?", False),
        ("Zorbo is how old?", "Mirad is how old?", False),
        ("What is 12 + 5?", "What is 12 + 6?", False),
        ("Which town is it?", "What town is it?", True),
        ("佐博住在哪里?", "米拉住在哪里?", False),
    ],
)
def test_numbers_and_names_tell_questions_apart(one: str, other: str, are_same: bool) -> None:
    assert (numbers_and_names(one) == numbers_and_names(other)) is are_same


def test_ngrams() -> None:
    assert list(ngrams(["a", "b", "c"], 2)) == ["a b", "b c"]
    assert list(ngrams(["a"], 2)) == []


@given(st.text())
def test_any_text_can_be_normalised_and_again_without_change(text: str) -> None:
    once = normalise(text)
    assert normalise(once).split() == once.split() or not once.isascii()
    numbers_and_names(text)


@pytest.mark.timeout(10, func_only=True)
def test_three_thousand_questions_of_one_form_are_no_hang() -> None:
    rng = random.Random(1)
    words = [f"word{number}" for number in range(300)]
    index = SimilarTexts()
    for number in range(3_000):
        text = "what is the best way to " + " ".join(rng.choices(words, k=8))
        index.likest(text, 0.7)
        index.add(str(number), text)


@given(
    st.lists(st.lists(st.sampled_from("abcdefgh"), max_size=9).map(" ".join), max_size=30),
    st.lists(st.sampled_from("abcdefgh"), max_size=9).map(" ".join),
    st.sampled_from([0.3, 0.5, 0.7, 0.9]),
    st.sampled_from([0, 5, similarity.FEW_TEXTS]),
)
def test_no_candidate_is_missed(texts: list[str], asked: str, above: float, few: int) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "FEW_TEXTS", few)
        check_candidates(texts, asked, above)


def test_words_past_the_last_code_are_still_compared() -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(similarity, "NUM_CODES", 5)
        index = SimilarTexts()
        for number in range(20):
            index.add(str(number), f"first{number} second{number} third{number}")
        match = index.likest("first19 second19 third19 more", 0.7)
    assert match is not None


def check_candidates(texts: list[str], asked: str, above: float) -> None:
    index = SimilarTexts()
    for number, text in enumerate(texts):
        index.add(str(number), text)
    scores = [(rouge_l(asked, text), -number) for number, text in enumerate(texts)]
    best = max((score for score in scores if score[0] > above), default=None)
    match = index.likest(asked, above)
    assert (match and (match.score, match.key)) == (best and (best[0], str(-best[1])))
