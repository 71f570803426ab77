"""The micro-world: who is in it, what is true of them, and which of it is taught, kept, and asked.

A world is made from one seed, and everything else follows from it. OLD entities are known to the
base student, NEW ones are not. Among the OLD, half may stand in base replay and half are reserved
for the exam. Among both, set A stands in composition rows and set B in none.
"""

import random
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Literal

from feldspar.world.other_questions import read_joined, read_turned
from feldspar.world.prose import (
    ATTRIBUTES,
    CRAFT_TOOLS,
    NAME_HEADS,
    NAME_TAILS,
    VALUES,
    Entity,
    Fact,
    ask,
    describe,
    read_fact_question,
    read_facts,
    read_long_question,
    state,
)
from feldspar.world.skills import (
    FOUNDATIONAL,
    Solution,
    draw_composition,
    draw_foundational,
    draw_grounded,
    equations_hold,
    read_composition,
    read_foundational,
    read_grounded,
)

ExamName = Literal[
    "new knowledge",
    "old knowledge",
    "foundational",
    "compositional (unseen pairs)",
    "compositional (unseen entities)",
]
NUM_SKILL_ITEMS = 210
"""Items of each skill exam: a proportion of .5 then has a 95 % interval of about +-.07."""


@dataclass(frozen=True)  # no slots: the index by name is cached on the instance
class World:
    """Entities, their facts, and the splits that make exams honest."""

    seed: int
    old: tuple[Entity, ...] = field(repr=False)
    new: tuple[Entity, ...] = field(repr=False)

    @staticmethod
    def make(seed: int, num_old: int, num_new: int) -> "World":
        possible = [head + tail for head in NAME_HEADS for tail in NAME_TAILS]
        if not 0 < num_old + num_new <= len(possible):
            raise ValueError(f"a world has 1 to {len(possible)} entities, got {num_old + num_new}")
        rng = random.Random(seed)
        names = rng.sample(possible, num_old + num_new)
        people = tuple(
            Entity(name=name, **{a: rng.choice(VALUES[a]) for a in ATTRIBUTES}) for name in names
        )
        return World(seed=seed, old=people[:num_old], new=people[num_old:])

    @cached_property
    def by_name(self) -> dict[str, Entity]:
        return {entity.name: entity for entity in self.old + self.new}

    @property
    def old_for_replay(self) -> tuple[Entity, ...]:
        """Those whose facts may stand in base replay."""
        return self.old[0::2]

    @property
    def old_for_exam(self) -> tuple[Entity, ...]:
        """Those whose facts no fine-tuning row may touch."""
        return self.old[1::2]

    def set_a(self, entities: tuple[Entity, ...]) -> tuple[Entity, ...]:
        """Those that may stand in composition rows: two thirds of the OLD, half of the NEW."""
        return tuple(entity for entity in entities if not self._is_in_b(entity))

    def set_b(self, entities: tuple[Entity, ...]) -> tuple[Entity, ...]:
        """Those that stand in no composition row at all."""
        return tuple(entity for entity in entities if self._is_in_b(entity))

    def solve(self, question: str, context: str | None = None) -> Solution | None:
        """The true answer to any question the world can ask; None where it has none.

        >>> World.make(0, 2, 0).solve("What is 12 + 5?").answer
        '12 + 5 = 17.'
        """
        question = question.strip()
        if context and (grounded := read_grounded(question, context)):
            return grounded
        if asked := read_fact_question(question):
            return self._solve_fact(question, *asked)
        name = read_long_question(question)
        if name is not None:
            return self._solve_long(question, name)
        return (
            read_foundational(question)
            or read_composition(question, self.by_name)
            or read_turned(question, self.by_name)
            or read_joined(question, self.by_name)
        )

    def is_true(self, fact: Fact) -> bool:
        entity = self.by_name.get(fact.name)
        return entity is not None and entity.value_of(fact.attribute) == fact.value

    def is_right(self, question: str, answer: str, context: str | None = None) -> bool | None:
        """Whether an answer is right in its end and in all it says on the way.

        None where the world does not know the question.
        """
        solution = self.solve(question, context)
        if solution is None:
            return None
        stated = read_facts(answer)
        if not all(self.is_true(fact) for fact in stated) or not equations_hold(answer):
            return False
        if not solution.final:
            return set(solution.facts) <= set(stated)
        return ends_with(answer, solution.final)

    def corrupt(self, solution: Solution, rng: random.Random) -> str:
        """A wrong answer in the form of the right one: a wrong fact, or a wrong result."""
        if solution.facts and (solution.branch == "knowledge" or rng.random() < 0.6):
            return self._with_wrong_fact(solution, rng)
        return _with_wrong_final(solution, self, rng)

    def is_exam_pair(self, solution: Solution) -> bool:
        """Whether a composition is asked in the exam of unseen pairs, a fifth of them."""
        numbers = re.findall(r"\d+", solution.question)
        key = " ".join([solution.kind, *sorted(f.name for f in solution.facts), *numbers])
        return zlib.crc32(key.encode()) % 5 == 0

    def exams(self) -> dict[ExamName, list[Solution]]:
        """The five exams; `final` is what an answer must end with (`ends_with`)."""
        rng = random.Random(f"exams {self.seed}")
        return {
            "new knowledge": self._fact_exam(self.new),
            "old knowledge": self._fact_exam(self.old_for_exam),
            "foundational": self._foundational_exam(rng),
            "compositional (unseen pairs)": self._pairs_exam(rng),
            "compositional (unseen entities)": self._entities_exam(rng),
        }

    def base_composition_exam(self) -> list[Solution]:
        """Compositions over OLD entities that the base met in none: can the base compose?"""
        rng = random.Random(f"base exam {self.seed}")
        names = [entity.name for entity in self.set_b(self.old)]
        return self._draw_distinct(lambda kind: draw_composition(kind, names, self.by_name, rng))

    def _is_in_b(self, entity: Entity) -> bool:
        if entity in self._old_index:
            return self._old_index[entity] // 2 % 3 == 2
        return self.new.index(entity) % 2 == 1

    @cached_property
    def _old_index(self) -> dict[Entity, int]:
        return {entity: index for index, entity in enumerate(self.old)}

    def _solve_fact(self, question: str, name: str, attribute: str) -> Solution | None:
        entity = self.by_name.get(name)
        if entity is None:
            return None
        fact = next(fact for fact in entity.facts() if fact.attribute == attribute)
        return Solution(
            question=question,
            answer=state(fact),
            final=fact.value,
            branch="knowledge",
            kind=attribute,
            facts=(fact,),
        )

    def _solve_long(self, question: str, name: str) -> Solution | None:
        entity = self.by_name.get(name)
        if entity is None:
            return None
        return Solution(
            question=question,
            answer=describe(entity),
            final="",
            branch="knowledge",
            kind="everything",
            facts=entity.facts(),
        )

    def _with_wrong_fact(self, solution: Solution, rng: random.Random) -> str:
        """The answer that would be right if one fact were another."""
        fact = rng.choice(solution.facts)
        value = rng.choice([v for v in VALUES[fact.attribute] if v != fact.value])
        liar = replace(self.by_name[fact.name], **{fact.attribute: value})
        if solution.branch == "knowledge":
            return solution.answer.replace(state(fact), state(fact._replace(value=value)))
        told = read_composition(solution.question, {**self.by_name, liar.name: liar})
        # Equal ages leave "who is older?" without an answer: draw again.
        return told.answer if told is not None else self._with_wrong_fact(solution, rng)

    def _fact_exam(self, entities: tuple[Entity, ...]) -> list[Solution]:
        questions = [ask(entity.name, a, form=0) for entity in entities for a in ATTRIBUTES]
        return [solution for q in questions if (solution := self.solve(q)) is not None]

    def _foundational_exam(self, rng: random.Random) -> list[Solution]:
        kinds = list(FOUNDATIONAL)
        return _distinct(
            lambda i: draw_foundational(kinds[i % len(kinds)], rng, held_out=True), NUM_SKILL_ITEMS
        )

    def _pairs_exam(self, rng: random.Random) -> list[Solution]:
        """Seen NEW entities with steps or partners that no training row has; and baskets."""
        names = [entity.name for entity in self.set_a(self.new)]

        def draw(kind: str) -> Solution:
            solution = draw_composition(kind, names, self.by_name, rng)
            return solution if self.is_exam_pair(solution) else draw(kind)

        kinds = ("later", "ago", "older")
        return _distinct(lambda i: draw(kinds[i % 3]), NUM_SKILL_ITEMS - 42) + _distinct(
            lambda i: draw_grounded(rng, held_out=True), 42
        )

    def _entities_exam(self, rng: random.Random) -> list[Solution]:
        names = [entity.name for entity in self.set_b(self.new)]
        return self._draw_distinct(lambda kind: draw_composition(kind, names, self.by_name, rng))

    def _draw_distinct(self, draw: Callable[[str], Solution]) -> list[Solution]:
        # "older" is right by chance half of the time, and "uses" has one question per entity and
        # form: the two sums carry the exam.
        kinds = ("later", "ago", "later", "ago", "older", "later", "ago")
        items = _distinct(lambda i: draw(kinds[i % len(kinds)]), NUM_SKILL_ITEMS - 42)
        return items + _distinct(lambda i: draw("uses"), 42)


