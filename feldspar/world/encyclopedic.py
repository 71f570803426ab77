"""Questions that the longer sentences of encyclopedias and manuals answer, from their form alone.

Rules and word lists, no model: a sentence that fits none of them gives no question. Sentences whose
subject is a pronoun give none either, since a question has to be clear on its own.
"""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from feldspar.world.sections import Block


class Clause(NamedTuple):
    """The main clause of a sentence, in three parts: "The sax" + "was" + "invented by Sax"."""

    subject: str
    verb: str
    rest: str


def ask_about(sentence: str, common: Collection[str] = ()) -> list[Block]:
    """Question-answer pairs of a sentence, each once; empty where it fits no rule.

    `common` are words that its document also writes in small letters: no names.
    """
    plain = _WITHOUT_BRACKETS.sub("", sentence).strip()
    made = list(_ask_there(plain))
    clause, time = _parse(plain, common)
    if clause is not None:
        if time:
            made += _ask_when(clause, time)
        for rule in _RULES:
            made += rule(clause, sentence)
    return [block for block in dict.fromkeys(made) if _is_askable(block)]


def with_subjects(sentences: Sequence[str]) -> list[str]:
    """The sentences, with "It" and "They" replaced by what the sentence before defines or names.

    Only while sentence follows sentence about the same thing: another subject ends it.
    """
    named, made = "", []
    for sentence in sentences:
        first, _, others = sentence.partition(" ")
        if first in ("It", "They") and named and others:
            made.append(f"{named} {others}")
            continue
        clause, _ = _parse(_WITHOUT_BRACKETS.sub("", sentence).strip(), ())
        subject = _capital(clause.subject) if clause else ""
        is_definition = clause and clause.verb in _BE and _IS_A.match(clause.rest)
        if subject != named:
            named = subject if is_definition else ""
        made.append(sentence)
    return made


def _parse(sentence: str, common: Collection[str]) -> tuple[Clause | None, str]:
    """The main clause, and the time that stands before it ("In 1841, ...")."""
    text = sentence.rstrip(".!? ")
    time = place = ""
    if fronted := _FRONTED.match(text):
        first = fronted[1] or fronted["year"]
        is_time = _TIME.fullmatch(_small(first)) is not None
        time, place = (first, "") if is_time else ("", f" {_small(first)}")
        text = _capital(text[fronted.end() :])
    found = _VERB.search(text)
    if found is None:
        return None, time
    subject, rest = text[: found.start()].strip(" ,"), text[found.end() :].strip()
    if not (_is_subject(subject) and rest):
        return None, time
    subject = _in_midsentence(subject, common)
    return Clause(subject, found[1], _CLAUSE_END.split(rest)[0].strip() + place), time


def _is_subject(text: str) -> bool:
    """Whether a text can be a noun phrase that means something on its own."""
    words = text.split()
    is_short = 1 <= len(words) <= _MAX_SUBJECT and text.count(",") != 1
    if not is_short or words[0][0].islower() or not words[0][0].isalnum():
        return False
    lower = [word.lower() for word in words]
    if lower[0] in _NO_SUBJECT or lower[-1] in _NO_END or _INNER.intersection(lower):
        return False
    if len(lower[0]) > len("king") and lower[0].endswith("ing"):
        return False
    if lower[0] in _DETERMINERS and len(words) <= 2 and words[-1] == lower[-1]:
        return False  # "The flowers": only the passage says whose.
    verbs = [
        i for i, word in enumerate(lower) if _ED.search(word) and (i == 0 or words[i].islower())
    ]
    if verbs == [0] and len(words) == 1:
        return False
    return all(i == 0 or lower[i - 1] in _DETERMINERS for i in verbs)


def _in_midsentence(subject: str, common: Collection[str]) -> str:
    first, _, others = subject.partition(" ")
    is_common = first.lower() in _DETERMINERS or first.lower() in common
    return f"{first.lower()} {others}".strip() if is_common else subject


def _ask_when(clause: Clause, time: str) -> Iterator[Block]:
    is_noun = _IS_A.match(clause.rest) and _ED.search(clause.rest)
    if clause.verb not in _AUXILIARIES or is_noun or not clause.rest:
        return
    if _TIME.search(clause.rest) or clause.rest.startswith("not "):
        return
    asked = ["When"] + ["In which year"] * bool(_IN_YEAR.fullmatch(time))
    for when in asked:
        yield Block(question=f"{when} {_inverted(clause)}?", answer=_capital(time))


