"""Which questions the embedded teacher may write: every one of a kind once, in a fixed mixed order.

Never in it: the exam form of a fact question, held-out operands, exam pairs, entities of set B, and
OLD entities whose facts no fine-tuning row may touch.
"""

import random
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from typing import TypeVar

from feldspar.world.extractive import interleave, rng_of
from feldspar.world.judge import facts_of, solve
from feldspar.world.other_questions import joined_questions, turned_questions, untold
from feldspar.world.prose import ATTRIBUTES, FACT_FORMS, LONG_FORMS, Fact, ask
from feldspar.world.sections import Block, split_passages
from feldspar.world.skills import (
    COMPOSITIONAL,
    FOUNDATIONAL,
    GOODS,
    GROUNDED_FORM,
    Solution,
    draw_composition,
    draw_foundational,
    draw_grounded,
    read_grounded,
)
from feldspar.world.truth import World

MAX_POOL = 4096
"""Questions kept of one kind; small kinds have fewer."""
Item = TypeVar("Item")
Form = TypeVar("Form")
_PATIENCE = 400
"""Draws without a new question after which a kind counts as exhausted."""


class QuestionPools:
    """The pools of one world, made when first asked for."""

    def __init__(self, world: World, seed: int, max_size: int = MAX_POOL) -> None:
        self._world = world
        self._seed = seed
        self._max_size = max_size
        self._of_kind = lru_cache(maxsize=None)(self._draw_kind)
        self.of_kinds = lru_cache(maxsize=256)(self._of_kinds)
        """The questions of a tuple of skills, taken from each in turn."""
        self.about = lru_cache(maxsize=512)(self._about)
        self.turned = lru_cache(maxsize=512)(self._turned)
        self.joined = lru_cache(maxsize=512)(self._joined)
        self.untold = lru_cache(maxsize=512)(self._untold)

    def about_context(self, context: str) -> list[Solution]:
        """The questions that a shown context answers."""
        asked = (GROUNDED_FORM.format(good) for good in GOODS)
        return [s for question in asked if (s := read_grounded(question, context)) is not None]

    def kind_of(self, example: Block) -> str | None:
        """Which skill an example shows; None where it shows none, or is knowledge."""
        solution = solve(self._world, example.question, example.context)
        if solution is None or solution.branch == "knowledge":
            return None
        return solution.kind

    def _of_kinds(self, kinds: tuple[str, ...]) -> tuple[Solution, ...]:
        pools = [self._of_kind(kind) for kind in kinds]
        longest = max((len(pool) for pool in pools), default=0)
        return tuple(pool[i] for i in range(longest) for pool in pools if i < len(pool))

    def _about(self, document: str, variety: int) -> tuple[Solution, ...]:
        """All questions that a document answers: two short ones to each long one while both last.

        Every fact is asked in one form before any is asked in another. Another `variety` is another
        order. The solutions are the world's, also where the document says something else.
        """
        rng = rng_of(self._seed + variety, document)
        facts = self._facts_told(document)
        short = [
            Block(question=ask(fact.name, fact.attribute, form))
            for fact, form in _rounds(facts, _training_forms, rng)
        ]
        told = [fact.name for fact in facts]
        whole = [name for name in dict.fromkeys(told) if told.count(name) == len(ATTRIBUTES)]
        long = [
            Block(question=form.format(name=name))
            for name, form in _rounds(whole, lambda _: list(LONG_FORMS), rng)
        ]
        asked = (block.question for block in interleave(short, long))
        return tuple(s for question in asked if (s := self._world.solve(question)) is not None)

    def _turned(self, document: str, variety: int) -> tuple[Solution, ...]:
        """What the passage tells of somebody, asked for whom it is told of; only where that is one
        of the world."""
        asked = list(turned_questions(self._facts_told(document)))
        rng_of(self._seed + variety, f"turned {document}").shuffle(asked)
        return tuple(s for question in asked if (s := self._world.solve(question)) is not None)

    def _joined(self, document: str, variety: int) -> tuple[Solution, ...]:
        """One question over somebody of each of two passages; of set A alone, as compositions."""
        people = {*self._world.set_a(self._world.new), *self._world.set_a(self._world.old)}
        names = {person.name for person in people}
        told = [
            [fact for fact in self._facts_told(passage) if fact.name in names]
            for passage in split_passages(document)
        ]
        asked = list(joined_questions(*told)) if len(told) == 2 else []
        rng_of(self._seed + variety, f"joined {document}").shuffle(asked)
        return tuple(s for question in asked if (s := self._world.solve(question)) is not None)

    def _untold(self, document: str, variety: int) -> tuple[Block, ...]:
        """Questions in training forms that the passage does not answer; none where it is not of
        the world."""
        told = self._facts_told(document)
        people = (*self._world.set_a(self._world.new), *self._world.old_for_replay)
        asked = untold([person.name for person in people], told) if told else []
        rng_of(self._seed + variety, f"untold {document}").shuffle(asked)
        return tuple(asked)

    def facts_about(self, question: str, document: str) -> tuple[Fact, ...]:
        """What a document tells of those a question is about."""
        solution = self._world.solve(question)
        names = {fact.name for fact in solution.facts} if solution else set()
        return tuple(fact for fact in self._facts_told(document) if fact.name in names)

    def _facts_told(self, document: str) -> list[Fact]:
        """One fact for everything that is said of somebody: the true one where there are two."""
        told = {}
        for fact in sorted(facts_of(document), key=lambda fact: (self._world.is_true(fact), fact)):
            if fact.name in self._world.by_name:
                told[fact.name, fact.attribute] = fact
        return sorted(told.values())

    def _draw_kind(self, kind: str) -> tuple[Solution, ...]:
        rng = rng_of(self._seed, kind)
        draw = self._drawing(kind, rng)
        found: dict[tuple[str, str], Solution] = {}
        fruitless = 0
        while len(found) < self._max_size and fruitless < _PATIENCE:
            solution = draw()
            key = (solution.context, solution.question)
            if key in found or (kind in COMPOSITIONAL and self._world.is_exam_pair(solution)):
                fruitless += 1
            else:
                found[key] = solution
                fruitless = 0
        return tuple(found.values())

    def _drawing(self, kind: str, rng: random.Random) -> Callable[[], Solution]:
        if kind in FOUNDATIONAL:
            return lambda: draw_foundational(kind, rng, held_out=False)
        if kind == "grounded":
            return lambda: draw_grounded(rng, held_out=False)
        assert kind in COMPOSITIONAL, kind
        world = self._world
        names = [entity.name for entity in world.set_a(world.new)]
        names += [entity.name for entity in world.set_a(world.old_for_replay)]
        return lambda: draw_composition(kind, names, world.by_name, rng)


def _training_forms(fact: Fact) -> list[int]:
    """All but the exam form."""
    return list(range(1, len(FACT_FORMS[fact.attribute])))


def _rounds(
    items: Sequence[Item], forms_of: Callable[[Item], list[Form]], rng: random.Random
) -> Iterator[tuple[Item, Form]]:
    """Every item in one of its forms, then every item in another, until all were taken."""
    left = {index: forms_of(item) for index, item in enumerate(items)}
    for forms in left.values():
        rng.shuffle(forms)
    while any(left.values()):
        order = [index for index, forms in left.items() if forms]
        rng.shuffle(order)
        for index in order:
            yield items[index], left[index].pop()
