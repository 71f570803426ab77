"""How well generation keeps a busy teacher at work: slot use, time, CPU, memory, first sample.

    python benchmarks/generation.py --proxy PATH/teacher_proxy.py [--jobs 500 3000 leaves]
        [--concurrency 64 0] [--repeats 3] [--out benchmarks/generation_WHAT_DATE.md]

The embedded teacher stands behind a proxy that gives it 64 slots and a lognormal latency (median
0.4 s, sigma 0.6). The proxy takes --upstream, --port, --slots, --median, --sigma and --seed, and
answers GET /stats and POST /reset. Every run is a process of its own with an empty journal; its
CPU time and peak memory are its own (the client included, the proxy and the teacher not).
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from feldspar.config import ErrorRates, GenerateConfig, TaxonomyConfig, TeacherConfig, WorldConfig
from feldspar.generate import generate_samples
from feldspar.records import Leaf
from feldspar.steps import Workspace
from feldspar.taxonomy import read_taxonomy
from feldspar.teacher import Journal, open_teacher
from feldspar.world import start_teacher
from feldspar.world.write import write_world

SLOTS, MEDIAN, SIGMA = 64, 0.4, 0.6
WORLD = WorldConfig(num_old=80, num_new=48)
# A fifth falls at each judge, as in the workload that PEERS' engines were measured on.
RATES = ErrorRates(unsafe=0.2, wrong_fact=0.2)
JOBS = ("500", "3000", "leaves")
NUM_LEAVES, SAMPLES_PER_LEAF = 100, 5
WATCH_SECONDS = 0.02


def make_leaves(job: str, taxonomy: Path) -> tuple[list[Leaf], GenerateConfig]:
    """Leaves and settings that begin so many samples, one a call, each with stages of its own."""
    skills = [
        leaf
        for leaf in read_taxonomy(TaxonomyConfig(path=str(taxonomy), chunk_tokens=120))
        if leaf.branch != "knowledge"
    ]
    settings = {"pairs_per_call": 1, "exam_items": 0}
    if job == "leaves":
        numbered = [
            replace(
                skill,
                path=f"{skill.path}/{number}",
                task_description=f"{skill.task_description} Part {number}.",
            )
            for number in range(NUM_LEAVES)
            for skill in [skills[number % len(skills)]]
        ]
        return numbered, GenerateConfig(samples_per_leaf=SAMPLES_PER_LEAF, **settings)
    return skills, GenerateConfig(samples_per_leaf=-(-int(job) // len(skills)), **settings)


def run_once(url: str, job: str, concurrency: int, taxonomy: Path) -> dict[str, float]:
    """One run in this process, against a proxy; figures of its own and the proxy's."""
    leaves, config = make_leaves(job, taxonomy)
    with tempfile.TemporaryDirectory() as folder, Journal(Path(folder) / "journal") as journal:
        given = TeacherConfig(concurrency=concurrency)
        teacher = open_teacher(given, f"{url}/v1", journal)
        urllib.request.urlopen(urllib.request.Request(f"{url}/reset", method="POST")).close()
        started, cpu, first, num_kept = time.monotonic(), _cpu_seconds(), None, 0
        for sample in generate_samples(
            Workspace(folder=Path(folder)),
            leaves,
            config,
            teacher=teacher,
            judge=teacher,
            avoid=(),
            seed=1,
        ):
            num_kept += sample.is_kept
            if first is None and sample.is_kept:
                first = time.monotonic() - started
        cpu = _cpu_seconds() - cpu
        answers = sum(stage.num_answers for stage in journal.stats())
    return {
        "samples": num_kept,
        "answers": answers,
        "cpu_ms_a_request": 1000 * cpu / answers,
        "memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
        "first_sample_s": first or 0.0,
    }


def measure(proxy: Path, job: str, concurrency: int, seed: int) -> dict[str, float]:
    """One run in a process of its own, with a teacher and a proxy of their own, whose latencies are
    drawn by `seed`."""
    with tempfile.TemporaryDirectory() as folder, start_teacher(WORLD, RATES) as teacher:
        taxonomy = write_world(WORLD, Path(folder) / "world").taxonomy
        with proxied(proxy, teacher.removesuffix("/v1"), seed=seed) as url:
            line = [sys.executable, __file__, "--one", url, job, str(concurrency), str(taxonomy)]
            with subprocess.Popen(line, stdout=subprocess.PIPE, text=True) as process:
                reached = _watch(process, url)
                assert process.stdout is not None
                said = process.stdout.read()
            assert process.returncode == 0, f"{line} ended with {process.returncode}"
            stats = get_stats(url)
    return {**json.loads(said), **stats, "slots_reached_s": reached}


