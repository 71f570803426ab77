"""Questions out of the structure of plain English sentences: who, what, when, where, how many.

Rules and a list of verbs, no knowledge of language: a sentence that the rules cannot read gives no
question. `The lighthouse was built in 1871 by Hanne Torvik.` gives "When was the lighthouse built?"
and "Who was the lighthouse built by?", each with the statement that ends with what was asked.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise, zip_longest
from typing import NamedTuple

from feldspar.world.rewording import AskedClause, as_question, in_other_words, ordered


class Asked(NamedTuple):
    """One fact of a sentence, asked in several forms; the answer ends with what is asked."""

    questions: tuple[str, ...]
    answer: str


def ask_about(sentence: str) -> list[Asked]:
    """What can be asked about a sentence; empty where the rules do not read it.

    >>> [asked.questions[0] for asked in ask_about("The old mill grinds barley.")]
    ['What does the old mill grind?']
    """
    parsed = _parse(sentence)
    if parsed is None:
        return []
    turned = _turned(parsed)
    asked = [_in_forms(parsed, wanted) for wanted in _wanted(parsed)]
    return asked + [_in_forms(turned, wanted) for wanted in _wanted(turned)] if turned else asked


def subjects_of(sentence: str) -> list[str]:
    """Who or what a sentence is about, within a question; empty where the rules do not read it.

    >>> subjects_of("The mayor of Orvelin is Ines Calder.")
    ['the mayor of Orvelin', 'Ines Calder']
    """
    parsed = _parse(sentence)
    found = [] if parsed is None else [parsed, _turned(parsed)]
    return [_inside(clause.subject) for clause in found if clause is not None]


class _Clause(NamedTuple):
    """`The lighthouse | was | built | (nothing) | in 1871, by Hanne Torvik`."""

    subject: str
    verb: str
    """The verb that is inflected: `was`, `has`, `grinds`."""
    participle: str
    """`built`, of `was built`; else empty."""
    object: str
    """What follows the verb before any preposition."""
    phrases: tuple[str, ...]
    """What prepositions begin: `in 1871`, `by Hanne Torvik`."""


class _Gap(NamedTuple):
    """What is asked: `when`, after which preposition, and the end of the answer."""

    word: str
    after: str
    """A preposition that stays at the end of the question: `does the ferry leave from`."""
    end: str
    left: str
    """What of the object stays in the question."""


def _parse(sentence: str) -> _Clause | None:
    text = sentence.strip()
    if not re.fullmatch(r"[A-Z][^,;:()\"?!\[\]\n]{8,160}\.", text):
        return None
    words = text[:-1].split(" ")
    place = next((i for i in range(1, len(words)) if words[i] in _VERBS), None)
    if place is None or place > _MAX_SUBJECT or place == len(words) - 1:
        return None
    subject = words[:place]
    if subject[0] in _NO_SUBJECTS or subject[0].lower() in _VERBS:
        return None
    if not (subject[0] in _ARTICLES or _is_name(subject)):
        return None
    verb, rest = words[place], words[place + 1 :]
    if _GOES_ON.intersection(subject + rest) or any(word in _VERBS for word in rest[1:]):
        return None
    if verb in _BE and _is_participle(rest[0]):
        clause = _Clause(" ".join(subject), verb, rest[0], *_split(rest[1:]))
    else:
        clause = _Clause(" ".join(subject), verb, "", *_split(rest))
    return clause if _is_plain(clause) else None


def _is_plain(clause: _Clause) -> bool:
    """Whether the rules may be trusted: one thing or name after the verb, few phrases."""
    first = clause.object.split(" ")[0]
    is_bare = clause.subject.split(" ")[0] not in _ARTICLES
    if len(clause.phrases) > 2 or (is_bare and clause.verb in ("are", "were")):
        return False
    if clause.participle:
        is_named = clause.participle in ("called", "named") or first == "of"
        return is_named if clause.object else bool(clause.phrases)
    if clause.verb in _BE and clause.object:
        is_known = first in ("a", "an", "the") or _is_name(clause.object.split(" "))
        return (
            is_known or re.fullmatch(r"(?!\w+ly |first )[\w-]+ [\w-]+", clause.object) is not None
        )
    return bool(clause.object or clause.phrases) and not _is_participle(first)


def _turned(clause: _Clause) -> _Clause | None:
    """`The mayor is Ines Calder.` as `Ines Calder is the mayor.`; None for other sentences."""
    is_role = clause.subject.split(" ")[0] == "The" and _is_role(clause.subject)
    is_person = _is_person(clause.object) and clause.verb == "is" and not clause.participle
    if not (is_role and is_person) or clause.phrases:
        return None
    return clause._replace(subject=clause.object, object=_inside(clause.subject))


def _split(words: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """The object, and the phrases after it. `of` goes on with what stands before it."""
    starts = [i for i, word in enumerate(words) if word in _PREPOSITIONS]
    bounds = [*starts, len(words)]
    phrases = [" ".join(words[a:b]) for a, b in pairwise(bounds)]
    return " ".join(words[: bounds[0]]), tuple(phrases)


def _wanted(clause: _Clause) -> Iterator[_Gap]:
    if clause.verb in _BE and not clause.participle and clause.object:
        roles = (clause.subject, clause.object)
        people = (clause.object, clause.subject)
        is_who = any(_is_person(p) and _is_role(r) for p, r in zip(people, roles, strict=True))
        whole = _joined(clause.object, *clause.phrases)
        yield _Gap("who" if is_who else "what", "", whole, "")
        return
    if clause.object.startswith("of "):
        yield _Gap("what", "of", clause.object, "")
        return
    if clause.object and (number := _NUMBER.fullmatch(clause.object)):
        yield _Gap(f"how many {number[2]}", "", clause.object, "")
    elif clause.object:
        yield _Gap("what", "", clause.object, "")
    for place, phrase in enumerate(clause.phrases):
        preposition, _, rest = phrase.partition(" ")
        if not rest:
            continue
        if _TIME.fullmatch(rest) and preposition in ("in", "on", "at"):
            left = [p for p in clause.phrases[:place] if p.split(" ")[0] in _DIRECTIONS]
            yield _Gap("when", "", phrase, _joined(clause.object, *left))
        elif preposition == "by" and clause.participle:
            yield _Gap("who" if _is_name(rest.split(" ")) else "what", "by", phrase, "")
        elif preposition == "by" or (preposition in _PLACES and not _may_be_place(clause, phrase)):
            continue
        elif preposition in _PLACES:
            yield _Gap("where", _PLACES[preposition], phrase, clause.object)
        else:
            yield _Gap("what", preposition, phrase, clause.object)


def _may_be_place(clause: _Clause, phrase: str) -> bool:
    """`to` and `from` are of places after verbs of going; `on` and `in` where a place is named."""
    preposition, _, rest = phrase.partition(" ")
    if preposition in ("to", "from"):
        return not clause.participle and _VERBS[clause.verb][1] in _GOING
    return rest.split(" ")[0] in ("the", "a", "an") or rest[:1].isupper()


def _in_forms(clause: _Clause, wanted: _Gap) -> Asked:
    subject = _inside(clause.subject)
    stays = " ".join(part for part in (clause.participle, wanted.left) if part)
    asked = _question(clause, wanted, subject, stays)
    told = _joined(wanted.word, subject, clause.verb, stays, wanted.after)
    echo = _joined(clause.subject, clause.verb, stays, wanted.after, wanted.word)
    framed = [
        f"Tell me {told}.",
        f"Do you know {told}?",
        f"{echo}?",
        f"I would like to know {told}.",
        f"Please say {told}.",
    ]
    if clause.verb in _BE and not clause.participle and wanted.word in ("who", "what"):
        framed[1:1] = [f"Name {subject}."] if clause.subject.startswith("The ") else []
    others = in_other_words(asked)
    turns = zip_longest(others, framed)
    forms = [
        as_question(ordered(asked, asked.word, subject)),
        *(form for turn in turns for form in turn if form),
    ]
    answer = _joined(clause.subject, clause.verb, clause.participle, wanted.left, wanted.end)
    return Asked(tuple(dict.fromkeys(forms)), f"{answer}.")


def _question(clause: _Clause, wanted: _Gap, subject: str, stays: str) -> AskedClause:
    helper, base = (clause.verb, "") if clause.verb in _BE else _VERBS[clause.verb]
    rest = _joined(base, stays, wanted.after)
    return AskedClause(wanted.word, helper, subject, rest, base or clause.participle, wanted.end)


def _joined(*parts: str) -> str:
    return " ".join(part for part in parts if part)


def _inside(subject: str) -> str:
    """As it stands within a sentence: `The mill` is `the mill`."""
    first, _, rest = subject.partition(" ")
    return f"{first.lower()} {rest}" if first in _ARTICLES else subject


def _is_name(words: Sequence[str]) -> bool:
    """Whether every word but small ones is written with a capital."""
    large = [word for word in words if word not in _SMALL]
    return bool(large) and all(word[:1].isupper() for word in large)


def _is_person(text: str) -> bool:
    """Two names or more and no article: `Ines Calder`."""
    words = text.split(" ")
    return len(words) > 1 and words[0] not in (*_ARTICLES, "the") and _is_name(words)


def _is_role(subject: str) -> bool:
    """`The mayor of Orvelin`: a word for people, by its ending or from a list."""
    head = subject.split(" of ")[0].split(" ")[-1]
    return head in _PEOPLE or head.endswith(_PEOPLE_ENDINGS)


def _is_participle(word: str) -> bool:
    return word in _PARTICIPLES or (word.endswith("ed") and len(word) > 3)


def _words(*lines: str) -> frozenset[str]:
    return frozenset(word for line in lines for word in line.split())


_MAX_SUBJECT = 9
_ARTICLES = ("The", "A", "An")
_NO_SUBJECTS = ("He", "She", "It", "They", "This", "These", "That", "There", "We", "You", "I")
_GOING = ("come", "flow", "leave", "run", "ride", "lead", "go", "move", "travel", "sail")
_GOES_ON = _words(
    "and but or that which who whose when where while as than if because although though also",
    "not very up out be been being has have had can could may might must will would",
)
"""Words that make a sentence more than one plain clause."""
_DIRECTIONS = ("from", "to", "into", "through", "over")
_BE = ("is", "are", "was", "were")
_SMALL = ("of", "the", "de", "van", "von")
_PREPOSITIONS = _words(
    "in on at by from to with for under near into over behind beside through between"
)
_PLACES = {
    **dict.fromkeys(("in", "on", "at", "under", "near", "over", "behind", "beside"), ""),
    "from": "from",
    "to": "to",
}
"""Prepositions that `where` asks for, and what stays of them at the question's end."""
_NUMBER = re.compile(
    r"(\d[\d,]*|two|three|four|five|six|seven|eight|nine|ten|eleven|twelve|twenty) ([a-z ]+)"
)
_MONTHS = "January|February|March|April|May|June|July|August|September|October|November|December"
_DAYS = "Monday|Tuesday|Wednesday|Thursday|Friday|Saturday|Sunday"
_TIME = re.compile(
    rf"(?:the )?(?:\d{{3,4}}s?|(?:{_MONTHS})(?: \d+)?|\d+ (?:{_MONTHS})(?: \d+)?|(?:{_DAYS})s?"
    r"|spring|summer|autumn|winter|morning|evening|noon|midnight|night|[a-z]+ o'clock)"
)
_PEOPLE_ENDINGS = ("er", "or", "ist", "man", "woman", "ian")
_PEOPLE = _words("captain king queen smith mayor cook judge priest pilot nurse guard chief head")
_VERB_BASES = _words(
    "play open close live work sell collect paint grind lie stand flow leave take cost show bake",
    "sing ride make keep grow hold begin end run come have carry eat drink teach write lead own",
    "serve visit produce contain form use need go move travel sail join reach cover sleep wear",
    "build found repair win",
)
_PAST = _words(
    "went:go came:come took:take stood:stand lay:lie left:leave began:begin held:hold ran:run",
    "won:win had:have wrote:write led:lead built:build made:make kept:keep grew:grow sold:sell",
    "taught:teach ate:eat sang:sing rode:ride drank:drink slept:sleep wore:wear ground:grind",
)
_PARTICIPLES = _words(
    "built held born made called named found known written sold drawn taken given led kept grown",
    "won lost run sung worn set cut",
)


def _third(base: str) -> str:
    if base == "have":
        return "has"
    if base.endswith(("s", "sh", "ch", "x", "o")):
        return f"{base}es"
    return f"{base[:-1]}ies" if base[-1] == "y" and base[-2] not in "aeiou" else f"{base}s"


def _regular_past(base: str) -> str:
    if base.endswith("e"):
        return f"{base}d"
    return f"{base[:-1]}ied" if base[-1] == "y" and base[-2] not in "aeiou" else f"{base}ed"


def _verbs() -> dict[str, tuple[str, str]]:
    """Inflected verb -> the helper that asks with it, and its base: `grinds` -> does, grind."""
    irregular = dict(pair.split(":") for pair in _PAST)
    found = {verb: ("", verb) for verb in _BE}
    for base in sorted(_VERB_BASES):
        found[_third(base)] = ("does", base)
        if base not in irregular.values():
            found.setdefault(_regular_past(base), ("did", base))
    return {**found, **{past: ("did", base) for past, base in irregular.items()}}


_VERBS = _verbs()
