"""The bank of questions for base replay asks nothing that the general exam asks."""

import json
import re
from importlib.resources import files

import pytest

from feldspar.evaluate.general.questions import general_items

BANK = [
    json.loads(line)["question"]
    for line in files("feldspar.mix.bank").joinpath("questions.jsonl").read_text().splitlines()
]
_GRAMMAR = re.compile(
    "a|an|the|is|are|was|were|do|does|did|of|in|on|at|to|for|from|by|with|and|or|what|which|who|how"
    "|when|where|why|you|your|i|my|me|it|this|that|these|those|can|could|should|would|will|be|name"
    "|give|tell|say|words?|one|please|answer|many|much|called|not|no|yes|into"
)


def content_words(question: str) -> frozenset[str]:
    """Its words without grammar, and without the s of plurals."""
    words = re.findall(r"[a-z0-9]+", question.lower())
    return frozenset(word.rstrip("s") for word in words if not _GRAMMAR.fullmatch(word))


def likeness(words: frozenset[str], others: frozenset[str]) -> float:
    """Shared content words over all of them, 0 to 1."""
    return len(words & others) / max(len(words | others), 1)


def test_no_question_of_the_bank_is_asked_by_the_exam() -> None:
    asked = {content_words(question): question for item in general_items() for question in item.ask}
    for question in BANK:
        words = content_words(question)
        nearest = max(asked, key=lambda others: likeness(words, others))
        # "What is the past tense of swim?" and "... of give?" share two words of three.
        assert likeness(words, nearest) < 0.7, (question, asked[nearest])


@pytest.mark.parametrize(
    "kind", ["capitals", "opposites", "elements", "sums", "products", "Spanish", "French", "German"]
)
def test_what_the_exam_asks_a_fact_about_is_no_subject_of_the_bank(kind: str) -> None:
    subjects = {
        " ".join(item.id.split("/")[1].removeprefix("to-").removeprefix("from-").split("-"))
        for item in general_items()
        if item.kind == kind
    }
    of_kind = {
        "capitals": [q for q in BANK if "capital of" in q],
        "opposites": [q for q in BANK if "opposite" in q],
        "elements": [q for q in BANK if "symbol" in q or "element" in q],
    }.get(kind, [q for q in BANK if kind in q])
    for question in of_kind:
        plain = " ".join(re.findall(r"[a-z0-9]+", question.lower()))
        assert not any(f" {s} " in f" {plain} " for s in subjects if s), question
