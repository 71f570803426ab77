"""How often the rule of coverage is right about which statement a question is about.

    python benchmarks/coverage_rule.py

The micro-world knows the facts of every statement and of every question, so it is known of each
question and each statement of its passage whether they belong together.
"""

from __future__ import annotations

import random
from collections import Counter

from feldspar.generate import coverage
from feldspar.records import Chunk, Sample
from feldspar.world.prose import read_facts, write_document
from feldspar.world.questions import QuestionPools
from feldspar.world.truth import World

PEOPLE_PER_LEAF, PEOPLE_PER_PASSAGE = 16, 2
THRESHOLDS = (0.35, 0.4, 0.45, 0.5, 0.55)


def main() -> None:
    world = World.make(1, 80, 48)
    print("threshold  precision  recall  (questions x statements)")
    for threshold in THRESHOLDS:
        coverage.HELD_SHARE = threshold
        found: Counter[tuple[bool, bool]] = Counter()
        for start in range(0, len(world.new), PEOPLE_PER_LEAF):
            found.update(judge_leaf(world, start))
        right, wrong, missed = found[True, True], found[True, False], found[False, True]
        precision, recall = right / (right + wrong), right / (right + missed)
        print(f"{threshold:9.2f}  {precision:9.3f}  {recall:6.3f}  ({found.total()})")


def judge_leaf(world: World, start: int) -> Counter[tuple[bool, bool]]:
    """(said to be asked, is asked) of all questions about all statements of their passage."""
    people = world.new[start : start + PEOPLE_PER_LEAF]
    rng = random.Random(start)
    chunks = []
    for place in range(0, len(people), PEOPLE_PER_PASSAGE):
        text = write_document("Register", people[place : place + PEOPLE_PER_PASSAGE], rng)
        chunks.append(Chunk(id=str(place), document="d", text=text, num_tokens=1))
    pools = QuestionPools(world, 0)
    found: Counter[tuple[bool, bool]] = Counter()
    asked = coverage.AskedStatements("leaf", chunks)
    before = {(s.chunk, s.text): 0 for s in asked.statements()}
    for chunk in chunks:
        for number, solution in enumerate(pools.about(chunk.text, 0)):
            asked.add(
                Sample(
                    id=str(number),
                    leaf="leaf",
                    branch="knowledge",
                    question=solution.question,
                    answer=solution.answer,
                    chunk=chunk.id,
                )
            )
            for statement in asked.statements():
                place = statement.chunk, statement.text
                facts = set(read_facts(statement.text))
                if statement.chunk == chunk.id and facts:
                    is_asked = facts <= set(solution.facts)
                    found[statement.forms > before[place], is_asked] += 1
                before[place] = statement.forms
    return found


if __name__ == "__main__":
    main()
