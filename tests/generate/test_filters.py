from __future__ import annotations

import random
import time
from dataclasses import replace

import pytest

from feldspar.config import GenerateConfig
from feldspar.generate.draft import SampleRequest
from feldspar.generate.filters import Decontaminator, Distinct, Filters
from feldspar.generate.final_answers import accepted_final
from feldspar.generate.funnel import FELL_BEFORE, MENDS, Tally
from feldspar.records import Branch, ExamItem, Leaf, Sample, Seed

SEED = Seed(id="seed1", question="Where does Bel live?", answer="Bel lives in Ulm.")


def leaf(branch: Branch = "knowledge") -> Leaf:
    return Leaf(path="a/b", branch=branch, task_description="t", seeds=(SEED,))


def sample(
    question: str, answer: str, context: str | None = None, branch: Branch = "knowledge"
) -> Sample:
    return Sample(
        id=f"id of {question}",
        leaf="a/b",
        branch=branch,
        question=question,
        answer=answer,
        context=context,
    )


def item(
    question: str, branch: Branch | None = "knowledge", context: str | None = None
) -> ExamItem:
    return ExamItem(
        id="item1", exam="e", question=question, reference="r", branch=branch, context=context
    )


def test_a_row_said_again_is_a_duplicate_and_its_neighbour_is_named() -> None:
    distinct = Distinct(leaf())
    assert distinct.find_neighbour(sample("Where is Zorbo?", "In Tarn.")) is None
    again = distinct.find_neighbour(sample("where is  Zorbo", "in Tarn"))
    assert again == "duplicate: same question and answer (as id of Where is Zorbo?)"
    seed = distinct.find_neighbour(sample("Where does Bel live?", "Bel lives in Ulm!"))
    assert seed == "duplicate: same question and answer (as seed seed1)"


@pytest.mark.parametrize(
    ("question", "answer", "is_near"),
    [
        ("What is the fine home of Zorbo?", "Tarn.", True),
        ("What is the home of Mirad?", "Tarn.", False),
        ("What is the home of Zorbo?", "Ulm.", False),
        ("Tell me now where we may find Zorbo", "Tarn.", False),
        ("What is the home of Zorbo 2?", "Tarn.", False),
    ],
)
def test_near_duplicates_share_answer_names_and_numbers(
    question: str, answer: str, is_near: bool
) -> None:
    distinct = Distinct(leaf())
    assert distinct.find_neighbour(sample("What is the home of Zorbo?", "Tarn")) is None
    reason = distinct.find_neighbour(sample(question, answer))
    assert (reason is not None) is is_near
    if reason:
        assert reason.startswith("near-duplicate: same answer (as id of What is the home of Zorbo?")
        assert "ROUGE-L 0.9" in reason


def test_a_skill_with_another_input_is_no_duplicate_but_a_fact_from_another_passage_is() -> None:
    skills = Distinct(leaf("compositional"))
    knowledge = Distinct(leaf())
    for distinct, branch, are_same in [
        (skills, "compositional", False),
        (knowledge, "knowledge", True),
    ]:
        distinct.find_neighbour(sample("How many figs are there?", "3", "Basket: 3 figs", branch))
        other = sample("How many figs are in there?", "3", "Basket: 3 figs, 2 pears", branch)
        assert (distinct.find_neighbour(other) is not None) is are_same


def test_near_duplicates_may_be_kept() -> None:
    distinct = Distinct(leaf(), near=False)
    assert distinct.find_neighbour(sample("What is the home of Zorbo?", "Tarn")) is None
    assert distinct.find_neighbour(sample("What is the fine home of Zorbo?", "Tarn")) is None


def test_the_fact_an_exam_asks_for_may_be_taught_but_not_its_question() -> None:
    exams = Decontaminator([item("In which town does Zorbo live?")])
    assert exams.find_item(sample("What is the home of Zorbo?", "Tarn")) is None
    assert exams.find_item(sample("In which town does Mirad live?", "Tarn")) is None
    reason = exams.find_item(sample("In which town does Zorbo live", "Tarn"))
    assert reason == "exam: asked there (e item1, ROUGE-L 1.00)"


