"""What the world can do with numbers and facts: foundational skills, which need no fact, and
compositional ones, which need a stored (or shown) fact and a skill together."""

import random
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal, NamedTuple

from feldspar.world.prose import CRAFT_TOOLS, MAX_AGE, MIN_AGE, Entity, Fact, state

Branch = Literal["knowledge", "foundational", "compositional"]
MAX_STEP = 6
"""The largest number added to, or taken from, an age."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Solution:
    """A question of the world with its true answer.

    Example: "How old will Zorbo be in 3 years?" has the answer
    "The age of Zorbo is 31. 31 + 3 = 34." and the final "34".
    """

    question: str
    answer: str
    final: str
    """What a right answer ends with; empty where the whole passage counts."""
    branch: Branch
    kind: str
    context: str = ""
    facts: tuple[Fact, ...] = ()
    """What the answer rests on."""


class FoundationalSkill(NamedTuple):
    """`forms` hold the operands in braces; `answer` gives (answer, final) for the operands."""

    forms: tuple[str, ...]
    draw: Callable[[random.Random], tuple[str, ...]]
    answer: Callable[[tuple[str, ...]], tuple[str, str]]


def draw_foundational(kind: str, rng: random.Random, held_out: bool) -> Solution:
    """A question of a skill; operands are either held out for the exam or open for training."""
    skill = FOUNDATIONAL[kind]
    operands = skill.draw(rng)
    # Tools are a table: one kept out of training could not be known, so any may be asked.
    while kind != "tool" and is_held_out(kind, operands) != held_out:
        operands = skill.draw(rng)
    return _solve_foundational(kind, rng.choice(skill.forms).format(*operands), operands)


def read_foundational(question: str) -> Solution | None:
    """The solution of a foundational question, in whichever form it is asked."""
    for kind, pattern in _PATTERNS:
        if match := pattern.fullmatch(question.strip()):
            return _solve_foundational(kind, question.strip(), match.groups())
    return None


def is_held_out(kind: str, operands: tuple[str, ...]) -> bool:
    """Whether these operands are asked in exams only: a fixed fifth of them, by checksum."""
    return zlib.crc32(" ".join((kind, *operands)).encode()) % 5 == 0


def compose(kind: str, names: tuple[str, ...], step: str, known: Mapping[str, Entity]) -> Solution:
    """A compositional question about known entities: the facts first, then the result."""
    people = [known[name] for name in names]
    question = COMPOSITIONAL[kind][0].format(*names, step=step)
    return _solve_compositional(kind, question, tuple(people), step)


def draw_composition(
    kind: str, names: list[str], known: Mapping[str, Entity], rng: random.Random
) -> Solution:
    """A question about some of the names, in one of its forms. Raises ValueError where it takes two
    of different age and there are none."""
    num_people = 2 if "{1}" in COMPOSITIONAL[kind][0] else 1
    if num_people == 2 and len({known[name].age for name in names}) == 1:
        raise ValueError(f"all {len(names)} are of one age")
    chosen = rng.sample(names, num_people)
    while len(chosen) == 2 and known[chosen[0]].age == known[chosen[1]].age:
        chosen = rng.sample(names, 2)
    step = str(rng.randint(1, MAX_STEP))
    question = rng.choice(COMPOSITIONAL[kind]).format(*chosen, step=step)
    return _solve_compositional(kind, question, tuple(known[name] for name in chosen), step)


def read_composition(question: str, known: Mapping[str, Entity]) -> Solution | None:
    """The solution of a compositional question, unless it names someone not known."""
    for kind, pattern in _COMPOSITION_PATTERNS:
        match = pattern.fullmatch(question.strip())
        if match is None:
            continue
        groups = match.groupdict()
        names = [groups[key] for key in ("p0", "p1") if key in groups]
        if any(name not in known for name in names):
            return None
        people = [known[name] for name in names]
        if len(people) == 2 and people[0].age == people[1].age:
            return None
        step = groups.get("step", "")
        return _solve_compositional(kind, question.strip(), tuple(people), step)
    return None


def draw_grounded(rng: random.Random, held_out: bool) -> Solution:
    """A sum over a shown context: "Basket: 12 figs, 5 pears, 7 nuts." """
    goods = rng.sample(GOODS, 3)
    counts = [rng.randint(MIN_AGE, MAX_AGE)] + [rng.randint(1, MAX_STEP) for _ in goods[1:]]
    rng.shuffle(counts)
    context = "Basket: " + ", ".join(f"{n} {g}" for n, g in zip(counts, goods, strict=True)) + "."
    wanted = rng.choice(goods)
    solution = read_grounded(GROUNDED_FORM.format(wanted), context)
    assert solution is not None, context
    if (zlib.crc32(context.encode()) % 5 == 0) != held_out:
        return draw_grounded(rng, held_out)
    return solution


def read_grounded(question: str, context: str) -> Solution | None:
    match = _GROUNDED_PATTERN.fullmatch(question.strip())
    if match is None:
        return None
    counts = dict(_pairs(context))
    if match[1] not in counts:
        return None
    final = counts[match[1]]
    return Solution(
        question=question.strip(),
        context=context,
        answer=f"The number of {match[1]} is {final}.",
        final=final,
        branch="compositional",
        kind="grounded",
    )


def equations_hold(text: str) -> bool:
    """Whether every sum or difference written out in a text is right."""
    return all(
        int(a) + (int(b) if sign == "+" else -int(b)) == int(c)
        for a, sign, b, c in re.findall(r"(\d+) ([+-]) (\d+) = (\d+)", text)
    )


def _pairs(context: str) -> Iterator[tuple[str, str]]:
    for count, good in re.findall(r"(\d+) ([a-z]+)", context):
        yield good, count


def _number(rng: random.Random) -> str:
    return str(rng.randint(MIN_AGE, MAX_AGE))


def _number_and_step(rng: random.Random) -> tuple[str, ...]:
    return _number(rng), str(rng.randint(1, MAX_STEP))


def _numbers(count: int) -> Callable[[random.Random], tuple[str, ...]]:
    return lambda rng: tuple(str(n) for n in rng.sample(range(MIN_AGE, MAX_AGE + 1), count))


def _craft(rng: random.Random) -> tuple[str, ...]:
    return (rng.choice(tuple(CRAFT_TOOLS)),)


def _add(ops: tuple[str, ...]) -> tuple[str, str]:
    total = str(int(ops[0]) + int(ops[1]))
    return f"{ops[0]} + {ops[1]} = {total}.", total


def _subtract(ops: tuple[str, ...]) -> tuple[str, str]:
    rest = str(int(ops[0]) - int(ops[1]))
    return f"{ops[0]} - {ops[1]} = {rest}.", rest


def _tool(ops: tuple[str, ...]) -> tuple[str, str]:
    tool = CRAFT_TOOLS[ops[0]]
    return f"A {ops[0]} uses a {tool}.", tool


def _picked(word: str, pick: Callable[[list[int]], int]) -> Callable[..., tuple[str, str]]:
    def answer(ops: tuple[str, ...]) -> tuple[str, str]:
        final = str(pick([int(op) for op in ops]))
        return f"The {word} is {final}.", final

    return answer


def _sorted(ops: tuple[str, ...]) -> tuple[str, str]:
    final = ", ".join(str(n) for n in sorted(int(op) for op in ops))
    return f"{final}.", final


FOUNDATIONAL: dict[str, FoundationalSkill] = {
    "add": FoundationalSkill(("What is {} + {}?", "Add {} and {}."), _number_and_step, _add),
    "subtract": FoundationalSkill(
        ("What is {} - {}?", "From {} take {}."), _number_and_step, _subtract
    ),
    "larger": FoundationalSkill(
        ("Which is larger, {} or {}?", "Give the larger of {} and {}."),
        _numbers(2),
        _picked("larger", max),
    ),
    "tool": FoundationalSkill(
        ("What tool does a {} use?", "Name the tool of a {}."), _craft, _tool
    ),
    "smallest": FoundationalSkill(
        ("Which is the smallest of {}, {}?", "Pick the smallest: {}, {}."),
        _numbers(2),
        _picked("smallest", min),
    ),
    "last": FoundationalSkill(
        ("Which comes last in {}, {}, {}?", "Pick the last: {}, {}, {}."),
        _numbers(3),
        _picked("last", lambda numbers: numbers[-1]),
    ),
    "sort": FoundationalSkill(("Sort {}, {}.", "Put in order: {}, {}."), _numbers(2), _sorted),
}

COMPOSITIONAL: dict[str, tuple[str, ...]] = {
    "later": ("How old will {0} be in {step} years?", "In {step} years, how old is {0}?"),
    "ago": ("How old was {0} {step} years ago?", "{step} years ago, how old was {0}?"),
    "older": ("Who is older, {0} or {1}?", "Name the older one: {0} or {1}?"),
    "uses": ("What tool does {0} use at work?", "Name the tool {0} works with."),
}

GOODS = ("apples", "beans", "carrots", "eggs", "figs", "melons", "nuts", "olives", "pears", "plums")
GROUNDED_FORM = "How many {} are in the basket?"


def _solve_foundational(kind: str, question: str, operands: tuple[str, ...]) -> Solution:
    answer, final = FOUNDATIONAL[kind].answer(operands)
    return Solution(question=question, answer=answer, final=final, branch="foundational", kind=kind)


# A small world's exam draws the same few questions thousands of times.
@lru_cache(maxsize=4096)
def _solve_compositional(
    kind: str, question: str, people: tuple[Entity, ...], step: str
) -> Solution:
    first = people[0]
    if kind in ("later", "ago"):
        facts = [Fact(first.name, "age", first.age)]
        result, final = (_add if kind == "later" else _subtract)((first.age, step))
    elif kind == "older":
        facts = [Fact(person.name, "age", person.age) for person in people]
        final = max(people, key=lambda person: int(person.age)).name
        result = f"The older one is {final}."
    else:
        facts = [Fact(first.name, "craft", first.craft)]
        result, final = _tool((first.craft,))
    return Solution(
        question=question,
        answer=" ".join([*(state(fact) for fact in facts), result]),
        final=final,
        branch="compositional",
        kind=kind,
        facts=tuple(facts),
    )


def _operand_pattern(kind: str, form: str) -> re.Pattern[str]:
    operand = f"({'|'.join(CRAFT_TOOLS)})" if kind == "tool" else r"(\d+)"
    return re.compile(re.escape(form).replace(re.escape("{}"), operand))


def _composition_pattern(form: str) -> re.Pattern[str]:
    text = re.escape(form)
    for key, group in (("{0}", "p0"), ("{1}", "p1")):
        text = text.replace(re.escape(key), rf"(?P<{group}>[A-Z][a-z]+)")
    return re.compile(text.replace(re.escape("{step}"), r"(?P<step>\d+)"))


_PATTERNS = [
    (kind, _operand_pattern(kind, form))
    for kind, skill in FOUNDATIONAL.items()
    for form in skill.forms
]
_COMPOSITION_PATTERNS = [
    (kind, _composition_pattern(form)) for kind, forms in COMPOSITIONAL.items() for form in forms
]
_GROUNDED_PATTERN = re.compile(re.escape(GROUNDED_FORM).replace(re.escape("{}"), "([a-z]+)"))
