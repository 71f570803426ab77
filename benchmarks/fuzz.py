"""Mutated recipes, teachers' replies and rows: no traceback, no hang, nothing kept that may not be.

    python benchmarks/fuzz.py recipes --number 10000
    python benchmarks/fuzz.py runs --number 200
    python benchmarks/fuzz.py replies --number 10000
    python benchmarks/fuzz.py rows --number 5000

Prints what became of them, and each fault with its seed and number: `--seed S --first N --number 1`
gives it again. Exits with 1 where there are faults. docs: benchmarks/fuzz_2core_2026-11-28.md.
"""

from __future__ import annotations

import argparse
import random
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import fuzz_recipes
import fuzz_replies
import fuzz_rows

Target = Callable[[Path, random.Random], str]
"""Tries one mutant in a folder; says what became of it. Raises AssertionError for a fault."""


TARGETS: dict[str, tuple[Target, float]] = {
    "recipes": (fuzz_recipes.plan_one, 5.0),
    "runs": (fuzz_recipes.run_one, 120.0),
    "replies": (fuzz_replies.generate_once, 60.0),
    "rows": (fuzz_rows.mix_once, 20.0),
}
"""What is tried, and seconds after which it hangs."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("what", choices=TARGETS)
    parser.add_argument("--number", type=int, default=100)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--first", type=int, default=0)
    given = parser.parse_args()
    target, seconds = TARGETS[given.what]
    if target in (fuzz_recipes.plan_one, fuzz_recipes.run_one):
        fuzz_recipes.prepare()
    counts: Counter[str] = Counter()
    num_done, number, longest = 0, given.first, 0.0
    started = time.monotonic()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    while num_done < given.number:
        dice = random.Random(f"{given.what} {given.seed} {number}")
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            try:
                with alarm(seconds):
                    became = target(Path(folder), dice)
            except KeyboardInterrupt:
                print("stopped", flush=True)
                break
            except BaseException as error:
                became = f"FAULT {type(error).__name__}"
                place = our_place(error)
                says = str(error)[:600]
                print(f"seed {given.seed}, number {number}: {type(error).__name__} at "
                      f"{place.filename}:{place.lineno}: {says!a}", flush=True)  # fmt: skip
        longest = max(longest, time.monotonic() - began)
        for part in became.split("\n"):
            name, _, count = part.rpartition(" x")
            counts[name or part] += int(count) if name else 1
            num_done += int(count) if name == "tried" else 0
        num_done += "tried x" not in became
        number += 1
    took = time.monotonic() - started
    print(f"{given.what}: seed {given.seed}, {num_done} tried in {took:.0f} s, "
          f"the longest {longest:.1f} s")  # fmt: skip
    for name, count in counts.most_common():
        print(f"{count:8,}  {name}")
    sys.exit(any(name.startswith("FAULT") for name in counts))


def our_place(error: BaseException) -> traceback.FrameSummary:
    """The last place of the package that it came from."""
    frames = traceback.extract_tb(error.__traceback__)
    return next((f for f in reversed(frames) if "/feldspar/" in f.filename), frames[-1])


class Hangs(BaseException):
    """It took longer than it may."""


@contextmanager
def alarm(seconds: float) -> Iterator[None]:
    """By the processor's time, so that other work on the machine does not count; asleep, by a clock
    that is ten times as patient."""

    def ring(*_: object) -> None:
        raise Hangs(f"no end after {seconds:g} s")

    signal.signal(signal.SIGALRM, ring)
    signal.signal(signal.SIGPROF, ring)
    signal.setitimer(signal.ITIMER_PROF, seconds)
    signal.setitimer(signal.ITIMER_REAL, 10 * seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
