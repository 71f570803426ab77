"""Questions by rules: what is asked, in which words, and with which end the answer comes."""

import pytest

from feldspar.world.english import ask_about


@pytest.mark.parametrize(
    ("sentence", "asked"),
    [
        (
            "The lighthouse of Orvelin was built in 1871 by Hanne Torvik.",
            {
                "When was the lighthouse of Orvelin built?": "in 1871.",
                "Who was the lighthouse of Orvelin built by?": "by Hanne Torvik.",
            },
        ),
        ("The old mill grinds barley.", {"What does the old mill grind?": "barley."}),
        (
            "Mirjam Voss keeps 12 beehives.",
            {"How many beehives does Mirjam Voss keep?": "12 beehives."},
        ),
        (
            "The ferry to Orvelin leaves from Skerry Quay.",
            {"Where does the ferry to Orvelin leave from?": "from Skerry Quay."},
        ),
        (
            "The forest is called Hollin Wood.",
            {"What is the forest called?": "called Hollin Wood."},
        ),
        ("The bridge is made of red granite.", {"What is the bridge made of?": "of red granite."}),
        (
            "The museum opens at ten o'clock.",
            {"When does the museum open?": "at ten o'clock."},
        ),
        (
            "Edda Lunt won a medal in 1996.",
            {
                "What did Edda Lunt win?": "a medal.",
                "When did Edda Lunt win a medal?": "in 1996.",
            },
        ),
        (
            "The mayor of Orvelin is Ines Calder.",
            {
                "Who is the mayor of Orvelin?": "is Ines Calder.",
                "Who is Ines Calder?": "is the mayor of Orvelin.",
            },
        ),
        (
            "The largest village is Tanholt.",
            {"What is the largest village?": "is Tanholt."},
        ),
        ("Phoenix is a minor constellation in the sky.", {"What is Phoenix?": "in the sky."}),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_a_sentence_answers(sentence: str, asked: dict[str, str]) -> None:
    found = {fact.questions[0]: fact.answer for fact in ask_about(sentence)}
    assert found.keys() == asked.keys()
    for question, end in asked.items():
        assert found[question].endswith(end)


@pytest.mark.parametrize(
    "sentence",
    [
        "",
        "It was invented by Adolphe Sax in the 1840s.",
        "Apples, pears and plums.",
        "Although it rained, the race was held.",
        "Run.",
        "The a.",
        "Was built in 1871.",
        "東京は日本の首都です。",
        "The lighthouse was built in 1871; it burned down.",
        "x" * 300,
    ],
)
def test_what_the_rules_cannot_read_is_not_asked(sentence: str) -> None:
    assert ask_about(sentence) == []


def test_a_fact_is_asked_in_several_words() -> None:
    (fact,) = ask_about("The old mill grinds barley.")
    assert fact.questions == (
        "What does the old mill grind?",
        "Tell me what the old mill grinds.",
        "Do you know what the old mill grinds?",
        "The old mill grinds what?",
        "I would like to know what the old mill grinds.",
        "Please say what the old mill grinds.",
    )