def _ask_time(clause: Clause, sentence: str) -> Iterator[Block]:
    if found := _TIME.search(clause.rest):
        before, after = clause.rest[: found.start()], clause.rest[found.end() :]
        rest = f"{before.rstrip(' ,')} {after.lstrip(' ,')}".strip()
        yield from _ask_when(clause._replace(rest=rest), found[0])


def _ask_by_whom(clause: Clause, sentence: str) -> Iterator[Block]:
    found = _BY.match(clause.rest)
    if found is None or clause.verb not in _BE or not _ED.search(found["done"]):
        return
    doer, done = found["doer"], found["done"]
    first = doer.split()[0]
    is_doer = first[0].isupper() or first.lower() in _DETERMINERS
    if not is_doer or clause.rest[found.end() :].startswith(" and "):
        return  # One of several, or no one in particular.
    who = "Who" if first[0].isupper() else "What"
    asked = clause.rest[: found.start("by")].strip()
    yield Block(question=f"{who} {clause.verb} {clause.subject} {asked} by?", answer=_capital(doer))
    # The past tense of a regular verb is its participle: "was invented by Sax", "Sax invented".
    if clause.verb in ("was", "were") and asked == done and done.endswith("ed"):
        yield Block(question=f"{who} {done} {clause.subject}?", answer=_capital(doer))


def _ask_where(clause: Clause, sentence: str) -> Iterator[Block]:
    found = _PLACE.match(clause.rest)
    if found is None or clause.verb not in _BE:
        return
    state, word, place = found["state"], found["word"], found["place"]
    if _TIME.fullmatch(f"{word} {place}"):
        return
    end, answer = (" to", place) if word == "to" else ("", f"{word} {place}")
    question = f"Where {clause.verb} {clause.subject} {state}{end}?"
    yield Block(question=question, answer=_capital(answer))


def _ask_how_many(clause: Clause, sentence: str) -> Iterator[Block]:
    if clause.verb not in _HAVE:
        return
    found = _COUNTED.match(clause.rest)
    if found is None:
        return
    do, verb = _HAVE[clause.verb]
    asked = f"How many {found['noun']} {do} {clause.subject} {verb}?"
    yield Block(question=asked, answer=_capital(found["number"]))


def _ask_there(sentence: str) -> Iterator[Block]:
    if found := _THERE.match(sentence.rstrip(".!? ")):
        asked = f"How many {found['noun']} {found['verb']} there{found['place'] or ''}?"
        yield Block(question=asked, answer=_capital(found["number"]))


def _ask_size(clause: Clause, sentence: str) -> Iterator[Block]:
    found = _SIZE.match(clause.rest)
    if found and clause.verb in _BE:
        asked = f"How {found['quality']} {clause.verb} {clause.subject}?"
        yield Block(question=asked, answer=_capital(found["size"]))


def _ask_what(clause: Clause, sentence: str) -> Iterator[Block]:
    """What something is: the sentence answers; and what is said to be so: the subject answers."""
    if clause.verb in _BE and _IS_A.match(clause.rest):
        yield Block(question=f"What {clause.verb} {clause.subject}?", answer=sentence)


def _ask_name(clause: Clause, sentence: str) -> Iterator[Block]:
    found = _KNOWN_AS.search(clause.rest)
    if found and clause.verb in _BE and found.start() == 0:
        asked = f"What {clause.verb} {clause.subject} {found['how'].strip()}?"
        yield Block(question=asked, answer=_capital(found["name"]))


def _ask_subject(clause: Clause, sentence: str) -> Iterator[Block]:
    """What was invented by Sax?, where a common noun is the subject."""
    if clause.verb not in _BE or not _ED.search(clause.rest.split()[0]):
        return
    if clause.subject.split()[0].lower() in _DETERMINERS and len(clause.rest.split()) >= _MIN_WORDS:
        yield Block(question=f"What {clause.verb} {clause.rest}?", answer=_capital(clause.subject))


def _ask_complement(clause: Clause, sentence: str) -> Iterator[Block]:
    """What something is made of, used for, similar to: the words after the preposition answer."""
    found = _COMPLEMENT.match(clause.rest)
    if found is None or _PLACE.match(clause.rest) or _TIME.search(clause.rest):
        return
    is_passive = clause.verb in _BE and not found["be"]
    if not is_passive and not (clause.verb in _MODALS and found["be"]):
        return
    word, after = found["word"], found["object"].split()[0]
    # "Expected to remain" is no complement, "related to the sax" is.
    is_participle = _ED.search(word) and found["preposition"] != "to"
    if not (is_participle or word in _ADJECTIVES) or after in _NO_SUBJECT - _PRONOUNS:
        return
    be = "be " if found["be"] else ""
    asked = f"What {clause.verb} {clause.subject} {be}{found['word']} {found['preposition']}?"
    yield Block(question=asked, answer=_capital(found["object"]))


