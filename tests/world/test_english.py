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
        "Which thing does the old mill grind?",
        "Tell me what the old mill grinds.",
        "Do you know what the old mill grinds?",
        "The old mill grinds what?",
        "I would like to know what the old mill grinds.",
        "Please say what the old mill grinds.",
    )


@pytest.mark.parametrize(
    ("sentence", "others"),
    [
        (
            "The lighthouse of Orvelin was built in 1871.",
            {"In which year was the lighthouse of Orvelin built?",
             "When was Orvelin's lighthouse built?"},
        ),
        (
            "The church of Orvelin was painted by Teo Brandel.",
            {"Who painted the church of Orvelin?", "Which person painted the church of Orvelin?",
             "Who was Orvelin's church painted by?"},
        ),
        ("The song was written by Teo Brandel.",
         {"Who wrote the song?", "Which person wrote the song?"}),
        ("The market is held on Thursdays.", {"On which day of the week is the market held?"}),
        ("The race is held in June.", {"In which month is the race held?"}),
        ("The museum opens at ten o'clock.", {"At what time of day does the museum open?"}),
        ("A ticket costs 9 crowns.", {"How much does a ticket cost?", "How much is a ticket?"}),
        (
            "The island of Orvelin has 640 inhabitants.",
            {"What is the number of inhabitants of the island of Orvelin?",
             "How many people live in Orvelin?", "How many inhabitants does Orvelin have?"},
        ),
        ("The forest is called Hollin Wood.",
         {"What name does the forest have?", "What is the forest known as?"}),
        ("Ines Calder was born in Fennick.", {"In which place was Ines Calder born?"}),
        ("The ferry leaves from Skerry Quay.", {"Which place does the ferry leave from?"}),
        ("Mirjam Voss lives in Rose Cottage.", {"At which place does Mirjam Voss live?"}),
        ("The bridge is made of red granite.", {"Which material is the bridge made of?"}),
        ("The mayor of Aldmoor is Ines Calder.",
         {"Which person is the mayor of Aldmoor?", "Who works as the mayor of Aldmoor?",
          "Who is Aldmoor's mayor?"}),
        ("The keeper of the lighthouse of Orvelin is Wilm Sorley.",
         {"Which person is the keeper of the lighthouse of Orvelin?",
          "Who works as the keeper of the lighthouse of Orvelin?"}),
        ("Orvelin is a small island.", set()),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_fact_is_asked_in_other_words_too(sentence: str, others: set[str]) -> None:
    fact = ask_about(sentence)[0]
    framed = ("Tell me ", "Do you know ", "I would like ", "Please say ", "Name ")
    plain = [form for form in fact.questions[1:] if not form.startswith(framed)]
    *found, echo = plain
    assert set(found) == others
    assert (
        echo.endswith(("who?", "what?", "when?", "where?", "of what?", "by who?", "where?"))
        or "how many" in echo
    )


def test_who_somebody_is_asks_for_the_work_too() -> None:
    _, turned = ask_about("The mayor of Aldmoor is Ines Calder.")
    assert turned.answer == "Ines Calder is the mayor of Aldmoor."
    assert {"What is Ines Calder's job?", "What does Ines Calder do for a living?"} <= set(
        turned.questions
    )