def test_a_grounded_skill_is_known_by_its_input() -> None:
    exams = Decontaminator([item("Sum up.", "compositional", "A long talk.")])
    clean = sample("Sum up.", "x", "Another talk.", "compositional")
    assert exams.find_item(clean) is None
    assert exams.find_item(replace(clean, question="Who spoke?", context="a long TALK")) == (
        "exam: asked there (e item1, same input)"
    )


def test_a_benchmark_is_known_by_thirteen_words_or_its_whole_question() -> None:
    words = [f"w{number}" for number in range(20)]
    exams = Decontaminator([item(" ".join(words), None), item("What is 12 + 5?", None)])
    assert exams.find_item(sample(" ".join(words[:12]), "x")) is None
    assert "13 words" in str(exams.find_item(sample("q", " ".join(["x", *words[3:16]]))))
    assert "5 words" in str(exams.find_item(sample("Tell me: what is 12 + 5?", "17")))
    assert exams.find_item(sample("Tell me: what is 12 - 5?", "7")) is None


def test_filters_forget_a_leaf_when_the_next_begins() -> None:
    filters = Filters(GenerateConfig(), [])
    one, other = leaf(), replace(leaf(), path="a/c")
    assert filters.reason_against(sample("Who?", "Zorbo"), one) is None
    assert filters.reason_against(sample("Who?", "Zorbo"), other) is None
    assert filters.reason_against(sample("Who?", "Zorbo"), other) is not None


@pytest.mark.slow
def test_five_thousand_samples_take_seconds() -> None:
    rng = random.Random(1)
    names = [f"Name{number}" for number in range(400)]
    verbs = ["live", "work", "sleep", "eat", "play", "sing"]
    exam = [item(f"In which town does {name} now live?") for name in names]
    filters = Filters(GenerateConfig(), exam)
    began = time.process_time()
    for _ in range(5000):
        name, verb = rng.choice(names), rng.choice(verbs)
        question = (
            f"Where, as far as you know, does {name} {verb} in the {rng.randrange(50)}th year?"
        )
        filters.reason_against(sample(question, f"{name} does so in Tarn."), leaf())
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    ("answer", "branch", "final"),
    [
        ("Zorbo lives in Tarn.", "knowledge", "Tarn"),
        ("The home of Zorbo is New York.", "knowledge", "New York"),
        ("Zorbo works as a baker.", "knowledge", "baker"),
        ("Zorbo likes figs", "knowledge", "Zorbo likes figs"),
        ("No, it is not in the north.", "knowledge", "No, it is not in the north"),
        ("Tarn", "knowledge", "Tarn"),
        ("Zorbo is 7. 7 + 3 = 10.", "compositional", "10"),
        ("Zorbo is 7. 7 + 3 = 10.", "knowledge", None),
        ("Zorbo is 31. Mirad is 25. Zorbo is older.", "compositional", "Zorbo is older"),
        ("The food of Zorbo is figs.", "knowledge", "figs"),
        ("Zorbo is 31.", "knowledge", "31"),
        ("The oldest is Zorbo.", "foundational", "Zorbo"),
        ("It is in the north", "knowledge", "It is in the north"),
        ("Sorted: 3, 5, 9.", "foundational", "3, 5, 9"),
        ("3, 5, 9", "foundational", "3, 5, 9"),
        ("12 + 5 = 17.", "foundational", "17"),
        ("The first train leaves at 10:30.", "knowledge", "10:30"),
        ("The scale is 1:50.", "knowledge", "1:50"),
        ("It is 12:30:15.", "knowledge", "12:30:15"),
        ("Score: 2:1", "foundational", "2:1"),
        ("Its page is https://tarn.example/a:1", "knowledge", "https://tarn.example/a:1"),
        (
            "Zorbo is a baker who has lived in the town of Tarn since he was born.",
            "knowledge",
            None,
        ),
        ("A poem.\nIt goes on and on and never comes to its end.", "compositional", None),
        ("Rhymes with cool:\n1. Pool\n2. Mule", "compositional", None),
        ("Come and see us in the city, all of you! #City", "compositional", None),
        ("", "knowledge", None),
    ],
)
def test_the_end_that_a_right_answer_has(answer: str, branch: Branch, final: str | None) -> None:
    question = "Who is Zorbo, who lives up in the north?"
    assert accepted_final(question, answer, branch) == final


