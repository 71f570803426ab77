"""What each kind of replay is worth, in the micro-world: one recipe, four arms, one table.

    python benchmarks/arms.py [--seeds 1] [--out benchmarks/arms_WHAT_DATE.md]

Every arm is the quickstart with `--set`; the command for each stands in the table's file.
"""

from __future__ import annotations

import argparse
import os
import platform
import shlex
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path

from feldspar.report.grid import score_grid

from feldspar.records import Score
from feldspar.runs import open_step

ROOT = Path(__file__).parents[1]
RECIPE = ROOT / "recipes" / "quickstart.toml"
NO_REPLAY = ["train.phase.1.replay=[]", "train.phase.2.replay=[]", "mix.base_replay=none"]
ARMS = {
    "no replay": NO_REPLAY,
    "LAB replay": ["mix.base_replay=none"],
    "LAB and base replay": [],
    "skills without the knowledge": [
        "train.phase.0=none",
        "train.phase.0=none",
        "train.phase.0.replay=[]",
    ],
}
EXAMS = (
    "new-knowledge",
    "old-knowledge",
    "foundational",
    "compositional-unseen-pairs",
    "compositional-unseen-entities",
)


def command(arm: str, seed: int) -> list[str]:
    """The command line of an arm."""
    name = f"{arm.replace(' ', '-')}-{seed}"
    settings = [f"name={name}", "prefer=none", f"seed={seed}", f"world.seed={seed}", *ARMS[arm]]
    sets = [word for setting in settings for word in ("--set", setting)]
    return ["feldspar", "run", str(RECIPE.relative_to(ROOT)), *sets]


def run_arm(arm: str, seed: int, runs: Path) -> dict[str, dict[str, Score]]:
    """Scores by exam and checkpoint (`base` and the last phase)."""
    line = [sys.executable, "-m", "feldspar.cli.main", *command(arm, seed)[1:]]
    subprocess.run([*line, "--runs", str(runs)], cwd=ROOT, check=True)
    scores = open_step(runs / f"{arm.replace(' ', '-')}-{seed}", "scores")
    assert scores is not None
    grid = score_grid(scores)
    return {e: {"base": grid.cells[e, "base"], "end": grid.cells[e, "skills"]} for e in EXAMS}


def text(score: Score) -> str:
    return f"{score.value:.2f} [{score.interval.low:.2f}, {score.interval.high:.2f}]"


def table(results: dict[tuple[str, int], dict[str, dict[str, Score]]]) -> str:
    """One row an arm and seed."""
    lines = ["| arm | seed | " + " | ".join(EXAMS) + " |", "|---|---|" + "---|" * len(EXAMS)]
    seen: set[int] = set()
    for (arm, seed), exams in results.items():
        if seed not in seen:
            seen.add(seed)
            cells = " | ".join(text(exams[e]["base"]) for e in EXAMS)
            lines.append(f"| base, before | {seed} | {cells} |")
        lines.append(
            f"| {arm} | {seed} | " + " | ".join(text(exams[e]["end"]) for e in EXAMS) + " |"
        )
    first = next(iter(results.values()))
    items = ", ".join(f"{e} {first[e]['base'].num_items}" for e in EXAMS)
    return "\n".join(lines) + f"\n\nItems: {items}. Intervals are Wilson's, 95 %.\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs")
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    started = time.monotonic()
    results = {
        (arm, seed): run_arm(arm, seed, arguments.runs) for seed in arguments.seeds for arm in ARMS
    }
    commands = "\n".join(shlex.join(command(arm, arguments.seeds[0])) for arm in ARMS)
    page = (
        f"# What replay is worth in the micro-world\n\n{table(results)}\n"
        f"Commands:\n\n```\n{commands}\n```\n\n"
        f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}, "
        f"Python {platform.python_version()}, torch {version('torch')}, transformers "
        f"{version('transformers')}; {time.monotonic() - started:.0f} s in all. "
        f"Again: `python benchmarks/arms.py --seeds {' '.join(map(str, arguments.seeds))}`\n"
    )
    print(page)
    if arguments.out:
        arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
