"""Questions that an English sentence answers: each rule's right value, and what gets none."""

import pytest

from feldspar.world.encyclopedic import ask_about, with_subjects
from feldspar.world.extractive import MASK, make_pairs
from feldspar.world.sections import Block


@pytest.mark.parametrize(
    ("sentence", "question", "answer"),
    [
        ("The term mitochondrion was coined by Carl Benda in 1898.", *asked)
        for asked in (
            ("Who was the term mitochondrion coined by?", "Carl Benda"),
            ("Who coined the term mitochondrion?", "Carl Benda"),
            ("When was the term mitochondrion coined by Carl Benda?", "In 1898"),
            ("In which year was the term mitochondrion coined by Carl Benda?", "In 1898"),
            ("What was coined by Carl Benda in 1898?", "The term mitochondrion"),
        )
    ]
    + [
        (
            "Ankaa is the brightest star in the constellation.",
            "What is Ankaa?",
            "Ankaa is the brightest star in the constellation.",
        ),
        (
            "The Indian elephant is native to mainland Asia.",
            "Where is the Indian elephant native to?",
            "Mainland Asia",
        ),
        (
            "Mitochondria are found in all eukaryotes.",
            "Where are mitochondria found?",
            "In all eukaryotes",
        ),
        (
            "In 2022, Velda Bridge was named the longest bridge of the region.",
            "When was Velda Bridge named the longest bridge of the region?",
            "In 2022",
        ),
        (
            "The city council has 24 elected members.",
            "How many elected members does the city council have?",
            "24",
        ),
        ("There are two museums in Velda.", "How many museums are there in Velda?", "Two"),
        ("Velda Bridge is 45 metres long.", "How long is Velda Bridge?", "45 metres"),
        ("Juveniles are similar to adults.", "What are Juveniles similar to?", "Adults"),
        (
            "Urushiol can cause contact dermatitis.",
            "What can Urushiol cause?",
            "Contact dermatitis",
        ),
        (
            "Velda Bridge is closed because its piers are under repair.",
            "Why is Velda Bridge closed?",
            "Because its piers are under repair.",
        ),
    ],
)
def test_a_form_gives_its_question(sentence: str, question: str, answer: str) -> None:
    made = ask_about(sentence, frozenset({"mitochondria"}))
    assert Block(question=question, answer=answer) in made


@pytest.mark.parametrize(
    "sentence",
    [
        "It was invented by Adolphe Sax.",
        "The flowers are used in ceremonial garlands.",
        "This is a list of stars.",
        "See also",
        "Critics who saw the film are divided.",
        "Lying within the bounds of the constellation is the Phoenix cluster.",
        "Pictured is a captive elephant.",
        "\u5bcc\u58eb\u5c71\u306f\u65e5\u672c\u306e\u5c71\u3067\u3059\u3002",
        "",
    ],
)
def test_what_is_not_clear_alone_is_not_asked(sentence: str) -> None:
    assert not ask_about(sentence)


def test_a_pronoun_gets_the_name_while_the_sentences_go_on_about_it() -> None:
    text = [
        "The alto saxophone is a member of the saxophone family.",
        "It was invented by Adolphe Sax.",
        "Jazz has other instruments.",
        "It is loud.",
    ]
    assert with_subjects(text)[1] == "The alto saxophone was invented by Adolphe Sax."
    assert with_subjects(text)[3] == text[3]


def test_a_document_is_asked_by_form_first_and_by_gaps_for_the_rest() -> None:
    document = (
        "# Velda\n\nVelda Bridge is a bridge in the north. It was opened in 1911.\n\n"
        "See also\n\n- One, two, three, four, five, six, seven and eight\n\n"
        "Sailors fear the currents under the third arch."
    )
    pairs = make_pairs(document, seed=0)
    asked = [block.question for block in pairs]
    assert {"What is Velda Bridge?", "When was Velda Bridge opened?"} <= set(asked[:4])
    gaps = [question for question in asked if MASK in question]
    assert gaps
    assert all("arch" in gap or "Sailors" in gap for gap in gaps)
    assert not any("eight" in question for question in asked)