def _watch(process: subprocess.Popen[str], url: str) -> float:
    """Seconds from the first request until 90 % of the slots were busy."""
    began = reached = 0.0
    while process.poll() is None:
        # A server that is just being reset, or has no time, is asked again.
        with suppress(OSError):
            stats = get_stats(url)
            peak = stats["peak_in_flight"]
            began = began if began and stats["requests"] else time.monotonic()
            if not reached and peak >= 0.9 * SLOTS:
                reached = time.monotonic() - began
        time.sleep(WATCH_SECONDS)
    return reached


@contextmanager
def proxied(proxy: Path, upstream: str, **others: float) -> Iterator[str]:
    """A proxy before `upstream`; `others` are more of its options."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options: dict[str, object] = {
        "upstream": upstream,
        "port": port,
        "slots": SLOTS,
        "median": MEDIAN,
        "sigma": SIGMA,
    }
    options |= others
    words = [word for name, value in options.items() for word in (f"--{name}", str(value))]
    process = subprocess.Popen([sys.executable, proxy, *words], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    try:
        assert process.stdout.readline(), "the proxy did not start"
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


def get_stats(url: str) -> dict[str, float]:
    """What a proxy has seen."""
    with urllib.request.urlopen(f"{url}/stats", timeout=5) as reply:
        stats: dict[str, float] = json.load(reply)
    return stats


def _cpu_seconds() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _page(rows: list[dict[str, float | str]], line: str) -> str:
    columns = {
        "job": "{}", "concurrency": "{}", "answers": "{:.0f}", "samples": "{:.0f}",
        "ideal_s": "{:.1f}", "span_s": "{:.1f}", "slot_use": "{:.3f}", "lowest_use": "{:.3f}",
        "highest_use": "{:.3f}", "slots_reached_s": "{:.1f}",
        "first_sample_s": "{:.1f}", "cpu_ms_a_request": "{:.2f}", "memory_mb": "{:.0f}",
        "peak_in_flight": "{:.0f}",
    }  # fmt: skip
    table = [
        "| " + " | ".join(c.replace("_", " ") for c in columns) + " |",
        "|---" * len(columns) + "|",
    ]
    for row in rows:
        cells = (form.format(row[name]) for name, form in columns.items())
        table.append("| " + " | ".join(cells) + " |")
    packages = ", ".join(f"{name} {version(name)}" for name in ("openai", "aiohttp", "rapidfuzz"))
    return (
        "# Generation: how well a busy teacher is kept at work\n\n"
        + "\n".join(table)
        + f"\n\nCommand: `{line}`\n\n{os.cpu_count()} cores ({platform.machine()}), shared with "
        "the proxy and the embedded teacher; medians of all but the lowest and the highest use; "
        f"Python {platform.python_version()}, {packages}.\n"
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--proxy", type=Path)
    parser.add_argument("--jobs", nargs="+", choices=JOBS, default=JOBS)
    parser.add_argument("--concurrency", nargs="+", type=int, default=[SLOTS, 0])
    parser.add_argument("--repeats", type=int, default=1, help="Each with other latencies.")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--one", nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        url, job, concurrency, taxonomy = arguments.one
        print(json.dumps(run_once(url, job, int(concurrency), Path(taxonomy))))
        return
    if arguments.proxy is None:
        parser.error("name the proxy with --proxy")
    rows: list[dict[str, float | str]] = []
    for job in arguments.jobs:
        for concurrency in arguments.concurrency:
            seeds = range(1, arguments.repeats + 1)
            runs = [measure(arguments.proxy, job, concurrency, seed) for seed in seeds]
            names = [name for name, value in runs[0].items() if not isinstance(value, dict)]
            medians = {name: statistics.median(run[name] for run in runs) for name in names}
            rows.append({"job": job, "concurrency": concurrency or "found", **medians})
            uses = [run["slot_use"] for run in runs]
            rows[-1] |= {"lowest_use": min(uses), "highest_use": max(uses)}
            print(json.dumps(rows[-1]), flush=True)
    page = _page(rows, f"python benchmarks/{Path(__file__).name} {' '.join(sys.argv[1:])}")
    print(page)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
