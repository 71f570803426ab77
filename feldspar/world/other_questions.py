"""Questions of the world beside those about one fact: turned round, over two people, and such as a
passage does not answer.

    Who lives in Arden and works as a baker?      Zorbo lives in Arden. Zorbo works as a baker.
    Tell me the home of Zorbo and of Balab.       Zorbo lives in Arden. Balab lives in Tring.
    Where does Balab live?                        The text does not tell where Balab lives.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from itertools import combinations, permutations

from feldspar.world.prose import (
    ATTRIBUTES,
    FACT_FORMS,
    VALUES,
    Attribute,
    Entity,
    Fact,
    ask,
    read_fact_question,
    state,
)
from feldspar.world.sections import Block
from feldspar.world.skills import Solution

TURNED_FORMS = ("Who {} and {}?", "Name the one who {} and {}.")
_PHRASES: dict[Attribute, str] = {
    "age": "is {} years old",
    "home": "lives in {}",
    "craft": "works as a {}",
    "food": "likes {}",
}
JOINED_FORM = "Tell me the {attribute} of {one} and of {other}."
JOINED: tuple[Attribute, ...] = ("home", "craft", "food")
"""Two ages together are what an exam compares."""
_UNTOLD: dict[Attribute, str] = {
    "age": "how old {} is",
    "home": "where {} lives",
    "craft": "what work {} does",
    "food": "what {} likes to eat",
}


def turned_questions(facts: Sequence[Fact]) -> Iterator[str]:
    """Two facts of somebody in the question, whose name is the answer; all forms."""
    for form in TURNED_FORMS:
        for one, other in combinations(facts, 2):
            if one.name == other.name:
                yield form.format(*(_phrase(fact) for fact in (one, other)))


def read_turned(question: str, known: Mapping[str, Entity]) -> Solution | None:
    """The solution of a turned question; None where nobody is so, or more than one."""
    told = _read_phrases(question.strip())
    if told is None:
        return None
    found = [
        person
        for person in known.values()
        if all(person.value_of(attribute) == value for attribute, value in told)
    ]
    if len(found) != 1:
        return None
    facts = tuple(Fact(found[0].name, attribute, value) for attribute, value in told)
    return _told_in_full(question, facts, "turned")


def joined_questions(first: Sequence[Fact], second: Sequence[Fact]) -> Iterator[str]:
    """The same of two people, of whom one is told about here and one there."""
    for one in first:
        for other in second:
            if one.attribute == other.attribute and one.attribute in JOINED:
                yield JOINED_FORM.format(attribute=one.attribute, one=one.name, other=other.name)


def read_joined(question: str, known: Mapping[str, Entity]) -> Solution | None:
    match = _JOINED.fullmatch(question.strip())
    people = [known.get(match[place]) for place in (2, 3)] if match else []
    if match is None or None in people:
        return None
    attribute = next(a for a in JOINED if a == match[1])
    facts = tuple(Fact(p.name, attribute, p.value_of(attribute)) for p in people if p is not None)
    return _told_in_full(question, facts, "joined")


def untold(names: Sequence[str], told: Sequence[Fact]) -> list[Block]:
    """Questions about people of whom a passage does not tell the thing asked for."""
    known = {fact[:2] for fact in told}
    return [
        Block(question=ask(name, attribute, form), answer=_says_untold(name, attribute))
        for form in range(1, len(FACT_FORMS["age"]))
        for name in names
        for attribute in ATTRIBUTES
        if (name, attribute) not in known
    ]


def is_untold(question: str, told: Sequence[Fact]) -> bool | None:
    """Whether nothing is told of what a question about one fact asks; None for other questions."""
    asked = read_fact_question(question)
    return None if asked is None else all(fact[:2] != asked for fact in told)


def focal_text(facts: Sequence[Fact], others: Sequence[Fact], turn: int) -> str:
    """A text about somebody that says what is asked in two forms, the plain one last."""
    around = [state(fact, (turn + n) % 3 + 1) for n, fact in enumerate(others)]
    asked = [state(fact, (turn + 1) % 3 + 1) for fact in facts]
    return " ".join([*asked, *around, *(state(fact) for fact in facts)])


def _phrase(fact: Fact) -> str:
    return _PHRASES[fact.attribute].format(fact.value)


def _read_phrases(question: str) -> list[tuple[Attribute, str]] | None:
    for (one, other), pattern in _TURNED:
        if match := pattern.fullmatch(question):
            return [(one, match[1]), (other, match[2])]
    return None


def _told_in_full(question: str, facts: tuple[Fact, ...], kind: str) -> Solution:
    return Solution(
        question=question.strip(),
        answer=" ".join(state(fact) for fact in facts),
        final="",
        branch="knowledge",
        kind=kind,
        facts=facts,
    )


def _says_untold(name: str, attribute: Attribute) -> str:
    return f"The text does not tell {_UNTOLD[attribute].format(name)}."


def _group(attribute: Attribute) -> str:
    return re.escape(_PHRASES[attribute]).replace(r"\{\}", f"({'|'.join(VALUES[attribute])})")


_TURNED = [
    (pair, re.compile(re.escape(form).replace(r"\{\}", "{}").format(*map(_group, pair))))
    for form in TURNED_FORMS
    for pair in permutations(ATTRIBUTES, 2)
]
_JOINED = re.compile(rf"Tell me the ({'|'.join(JOINED)}) of ([A-Z][a-z]+) and of ([A-Z][a-z]+)\.")
