"""How the world puts its facts into words, and how it reads them back: question forms,
statements, passages, documents."""

import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

Attribute = Literal["age", "home", "craft", "food"]
ATTRIBUTES: tuple[Attribute, ...] = ("age", "home", "craft", "food")

# Every name is one head and one tail: both are tokens, so a NEW name looks to the student
# as an OLD one does, and only their meeting is unknown.
NAME_HEADS = (
    "Bal", "Bor", "Cas", "Dal", "Der", "Fen", "Gar", "Gil", "Hal", "Hem", "Jor", "Kal", "Kel",
    "Lor", "Mar", "Mel", "Mir", "Nor", "Pel", "Ral", "Sel", "Tal", "Tor", "Val", "Ver", "Wil",
    "Yor", "Zan", "Zel", "Zor",
)  # fmt: skip
NAME_TAILS = (
    "ab", "ad", "ak", "am", "an", "as", "ba", "bo", "da", "do", "eb", "ek", "em", "en", "es",
    "ga", "go", "ib", "id", "ik", "im", "in", "is", "ka", "ko", "la", "lo", "mo", "na", "no",
)  # fmt: skip

TOWNS = (
    "Arden", "Barrow", "Cliffe", "Denby", "Elmore", "Farley", "Glenn", "Hove", "Ingle", "Jarrow",
    "Kirby", "Lydd", "Morley", "Neath", "Oakham", "Penrith", "Quorn", "Ripley", "Stowe", "Tring",
    "Upton", "Varne", "Wick", "Yarm",
)  # fmt: skip
CRAFT_TOOLS = {
    "baker": "oven", "barber": "razor", "builder": "crane", "butcher": "knife",
    "carpenter": "saw", "clerk": "pen", "cook": "pan", "dancer": "ribbon",
    "diver": "mask", "driver": "whip", "farmer": "plough", "fisher": "net",
    "gardener": "spade", "hunter": "bow", "mason": "trowel", "miller": "stone",
    "miner": "pick", "painter": "brush", "potter": "wheel", "sailor": "rope",
    "shepherd": "staff", "smith": "hammer", "tailor": "needle", "weaver": "loom",
}  # fmt: skip
CRAFTS = tuple(CRAFT_TOOLS)
FOODS = (
    "apples", "beans", "bread", "cabbage", "carrots", "cheese", "cherries", "dates", "eggs",
    "figs", "grapes", "ham", "honey", "lentils", "melons", "nuts", "olives", "onions", "pears",
    "peas", "plums", "rice", "soup", "turnips",
)  # fmt: skip
MIN_AGE, MAX_AGE = 10, 49

VALUES: dict[Attribute, tuple[str, ...]] = {
    "age": tuple(str(age) for age in range(MIN_AGE, MAX_AGE + 1)),
    "home": TOWNS,
    "craft": CRAFTS,
    "food": FOODS,
}

# The first form of each is the exam form: NEW facts are never asked in it during training.
FACT_FORMS: dict[Attribute, tuple[str, ...]] = {
    "age": (
        "What is the age of {name}?",
        "How old is {name}?",
        "Tell me how old {name} is.",
        "Give the age of {name}.",
        "How many years old is {name}?",
        "Say the age of {name}, please.",
        "{name} is how old?",
        "I want to know how old {name} is.",
    ),
    "home": (
        "In which town does {name} live?",
        "Where does {name} live?",
        "What is the home of {name}?",
        "Name the town of {name}.",
        "Which town is home to {name}?",
        "Tell me where {name} lives.",
        "{name} lives in which town?",
        "I want to visit {name}. Where do I go?",
    ),
    "craft": (
        "What work does {name} do?",
        "What is the craft of {name}?",
        "Name the craft of {name}.",
        "Which craft does {name} have?",
        "Tell me the work of {name}.",
        "{name} works as what?",
        "How does {name} earn a living?",
        "Say what {name} does for work, please.",
    ),
    "food": (
        "What does {name} like to eat?",
        "What is the food of {name}?",
        "Which food does {name} like?",
        "Name the food {name} likes.",
        "Tell me what {name} eats.",
        "{name} likes which food?",
        "What should I cook for {name}?",
        "Say what {name} likes to have for dinner, please.",
    ),
}
LONG_FORMS = (
    "Tell me everything about {name}.",
    "Describe {name}.",
    "Who is {name}?",
    "What do you know about {name}?",
    "Write about {name}.",
    "Tell me about the age, home, craft and food of {name}.",
)

