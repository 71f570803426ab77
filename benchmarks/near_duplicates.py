"""How fast near-duplicates are found, by the filters that a run uses: time and peak memory.

    python benchmarks/near_duplicates.py [--instructions 1000000] [--answers 200] [--worst]

Instructions of 8 to 16 words stream through the filters of one leaf. Their words follow Zipf's law
over 50,000; a third holds a name or a number; answers follow Zipf's law over `--answers` labels. A
tenth is an earlier instruction with one word put in or changed, a twentieth one said again.
`--worst`: evenly drawn words of 2,000, one answer, no names or numbers, so that every pair counts.
"""

from __future__ import annotations

import argparse
import bisect
import itertools
import random
import resource
import time
from collections import Counter
from collections.abc import Iterator

from feldspar.config import GenerateConfig
from feldspar.generate.filters import Filters
from feldspar.records import Leaf, Sample, Seed

LETTERS = "abcdefghijklmnopqrstuvwxyz"
NUM_WORDS, NUM_NAMES = 50_000, 5_000
REMEMBERED = 50_000
"""Earlier instructions that may come again."""
SEED = Seed(id="s", question="name a thing.", answer="It.")
LEAF = Leaf(path="a/b", branch="compositional", task_description="t", seeds=(SEED,))


class Zipf:
    """Draws place k of a list with a chance that falls as 1 / k."""

    def __init__(self, size: int, rng: random.Random) -> None:
        self._sums = list(itertools.accumulate(1 / k for k in range(1, size + 1)))
        self._rng = rng

    def draw(self) -> int:
        return bisect.bisect(self._sums, self._rng.random() * self._sums[-1])


def generated(count: int, num_answers: int) -> Iterator[tuple[str, str, str]]:
    """(question, answer, what it is) as a teacher's skill leaf might give them."""
    rng = random.Random(1)
    words = ["".join(rng.choices(LETTERS, k=rng.randint(3, 9))) for _ in range(NUM_WORDS)]
    names = ["".join(rng.choices(LETTERS, k=6)).capitalize() for _ in range(NUM_NAMES)]
    word, answer = Zipf(NUM_WORDS, rng), Zipf(num_answers, rng)
    earlier: list[tuple[str, str]] = []
    for _ in range(count):
        chance, kind = rng.random(), "new"
        if earlier and chance < 0.15:
            question, label = rng.choice(earlier)
            kind = "same" if chance < 0.05 else "near"
            if kind == "near":
                asked = question.split()
                place = rng.randrange(len(asked))
                # A name or a number in its place would make it another question.
                is_name = asked[place][0].isupper() or asked[place].isdigit()
                asked[place : place + (chance < 0.10 and not is_name)] = [words[word.draw()]]
                question = " ".join(asked)
        else:
            asked = [words[word.draw()] for _ in range(rng.randint(8, 16))]
            if rng.random() < 1 / 3:
                named = rng.choice(names) if rng.random() < 0.5 else str(rng.randrange(1000))
                asked[rng.randrange(1, len(asked))] = named
            question, label = " ".join(asked), f"label {answer.draw()}"
            if len(earlier) < REMEMBERED:
                earlier.append((question, label))
            else:
                earlier[rng.randrange(REMEMBERED)] = (question, label)
        yield question, label, kind


def worst(count: int) -> Iterator[tuple[str, str, str]]:
    """Every instruction has to be held against every other."""
    rng = random.Random(1)
    words = ["".join(rng.choices(LETTERS, k=6)) for _ in range(2000)]
    questions: list[str] = []
    for _ in range(count):
        asked, kind = rng.choices(words, k=rng.randint(8, 16)), "new"
        if questions and rng.random() < 0.1:
            asked, kind = rng.choice(questions).split(), "near"
            asked.insert(rng.randrange(len(asked)), rng.choice(words))
        questions.append(" ".join(asked))
        yield questions[-1], "Done.", kind


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--instructions", type=int, default=20_000)
    parser.add_argument("--answers", type=int, default=200)
    parser.add_argument("--worst", action="store_true")
    given = parser.parse_args()
    stream = (
        worst(given.instructions) if given.worst else generated(given.instructions, given.answers)
    )
    filters = Filters(GenerateConfig(), ())
    fell: Counter[tuple[str, bool]] = Counter()
    filtering, began = 0.0, time.monotonic()
    for number, (question, answer, kind) in enumerate(stream, start=1):
        sample = Sample(
            id=f"{number:016x}",
            leaf=LEAF.path,
            branch=LEAF.branch,
            question=question,
            answer=answer,
        )
        started = time.process_time()
        fell[kind, filters.reason_against(sample, LEAF) is not None] += 1
        filtering += time.process_time() - started
        if number % 50_000 == 0 or number == given.instructions:
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            seconds = time.monotonic() - began
            print(
                f"{number:,}: {filtering:.1f} s CPU of {seconds:.0f} s, {peak:.0f} MB", flush=True
            )
    for kind in ("new", "near", "same"):
        print(f"{kind}: {fell[kind, False]:,} kept, {fell[kind, True]:,} fell")


if __name__ == "__main__":
    main()
