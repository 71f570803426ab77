"""What a teacher's faults and a kill cost: rows lost, and answers paid for twice.

    python benchmarks/generation_survival.py --proxy PATH/teacher_proxy.py

Faults: 5 % of the calls fail (429, 500, reset, half a body), 1 % are refused for good; filters that
compare samples are off. Every row must be the clean run's, but for those that were refused.
Kill: kill -9 half way, and again. What is served twice must have been in flight.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from generation import RATES, WORLD, get_stats, make_leaves, proxied

from feldspar.config import TeacherConfig
from feldspar.generate import generate_samples
from feldspar.records import Sample
from feldspar.steps import Workspace
from feldspar.teacher import Journal, open_teacher
from feldspar.world import start_teacher
from feldspar.world.write import write_world

FILTERS_OFF = {"duplicates": False, "near_duplicates": False, "decontaminate": False}
CONCURRENCY = 64


def generate(url: str, folder: Path, taxonomy: Path) -> list[Sample]:
    leaves, config = make_leaves("500", taxonomy)
    folder.mkdir(exist_ok=True)
    with Journal(folder / "journal") as journal:
        teacher = open_teacher(TeacherConfig(concurrency=CONCURRENCY), f"{url}/v1", journal)
        samples = generate_samples(
            Workspace(folder=folder),
            leaves,
            config.model_copy(update=FILTERS_OFF),
            teacher=teacher,
            judge=teacher,
            avoid=(),
            seed=1,
        )
        return list(samples)


def compare_faulty(proxy: Path, upstream: str, taxonomy: Path, folder: Path) -> None:
    clean = Counter(map(_content, generate(upstream, folder / "clean", taxonomy)))
    faults = {"median": 0.05, "fault-rate": 0.05, "refuse-rate": 0.01}
    with proxied(proxy, upstream, **faults) as url:
        samples = generate(url, folder / "faulty", taxonomy)
        stats = get_stats(url)
    refused = [s for s in samples if "refused (" in (s.rejected_because or "")]
    others = Counter(map(_content, (s for s in samples if s not in refused)))
    print(f"faults: {stats['faults']}, served again {stats['served_again']}")
    print(
        f"{clean.total()} rows clean, {len(samples)} faulty: {(others - clean).total()} differ, "
        f"{(clean - others).total()} are missing, {len(refused)} say that they were refused"
    )


def compare_killed(proxy: Path, upstream: str, taxonomy: Path, folder: Path) -> None:
    with proxied(proxy, upstream) as url:
        line = [sys.executable, __file__, "--one", url, str(folder / "killed"), str(taxonomy)]
        process = subprocess.Popen(line)
        while get_stats(url)["served"] < 900:
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
        process.wait()
        subprocess.run(line, check=True)
        stats = get_stats(url)
    print(f"kill -9: {stats['served']} served, {stats['served_again']} of them again")


def _content(sample: Sample) -> tuple[object, ...]:
    return (sample.id, sample.question, sample.answer, sample.rejected_because)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", type=Path)
    parser.add_argument("--one", nargs=3, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        url, folder, taxonomy = arguments.one
        generate(url, Path(folder), Path(taxonomy))
        return
    if arguments.proxy is None:
        parser.error("name the proxy with --proxy")
    with tempfile.TemporaryDirectory() as name, start_teacher(WORLD, RATES) as teacher:
        folder, upstream = Path(name), teacher.removesuffix("/v1")
        taxonomy = write_world(WORLD, folder / "world").taxonomy
        compare_faulty(arguments.proxy, upstream, taxonomy, folder)
        compare_killed(arguments.proxy, upstream, taxonomy, folder)


if __name__ == "__main__":
    main()