def _ask_object(clause: Clause, sentence: str) -> Iterator[Block]:
    """What urushiol can cause."""
    found = _OBJECT.match(clause.rest)
    if found is None or found["object"].split()[0] in _NO_SUBJECT - _PRONOUNS:
        return
    if clause.verb in _MODALS and found["word"] not in _NO_ACTION:
        asked = f"What {clause.verb} {clause.subject} {found['word']}?"
        yield Block(question=asked, answer=_capital(found["object"]))


def _ask_why(clause: Clause, sentence: str) -> Iterator[Block]:
    before, because, reason = sentence.rstrip(".!? ").partition(" because ")
    left = clause.rest.partition(" because ")[0]
    if because and clause.verb in _AUXILIARIES and not reason.startswith("of ") and left in before:
        asked = f"Why {_inverted(clause._replace(rest=left))}?"
        yield Block(question=asked, answer=f"Because {reason}.")


_RULES: tuple[Callable[[Clause, str], Iterator[Block]], ...] = (
    _ask_what,
    _ask_by_whom,
    _ask_time,
    _ask_where,
    _ask_how_many,
    _ask_size,
    _ask_complement,
    _ask_object,
    _ask_name,
    _ask_why,
    _ask_subject,
)


def _inverted(clause: Clause) -> str:
    return f"{clause.verb} {clause.subject} {clause.rest}".strip()


def _small(text: str) -> str:
    return text[:1].lower() + text[1:]


def _capital(text: str) -> str:
    return text[:1].upper() + text[1:]


def _is_askable(block: Block) -> bool:
    """Not too long to be asked, and no word of it that only its passage explains."""
    words = block.question.rstrip("?").split()
    lower = {word.strip(",;").lower() for word in words}
    return (
        3 <= len(words) <= _MAX_QUESTION
        and len(block.answer) > 0
        and not lower & _NEEDS_PASSAGE
        and words[-1].lower() not in _NO_LAST
        and block.question.count('"') % 2 == 0
    )


def _words(text: str) -> frozenset[str]:
    return frozenset(text.split())