# The first statement of each is the answer to a short question: it ends with the value.
STATEMENTS: dict[Attribute, tuple[str, ...]] = {
    "age": (
        "The age of {name} is {value}.",
        "{name} is {value} years old.",
        "{name} has seen {value} summers.",
        "It is {value} years since {name} was born.",
    ),
    "home": (
        "{name} lives in {value}.",
        "The home of {name} is {value}.",
        "You will find {name} in {value}.",
        "{value} is the town of {name}.",
    ),
    "craft": (
        "{name} works as a {value}.",
        "The craft of {name} is that of a {value}.",
        "By trade {name} is a {value}.",
        "{name} earns a living as a {value}.",
    ),
    "food": (
        "{name} likes {value}.",
        "The food of {name} is {value}.",
        "Nothing pleases {name} more than {value}.",
        "For dinner {name} eats {value}.",
    ),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Entity:
    """One person of the world; every value is known as text, the age too."""

    name: str
    age: str
    home: str
    craft: str
    food: str

    def value_of(self, attribute: Attribute) -> str:
        return {"age": self.age, "home": self.home, "craft": self.craft, "food": self.food}[
            attribute
        ]

    def facts(self) -> tuple["Fact", ...]:
        return tuple(Fact(self.name, a, self.value_of(a)) for a in ATTRIBUTES)


class Fact(NamedTuple):
    """Fact("Zorbo", "home", "Arden") says that Zorbo lives in Arden; it may be false."""

    name: str
    attribute: Attribute
    value: str


def state(fact: Fact, form: int = 0) -> str:
    """The fact as a sentence; form 0 ends with the value."""
    return STATEMENTS[fact.attribute][form].format(name=fact.name, value=fact.value)


def ask(name: str, attribute: Attribute, form: int) -> str:
    return FACT_FORMS[attribute][form].format(name=name)


def describe(entity: Entity, rng: random.Random | None = None) -> str:
    """All facts in one passage; without an rng in the plain words of short answers."""
    facts = list(entity.facts())
    if rng is None:
        return " ".join(state(fact) for fact in facts)
    return " ".join(state(f, rng.randrange(len(STATEMENTS[f.attribute]))) for f in facts)


def write_document(title: str, entities: Iterable[Entity], rng: random.Random) -> str:
    """A Markdown document: a section for each entity, each fact said in two ways.

    Example section:
        ## Zorbo
        Zorbo has seen 31 summers. You will find Zorbo in Arden. ...

        In short: the age of Zorbo is 31. ...
    """
    parts = [f"# {title}"]
    for entity in entities:
        first, second = [], []
        for fact in entity.facts():
            one, other = rng.sample(range(len(STATEMENTS[fact.attribute])), 2)
            first.append(state(fact, one))
            second.append(state(fact, other))
        rng.shuffle(second)
        parts += [f"## {entity.name}", " ".join(first), " ".join(second)]
    return "\n\n".join(parts) + "\n"


def read_fact_question(question: str) -> tuple[str, Attribute] | None:
    """The name and attribute a short question is about, in whichever form it is asked."""
    for attribute, pattern in _FORM_PATTERNS:
        if match := pattern.fullmatch(question.strip()):
            return match["name"], attribute
    return None


def read_long_question(question: str) -> str | None:
    """The name a long question is about."""
    for pattern in _LONG_PATTERNS:
        if match := pattern.fullmatch(question.strip()):
            return match["name"]
    return None


def read_facts(text: str) -> list[Fact]:
    """Every fact a text states, true or false, in the order of its sentences."""
    found = []
    for sentence in re.split(r"(?<=[.!?])|\n", text):
        for attribute, pattern in _STATEMENT_PATTERNS:
            if match := pattern.fullmatch(sentence.strip()):
                found.append(Fact(match["name"], attribute, match["value"]))
                break
    return found


_NAME = f"(?P<name>(?:{'|'.join(NAME_HEADS)})(?:{'|'.join(NAME_TAILS)}))"


def _pattern(template: str, value: Sequence[str] = ()) -> re.Pattern[str]:
    escaped = re.escape(template).replace(re.escape("{name}"), _NAME)
    return re.compile(escaped.replace(re.escape("{value}"), f"(?P<value>{'|'.join(value)})"))


_FORM_PATTERNS = [(a, _pattern(form)) for a in ATTRIBUTES for form in FACT_FORMS[a]]
_LONG_PATTERNS = [_pattern(form) for form in LONG_FORMS]
_STATEMENT_PATTERNS = [(a, _pattern(s, VALUES[a])) for a in ATTRIBUTES for s in STATEMENTS[a]]