def test_a_sample_that_an_exam_asks_takes_no_other_with_it() -> None:
    question = "In which of the old harbour towns does Zorbo live?"
    filters = Filters(GenerateConfig(), [item(question)])
    asked = sample(question, "Tarn.")
    assert str(filters.reason_against(asked, leaf())).startswith("exam: asked there")
    near = sample("In which of the old harbour towns and ports did Zorbo once live?", "Tarn.")
    assert filters.reason_against(near, leaf()) is None


GERMAN = Seed(
    id="g",
    question="Wo wohnt der alte Mann, und was ist sein Beruf?",
    answer="Er wohnt in der Stadt und ist ein B\u00e4cker.",
)
FALLEN_BACK = "The old man is the baker of the town and lives in it with his wife."


@pytest.mark.parametrize("is_on", [True, False])
def test_an_answer_in_another_language_than_the_seeds_falls(is_on: bool) -> None:
    german = replace(leaf(), seeds=(GERMAN,))
    filters = Filters(GenerateConfig(language=is_on), [])
    reason = filters.reason_against(sample("Wer ist der Mann und wie ist er?", FALLEN_BACK), german)
    expected = "language: another than the seeds' (answer in en, not de)" if is_on else None
    assert reason == expected
    assert filters.reason_against(sample("Wer ist das?", "Zorbo."), german) is None


def test_a_skill_that_translates_may_answer_in_another_language() -> None:
    seed = Seed(id="t", question="Translate: the man is in the town", answer=GERMAN.answer)
    filters = Filters(GenerateConfig(), [])
    asked = "Translate: who is the man in the town and what is he?"
    translates = replace(leaf("compositional"), seeds=(seed,))
    assert filters.reason_against(sample(asked, GERMAN.question), translates) is None


def test_answers_may_be_bounded_in_length_and_duplicates_kept() -> None:
    bounded = Filters(GenerateConfig(min_answer_words=2, max_answer_words=4), [])
    assert bounded.reason_against(sample("Who?", "Zorbo"), leaf()) == (
        "length: answer too short (1 words)"
    )
    assert "too long (5 words)" in str(bounded.reason_against(sample("Who?", "a b c d e"), leaf()))
    free = Filters(GenerateConfig(duplicates=False), [])
    assert [free.reason_against(sample("Who?", "Zorbo"), leaf()) for _ in range(2)] == [None, None]


def test_more_samples_than_asked_for_are_counted_and_none_is_missing() -> None:
    tally = Tally(leaf())
    request = SampleRequest(leaf=leaf(), seeds=(), count=4, draw=0)
    tally.add(request, [sample("Who?", f"Zorbo {number}") for number in range(6)], {})
    funnel = tally.finish()
    assert (tally.asked, funnel.reasons) == (6, ())


def test_a_leaf_that_yields_little_says_what_to_change() -> None:
    tally = Tally(leaf())
    fell = replace(sample("Who?", "Zorbo"), rejected_because="judge: not faithful")
    request = SampleRequest(leaf=leaf(), seeds=(), count=10, draw=0)
    tally.add(request, [fell] * 7 + [sample("Who?", "Zorbo")] * 3, {})
    funnel = tally.finish()
    assert funnel.hint.startswith("70% fell for 'judge: not faithful': the teacher adds")
    assert Tally(leaf()).finish().hint == ""


def test_every_reason_has_a_mend() -> None:
    for start in FELL_BEFORE.keys() - {"budget", "target"}:
        assert any(mend.startswith(start) for mend in MENDS), start
