"""A question about a plain clause in other words: a noun in place of its verb, an owner in place of
`of`, the kind of time in place of `when`, and who does it in place of `by`.

Rules and word lists, as in english.py, which asks them beside its own: a model that met one wording
of a fact knows the wording, and one that met several knows the fact (Allen-Zhu and Li, "Physics of
Language Models", part 3.1).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import NamedTuple


class AskedClause(NamedTuple):
    """`Where | does | the old mill | stand`, of a statement that ends with `on the hill`."""

    word: str
    """`who`, `what`, `when`, `where`, or `how many` with its noun."""
    helper: str
    """`does`, `did`, or a form of `to be`."""
    subject: str
    """As it stands within a sentence."""
    rest: str
    """Verb, what stays of the object, and the preposition that is asked after."""
    base: str
    """The verb's base; of a passive its participle."""
    end: str
    """What is asked for, as the statement says it."""


def in_other_words(asked: AskedClause) -> list[str]:
    """Questions with the same answer, each once; none where no rule fits."""
    made = [as_question(text) for rule in _RULES for text in rule(asked)]
    return list(dict.fromkeys(made))


def ordered(asked: AskedClause, word: str, subject: str) -> str:
    """As English asks: `where does the old mill stand`."""
    return " ".join(part for part in (word, asked.helper, subject, asked.rest) if part)


def as_question(text: str) -> str:
    return f"{text[:1].upper()}{text[1:]}?"


def _by_owner(asked: AskedClause) -> Iterator[str]:
    """`the flag of Orvelin` is `Orvelin's flag`, and `the island of Orvelin` just `Orvelin`."""
    short = _owned(asked.subject)
    if short:
        yield ordered(asked, asked.word, short)


def _by_kind_of_time(asked: AskedClause) -> Iterator[str]:
    if asked.word == "when":
        for kind, pattern in _TIMES.items():
            if pattern.search(asked.end):
                yield ordered(asked, kind, asked.subject)
                return


def _by_place(asked: AskedClause) -> Iterator[str]:
    if asked.word == "where":
        if asked.base in ("lie", "stand"):
            yield f"where can one find {asked.subject}"
        elif asked.base in ("live", "work"):
            yield f"at which place {asked.helper} {asked.subject} {asked.rest}"
        elif asked.rest.endswith((" from", " to")):
            yield ordered(asked, "which place", asked.subject)
        else:
            yield ordered(asked, f"{asked.end.split(' ')[0]} which place", asked.subject)


def _by_doer(asked: AskedClause) -> Iterator[str]:
    """`was built by` is `built`."""
    if asked.rest.endswith(" by") and asked.word == "who":
        past = _PAST_OF.get(asked.base, asked.base)
        yield f"who {past} {asked.subject}"
        yield f"which person {past} {asked.subject}"


def _by_name(asked: AskedClause) -> Iterator[str]:
    if asked.base in ("called", "named"):
        short = _owned(asked.subject)
        yield f"what name does {asked.subject} have"
        yield f"what is {short or asked.subject} known as"


def _by_amount(asked: AskedClause) -> Iterator[str]:
    if not asked.word.startswith("how many "):
        return
    things = asked.word.removeprefix("how many ")
    if asked.base == "cost":
        yield f"how much does {asked.subject} cost"
        yield f"how much is {asked.subject}"
    elif asked.base == "have":
        yield f"what is the number of {things} of {asked.subject}"
        if things in ("inhabitants", "residents"):
            yield f"how many people live in {_owned(asked.subject) or asked.subject}"
    else:
        yield f"what number of {things} {asked.helper} {asked.subject} {asked.rest}"


def _by_role(asked: AskedClause) -> Iterator[str]:
    """Of `The mayor is Ines Calder.` and of `Ines Calder is the mayor.`, its other side."""
    if asked.word != "who" or asked.rest:
        return
    if asked.subject.startswith("the "):
        yield f"which person is {asked.subject}"
        yield f"who works as {asked.subject}"
    elif asked.end.startswith("the "):
        yield f"what does {asked.subject} do for a living"
        yield f"what is {_possessive(asked.subject)} job"


def _by_thing(asked: AskedClause) -> Iterator[str]:
    """`What does he ride?` is `What is it that he rides?`."""
    if asked.word == "what" and asked.helper == "does" and asked.rest == asked.base:
        yield f"which thing does {asked.subject} {asked.base}"
    if asked.word == "what" and asked.base == "made" and asked.rest == "made of":
        yield f"which material is {asked.subject} made of"


_RULES = (
    *(_by_doer, _by_name, _by_amount, _by_role),
    *(_by_kind_of_time, _by_place, _by_owner, _by_thing),
)


def _owned(subject: str) -> str:
    """`Orvelin's flag` of `the flag of Orvelin`; empty where nobody owns anything."""
    found = re.fullmatch(r"the (?P<thing>[\w -]+?) of (?P<owner>[A-Z]\w*(?: [A-Z]\w*)*)", subject)
    if found is None or " of " in found["thing"]:
        return ""
    if found["thing"] in _KINDS:
        return found["owner"]
    return f"{_possessive(found['owner'])} {found['thing']}"


def _possessive(name: str) -> str:
    return f"{name}'s"


_TIMES = {
    "in which year": re.compile(r"\b\d{4}\b"),
    "on which day of the week": re.compile(r"days?\b"),
    "at what time of day": re.compile(r"o'clock|noon|midnight|morning|evening|night"),
    "in which season": re.compile(r"spring|summer|autumn|winter"),
    "in which month": re.compile(r"[A-Z]"),
}
"""The first that the answer fits; a month alone is what is left with a capital."""
_PAST_OF = {
    "written": "wrote", "sung": "sang", "worn": "wore", "given": "gave", "taken": "took",
    "drawn": "drew", "known": "knew", "grown": "grew", "run": "ran",
}  # fmt: skip
_KINDS = frozenset(
    {
        *("island", "city", "town", "village", "state", "country", "kingdom", "republic"),
        *("province", "county", "district", "region"),
    }
)
"""`the island of Orvelin` is Orvelin itself."""