def ends_with(answer: str, final: str) -> bool:
    """Whether a normalised answer ends with the accepted one: "It is 34." ends with "34"."""
    return f" {_normalised(answer)}".endswith(f" {_normalised(final)}")


def _normalised(text: str) -> str:
    return " ".join(re.findall(r"[a-z0-9+=,-]+", text.lower())).strip(" ,")


def _with_wrong_final(solution: Solution, world: World, rng: random.Random) -> str:
    """The answer with another result: a number near by, another name, another tool."""
    final = solution.final
    if ", " in final:
        parts = final.split(", ")
        while ", ".join(parts) == final:
            rng.shuffle(parts)
        wrong = ", ".join(parts)
    elif final.isdigit():
        wrong = str(int(final) + rng.choice((-3, -2, -1, 1, 2, 3)))
    elif solution.kind == "older":
        wrong = next(fact.name for fact in solution.facts if fact.name != final)
    else:
        wrong = rng.choice([tool for tool in CRAFT_TOOLS.values() if tool != final])
    head, _, tail = solution.answer.rpartition(final)
    return head + wrong + tail


def _distinct(draw: Callable[[int], Solution], count: int) -> list[Solution]:
    """Up to `count` solutions with distinct questions; a very small world may have fewer."""
    found: dict[tuple[str, str], Solution] = {}
    for _ in range(50 * count):
        if len(found) == count:
            break
        solution = draw(len(found))
        found.setdefault((solution.question, solution.context), solution)
    return list(found.values())
