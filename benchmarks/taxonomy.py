"""How long `feldspar taxonomy check` takes, and how much memory: a real tree and a large one.

    python benchmarks/taxonomy.py [--tree PATH] [--out benchmarks/taxonomy_WHAT_DATE.md]

The large tree is 10,000 leaves with five seeds each, half of them knowledge with a local document.
Each command runs three times in a process of its own, import and output included.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import resource
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

NUM_LEAVES = 10_000
WORDS = ["amber", "basalt", "cobalt", "delta", "ember", "flint", "garnet", "harbor", "iris", "jade"]
RUNS = 3


class Measured(NamedTuple):
    seconds: float
    """The slowest run."""
    peak_megabytes: float
    """Of the largest process so far."""
    told: str
    """The command's last line."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tree", type=Path, help="a taxonomy to check as well")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    rows = [(arguments.tree.name, measure(arguments.tree))] if arguments.tree else []
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder), NUM_LEAVES, random.Random(1))
        rows.append((f"{NUM_LEAVES:,} generated leaves", measure(Path(folder))))
    page = table(rows)
    print(page)
    if arguments.out is not None:
        arguments.out.write_text(page, encoding="utf-8")


def measure(tree: Path) -> Measured:
    command = [sys.executable, "-m", "feldspar.cli.main", "taxonomy", "check", str(tree)]
    seconds = []
    for _ in range(RUNS):
        started = time.monotonic()
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        seconds.append(time.monotonic() - started)
        assert done.returncode in (0, 3), done.stderr
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    return Measured(max(seconds), peak, done.stdout.splitlines()[-1])


def write_tree(root: Path, num_leaves: int, rng: random.Random) -> None:
    for number in range(num_leaves):
        branch = ("knowledge", "compositional_skills")[number % 2]
        leaf = root / branch / WORDS[number % len(WORDS)] / str(number)
        leaf.mkdir(parents=True)
        passages = [" ".join(rng.choices(WORDS, k=60)) for _ in range(5)]
        context = "    context: {}\n" if branch == "knowledge" else ""
        seeds = "".join(
            f"  - question: What is {rng.choice(WORDS)} number {rng.randrange(10**6)}?\n"
            f"    answer: {' '.join(passage.split()[:12])}\n{context.format(passage)}"
            for passage in passages
        )
        text = f"version: 2\ncreated_by: a\ntask_description: b\nseed_examples:\n{seeds}"
        if branch == "knowledge":
            text += "document:\n  path: document.md\n"
            (leaf / "document.md").write_text("# Title\n\n" + "\n\n".join(passages) + "\n")
            (leaf / "attribution.txt").write_text("License of the work: CC0-1.0\n")
        (leaf / "qna.yaml").write_text(text)


def table(rows: list[tuple[str, Measured]]) -> str:
    lines = [
        "# Checking a taxonomy",
        "",
        f"Hardware: {os.cpu_count()} cores of {platform.machine()}, shared with other work. "
        f"Python {platform.python_version()}, PyYAML {version('pyyaml')}, "
        f"rapidfuzz {version('rapidfuzz')}.",
        "",
        f"`python benchmarks/taxonomy.py [--tree PATH]`: the slowest of {RUNS} runs, start "
        "and output included; the peak is that of the largest process up to and including the row.",
        "",
        "| taxonomy | seconds | peak MB | what `check` said |",
        "|---|---|---|---|",
    ]
    lines += [
        f"| {name} | {m.seconds:.2f} | {m.peak_megabytes:.0f} | {m.told} |" for name, m in rows
    ]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
