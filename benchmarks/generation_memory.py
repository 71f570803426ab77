"""Whether memory stays bounded: many leaves and chunks through the whole of generation.

    python benchmarks/generation_memory.py [--leaves 10000] [--chunks 25] [--calls 4]

Leaves x chunks x calls are the tasks: each is one call for one question-answer pair, which then
goes through the filters and is written to disk. Leaves are made as they are gone through; the
teacher answers at once, within the process, with a pair that was never seen before. The journal is
a real one. Judges are off, so that a task is a call.
"""

from __future__ import annotations

import argparse
import hashlib
import resource
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from local_teacher import LocalTeacher

from feldspar.config import GenerateConfig
from feldspar.endpoint.calls import Completion, Completions, Usage
from feldspar.generate import generate_samples
from feldspar.records import Chunk, Leaf, Sample, Seed
from feldspar.runs import write_rows
from feldspar.steps import Workspace
from feldspar.teacher import Journal

SHOWN_EVERY = 25_000


class Leaves:
    """A taxonomy on no disk: every leaf is made again each time it is come by."""

    def __init__(self, num_leaves: int, num_chunks: int) -> None:
        self._num_leaves, self._num_chunks = num_leaves, num_chunks

    def __iter__(self) -> Iterator[Leaf]:
        for leaf in range(self._num_leaves):
            seeds = tuple(
                Seed(
                    id=f"{leaf}-{n}",
                    question=f"What is thing {leaf}-{n}?",
                    answer=f"{n} of {leaf}.",
                )
                for n in range(5)
            )
            chunks = tuple(
                Chunk(id=f"{leaf}/{n}", document="d", text=f"{leaf} {n} " * 150, num_tokens=300)
                for n in range(self._num_chunks)
            )
            yield Leaf(
                path=f"knowledge/part{leaf // 100}/leaf{leaf}",
                branch="knowledge",
                task_description=f"Things of {leaf}.",
                seeds=seeds,
                chunks=chunks,
            )


def answer(stage: str, sent: Mapping[str, Any]) -> Completions:
    said = f"{sent['seed']} {sent['messages'][0]['content']}"
    name = hashlib.sha256(said.encode()).hexdigest()[:12]
    text = f"[Question]\nWho is {name}?\n[Answer]\n{name} is the one of {name[::-1]}.\n[End]"
    return Completions((Completion(text, "stop"),), Usage(500, 40))


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--leaves", type=int, default=10_000)
    parser.add_argument("--chunks", type=int, default=25)
    parser.add_argument("--calls", type=int, default=4)
    given = parser.parse_args()
    leaves = Leaves(given.leaves, given.chunks)
    config = GenerateConfig(calls_per_chunk=given.calls, pairs_per_call=1, judge=False)
    began = time.monotonic()

    def shown(samples: Iterator[Sample]) -> Iterator[Sample]:
        for number, sample in enumerate(samples, start=1):
            if number % SHOWN_EVERY == 0:
                peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
                cpu, wall = time.process_time(), time.monotonic() - began
                print(f"{number:,} tasks: {peak:.0f} MB, {cpu:.0f} s CPU, {wall:.0f} s", flush=True)
            yield sample

    with tempfile.TemporaryDirectory() as name, Journal(Path(name) / "journal") as journal:
        here = Path(name)
        teacher = LocalTeacher("local", answer, journal)
        samples = generate_samples(
            Workspace(folder=here), leaves, config, teacher=teacher, judge=teacher, avoid=(), seed=1
        )
        num_rows, _ = write_rows(here / "rows.jsonl.zst", shown(samples))
        journal_bytes = (here / "journal").stat().st_size
    print(f"{num_rows:,} rows, journal {journal_bytes / 1e6:.0f} MB")


if __name__ == "__main__":
    main()