_MIN_WORDS, _MAX_SUBJECT, _MAX_QUESTION = 4, 9, 25
_WITHOUT_BRACKETS = re.compile(r"\s*\([^()]*\)|\s*\[[^\[\]]*\]")
_BE = frozenset({"is", "are", "was", "were"})
_HAVE = {
    "has": ("does", "have"),
    "have": ("do", "have"),
    "had": ("did", "have"),
    "contains": ("does", "contain"),
    "contain": ("do", "contain"),
    "includes": ("does", "include"),
    "consists of": ("does", "consist of"),
    "consist of": ("do", "consist of"),
    "comprises": ("does", "comprise"),
    "weighs": ("does", "weigh"),
}
_MODALS = frozenset({"can", "could", "may", "might", "must", "will", "would", "should"})
_AUXILIARIES = _BE | _MODALS
_VERB = re.compile(
    rf"(?<=\s)({'|'.join(sorted(map(re.escape, _AUXILIARIES | set(_HAVE)), key=len)[::-1])})(?=\s)"
)
_ED = re.compile(r"\w{2}(?:ed|[aeiou]wn|ught|itten|orn|oken|ound|aken|ilt|iven|uilt|ade|old)\b")
_DETERMINERS = frozenset({"the", "a", "an"})
_QUANTIFIERS = frozenset({"most", "many", "some", "all", "both", "several", "few", "each", "every"})
_PRONOUNS = _words(
    "it its he she they them his her their we our you your i my this these those that such"
)
_NO_SUBJECT = (
    _PRONOUNS
    | _QUANTIFIERS
    | _words(
        "in on at by to of for from with as if when while where after before because since "
        "although though however there here then thus also but and or so not no another other "
        "others one both either neither what which who whose how why during until under over "
        "between among through due unlike like despite according until once only instead together "
        "currently today later first second finally additionally often sometimes usually whereas"
    )
)
_NO_END = _words("and or but of in on at by to for from with as that which who also")
_INNER = _words("that which who whom whose because although while but when if where")
_NEEDS_PASSAGE = _words(
    "it its he she they them his her their this these those such former latter following above "
    "below here we our us"
)
_NO_LAST = _words("a an the and or of in on at for from with as that which also its")
_CLAUSE_END = re.compile(
    r"[;:\u2013\u2014]|, (?:which|who|whose|where|when|while|but|although|though|because|since|so|"
    r"and|or|with|including|such|making|giving|as|particularly|especially)\b"
    r"| (?:but|although|though|while|whereas|when|which|who) "
    r"| and (?:is|are|was|were|has|have|had|can) "
)
_MONTH = "(?:January|February|March|April|May|June|July|August|September|October|November|December)"
_YEAR = r"(?:1[0-9]|20)\d\d"
_TIME_TEXT = (
    rf"(?:on (?:the )?\d{{1,2}}(?:st|nd|rd|th)? {_MONTH}(?: {_YEAR})?"
    rf"|on {_MONTH} \d{{1,2}}(?:, {_YEAR})?"
    rf"|(?:in|since|until|around|by) (?:the )?(?:early |late |mid-)?(?:{_MONTH} )?{_YEAR}s?"
    rf"|from {_YEAR} (?:to|until) {_YEAR}|between {_YEAR} and {_YEAR}|in {_MONTH}"
    r"|in the (?:early |late |mid-)?\d{1,2}(?:st|nd|rd|th) century)(?![\w-])"
)
_TIME = re.compile(rf"\b{_TIME_TEXT}")
_FRONTED = re.compile(
    r"((?:In|On|At|During|Since|Until|From|Throughout) [^,]{3,40}), (?=[A-Za-z])"
    rf"|(?P<year>(?:In|Since|From) {_YEAR}) (?=the |an? |[A-Z])"
)
_BY = re.compile(
    r"(?:\w+ly )?(?P<done>\w+)(?: [^,]{1,60}?)? (?P<by>by) (?P<doer>[^,;]{2,80}?)"
    rf"(?=$|,|;| (?:and|but|as|that|which|who|for|to|with|after|during|because)\b| {_TIME_TEXT})"
)
_IN_YEAR = re.compile(rf"in {_YEAR}", re.IGNORECASE)
_PLACE = re.compile(
    r"(?P<state>(?:\w+ly )?(?:located|situated|found|native|endemic|based|headquartered|grown|"
    r"cultivated|widespread|distributed|held|mined|produced|visible)) "
    r"(?P<word>in|to|on|at|near|throughout|along|across|from|within) (?P<place>[^,;]+)$"
)
_NUMBER = (
    r"(?:about |approximately |around |over |nearly |almost |more than |at least |up to )?"
    r"(?:\d[\d,.]*(?: (?:million|billion|thousand))?|two|three|four|five|six|seven|eight|nine|ten|"
    r"eleven|twelve|thirteen|fourteen|fifteen|sixteen|twenty|thirty|forty|fifty|hundred)"
)
_COUNTED = re.compile(
    rf"(?P<number>{_NUMBER})(?: (?:different|distinct|main|known))? "
    r"(?P<noun>[a-z][\w-]*s|[a-z]+ [a-z][\w-]*s|[a-z]+ [a-z]+ [a-z][\w-]*s|people|species)"
    r"(?=$|,| (?:in|of|on|and|that|which|with|per|for|at|from|across)\b)"
)
_THERE = re.compile(
    rf"There (?P<verb>are|were) (?:currently |only )?(?P<number>{_NUMBER}) "
    r"(?P<noun>[a-z][\w -]{2,40}?)(?P<place> (?:in|on|at) [^,;]{3,50})?$"
)
_SIZE = re.compile(
    rf"(?P<size>{_NUMBER}(?:[ -](?:to|and|\u2013) ?{_NUMBER})? \w+) "
    r"(?P<quality>long|tall|high|wide|deep|old|thick|heavy|across)\b"
)
_COMPLEMENT = re.compile(
    r"(?P<be>be )?(?:(?:\w+ly|also|often|sometimes|still|now) )?(?P<word>[a-z]{4,}) "
    r"(?P<preposition>of|from|for|as|with|after|to|into|on|in|against|through) "
    r"(?P<object>[^,;]{3,80})$"
)
_OBJECT = re.compile(r"(?P<word>[a-z]{3,}) (?P<object>(?:an?|the|[a-z]+) [^,;]{3,80})$")
_ADJECTIVES = _words(
    "similar related known famous responsible capable rich subject toxic available common "
    "identical equal equivalent different distinct dependent visible important essential useful "
    "native close adjacent linked attached limited restricted added exposed open free "
    "characteristic typical allergic sensitive resistant vulnerable"
)
_NO_ACTION = _words(
    "be have not also only then been still often never become remain last seek appear stay go come "
    "act move serve live grow occur retire help"
)
_IS_A = re.compile(r"(?:also |usually |generally )?(?:an?|the|one of|any|part of) \w+")
_KNOWN_AS = re.compile(
    r"(?P<how>(?:(?:also|commonly|sometimes|often|formerly|widely|better) )?(?:known as|called)) "
    r"(?P<name>[^,;]{3,60})$"
)
