"""Whether a call takes longer in a large journal: reads and commits at 10,000 to 10 M answers.

    python benchmarks/journal_growth.py FOLDER [--rows 10000 1000000 10000000]

The journal is filled by what the product's writer does to a batch, with keys as random as hashes
and answers of 150 characters; FOLDER wants 5 GB for 10 M. At each size are measured: a read of a
key that is there and of one that is not, as each call does it first; commits with 64 answers at a
time, as calls in flight give them; and the processor time of all threads for one answer.
"""

from __future__ import annotations

import argparse
import asyncio
import hashlib
import os
import random
import statistics
import time
from collections.abc import Callable
from pathlib import Path

from feldspar.teacher import Journal
from feldspar.teacher.journal import Stored, _commit, _connect, _Pending

AT_ONCE = 200_000
"""Answers that a commit takes while the journal is filled."""
IN_FLIGHT = 64
NUM_READS = 20_000
NUM_ROUNDS = 40
ANSWER = Stored("Zorbo has lived in Plint for thirty-one years. " * 3, "stop", 500, 60)


def key_of(number: int) -> bytes:
    return hashlib.sha256(number.to_bytes(8, "big")).digest()


def fill(path: Path, numbers: range) -> None:
    """As the journal's writer does it, but for the loop that waits for each answer."""
    loop = asyncio.new_event_loop()
    done: asyncio.Future[Stored] = loop.create_future()
    connection = _connect(path)
    keys = sorted(map(key_of, numbers))
    _commit(
        connection,
        [_Pending(key, "mixtral", "judge-answer", ANSWER, loop, done) for key in keys],
    )
    connection.close()
    loop.close()


async def put(journal: Journal, numbers: range) -> None:
    await asyncio.gather(
        *(
            journal.put(key_of(number), ANSWER, model="mixtral", stage="judge-answer")
            for number in numbers
        )
    )


def seconds_of(reads: list[bytes], get: Callable[[bytes], object]) -> list[float]:
    found = []
    for key in reads:
        began = time.perf_counter()
        get(key)
        found.append(time.perf_counter() - began)
    return sorted(found)


def row_of(journal: Journal, num: int) -> str:
    """Measures; leaves IN_FLIGHT x NUM_ROUNDS answers more behind."""
    rng = random.Random(num)
    there = seconds_of([key_of(rng.randrange(num)) for _ in range(NUM_READS)], journal.get)
    missing = seconds_of([key_of(rng.randrange(2**40, 2**41)) for _ in there], journal.get)
    commits, cpu = [], time.process_time()
    for place in range(NUM_ROUNDS):
        first = 2**50 + num * 1000 + place * IN_FLIGHT
        began = time.perf_counter()
        asyncio.run(put(journal, range(first, first + IN_FLIGHT)))
        commits.append(time.perf_counter() - began)
    cpu = (time.process_time() - cpu) / (NUM_ROUNDS * IN_FLIGHT)
    median, late = statistics.median(there), there[int(0.99 * len(there))]
    return (
        f"| {num:,} | {journal.size_bytes / 1e9:.2f} | {1e6 * median:.0f} ({1e6 * late:.0f}) "
        f"| {1e6 * statistics.median(missing):.0f} | {1e3 * statistics.median(commits):.0f} "
        f"({1e3 * max(commits):.0f}) | {1e6 * cpu:.0f} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 1_000_000, 10_000_000])
    given = parser.parse_args()
    path = given.folder / "journal"
    print(
        "| answers | GB | read, median (99 %) us | of one that is missing us "
        "| 64 committed, median (longest) ms | CPU us an answer |\n|---|---|---|---|---|---|"
    )
    with Journal(path) as journal:
        num = 0
        for wanted in sorted(given.rows):
            while num < wanted:
                upto = min(wanted, num + AT_ONCE)
                fill(path, range(num, upto))
                num = upto
            print(row_of(journal, num), flush=True)
    for name in ("journal", "journal-wal", "journal-shm"):
        (given.folder / name).unlink(missing_ok=True)
    os.sync()


if __name__ == "__main__":
    main()
