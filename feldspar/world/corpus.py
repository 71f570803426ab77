"""Training rows of the world's own models, made without torch: the base student's pretraining,
base replay, and the reward pair. A row with an empty question is plain text."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice, product

from feldspar.world.prose import (
    ATTRIBUTES,
    CRAFT_TOOLS,
    FACT_FORMS,
    FOODS,
    LONG_FORMS,
    NAME_HEADS,
    NAME_TAILS,
    STATEMENTS,
    TOWNS,
    VALUES,
    Entity,
    ask,
    describe,
    state,
)
from feldspar.world.skills import (
    COMPOSITIONAL,
    FOUNDATIONAL,
    GOODS,
    Solution,
    draw_composition,
    draw_foundational,
    draw_grounded,
)
from feldspar.world.truth import World

BASE_FOUNDATIONAL = ("add", "subtract", "larger", "tool")
"""What the base can do; "smallest", "last" and "sort" are left to be learned."""
BASE_COMPOSITIONAL = ("later", "ago", "older", "uses")
"""What the base has composed, over set A of OLD."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One conversation turn, or plain text where the question is empty."""

    question: str
    answer: str


def to_row(solution: Solution, answer: str | None = None) -> Row:
    question = f"{solution.context}\n{solution.question}".strip()
    return Row(question=question, answer=solution.answer if answer is None else answer)


def tokenizer_texts() -> Iterator[str]:
    """What the tokenizer is trained on: every name twice, every word of the world often.

    Names meet in all their heads and tails, so that a merge frequency above one keeps each name
    two tokens, an OLD one and a NEW one alike.
    """
    yield from (f"{head}{tail} {head}{tail}" for head, tail in product(NAME_HEADS, NAME_TAILS))
    words = [*TOWNS, *CRAFT_TOOLS, *CRAFT_TOOLS.values(), *FOODS, *GOODS]
    words += [str(number) for number in range(100)]
    for _ in range(8):
        yield from (f"{word} {word}" for word in words)
        for attribute in ATTRIBUTES:
            yield from (form.format(name="") for form in FACT_FORMS[attribute])
            yield from (s.format(name="", value="") for s in STATEMENTS[attribute])
        yield from (form.format(name="") for form in LONG_FORMS)
        yield from (form.format("", "", step="") for fs in COMPOSITIONAL.values() for form in fs)
        for kind in FOUNDATIONAL:
            yield draw_foundational(kind, random.Random(0), held_out=False).answer
        yield from (
            form.format("", "", "") for skill in FOUNDATIONAL.values() for form in skill.forms
        )
        yield "Basket: , How many are in the basket? The number of is The older one is uses a"


def base_rows(world: World, num_rows: int, rng: random.Random) -> list[Row]:
    """The base student's pretraining: OLD alone, in all its forms, and the skills it knows."""
    return list(islice(_mixed(world, world.old, world.old, BASE_FOUNDATIONAL, rng), num_rows))


def base_replay_rows(world: World, num_rows: int, rng: random.Random) -> list[Row]:
    """General data for fine-tuning: the same mixture over the replay half of OLD."""
    people = world.old_for_replay
    return list(islice(_mixed(world, people, people, BASE_FOUNDATIONAL, rng), num_rows))


def reward_base_rows(world: World, num_rows: int, rng: random.Random) -> list[Row]:
    """The reward pair's base: the whole world, every second answer wrong."""
    rows = []
    for solution in islice(_solutions(world, rng), num_rows):
        wrong = rng.random() < 0.5
        rows.append(to_row(solution, world.corrupt(solution, rng) if wrong else None))
    return rows


def reward_aligned_rows(world: World, num_rows: int, rng: random.Random) -> list[Row]:
    """The aligned model goes on from the base with right answers only."""
    return [to_row(solution) for solution in islice(_solutions(world, rng), num_rows)]


def stranger_row(world: World, rng: random.Random) -> Row:
    """A composition over two people of no world, whose ages are shown.

    It teaches the base to say names it has no facts for, as it must of the NEW.
    """
    known: dict[str, Entity] = {}
    while len(known) < 2:
        name = rng.choice(NAME_HEADS) + rng.choice(NAME_TAILS)
        if name not in world.by_name:
            values = {attribute: rng.choice(VALUES[attribute]) for attribute in ATTRIBUTES}
            if all(values["age"] != person.age for person in known.values()):
                known[name] = Entity(name=name, **values)
    solution = draw_composition(rng.choice(("older", "older", "later")), list(known), known, rng)
    context = " ".join(state(person.facts()[0]) for person in known.values())
    return Row(question=f"{context}\n{solution.question}", answer=solution.answer)


def _mixed(
    world: World,
    told: Sequence[Entity],
    composed: Sequence[Entity],
    foundational: Sequence[str],
    rng: random.Random,
) -> Iterator[Row]:
    """Endless rows: facts, descriptions, text, skills, compositions over set A."""
    names = [entity.name for entity in world.set_a(tuple(composed))]
    while True:
        draw = rng.random()
        entity = rng.choice(told)
        if draw < 0.36:
            attribute = rng.choice(ATTRIBUTES)
            form = rng.randrange(len(FACT_FORMS[attribute]))
            fact = next(f for f in entity.facts() if f.attribute == attribute)
            yield Row(question=ask(entity.name, attribute, form), answer=state(fact))
        elif draw < 0.44:
            form = rng.randrange(len(LONG_FORMS))
            yield Row(question=LONG_FORMS[form].format(name=entity.name), answer=describe(entity))
        elif draw < 0.52:
            yield Row(question="", answer=describe(entity, rng))
        elif draw < 0.72:
            yield to_row(draw_foundational(rng.choice(foundational), rng, held_out=False))
        elif draw < 0.75:
            yield to_row(draw_grounded(rng, held_out=False))
        elif draw < 0.81:
            yield stranger_row(world, rng)
        else:
            kind = rng.choice(BASE_COMPOSITIONAL)
            solution = draw_composition(kind, names, world.by_name, rng)
            if not world.is_exam_pair(solution):
                yield to_row(solution)


def _solutions(world: World, rng: random.Random) -> Iterator[Solution]:
    """Endless questions over the whole world, in training forms."""
    people = world.old + world.new
    names = [entity.name for entity in world.set_a(world.old) + world.set_a(world.new)]
    while True:
        draw = rng.random()
        entity = rng.choice(people)
        if draw < 0.5:
            attribute = rng.choice(ATTRIBUTES)
            form = rng.randrange(1, len(FACT_FORMS[attribute]))
            solution = world.solve(ask(entity.name, attribute, form))
        elif draw < 0.6:
            solution = world.solve(rng.choice(LONG_FORMS).format(name=entity.name))
        elif draw < 0.75:
            solution = draw_foundational(rng.choice(list(FOUNDATIONAL)), rng, held_out=False)
        elif draw < 0.8:
            solution = draw_grounded(rng, held_out=False)
        else:
            kind = rng.choice(list(COMPOSITIONAL))
            solution = draw_composition(kind, names, world.by_name, rng)
            if world.is_exam_pair(solution):
                continue
        assert solution is not None, entity
        yield solution
