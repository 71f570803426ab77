"""A real model behind a real server as teacher: every reply is read, or shown with why it was not.

    python benchmarks/served_teacher.py MODEL --command 'SERVER ... {port}' --taxonomy FOLDER

Asks for a few samples of each leaf, through the run's own steps, journal and launched server, and
prints in Markdown what became of them: how many were asked for, came through each stage, fell and
why, and what the journal holds. It fails where a sample is neither kept nor named with its reason,
where a reason that is about a reply shows none, or where asking again pays for anything. It says
nothing about quality: a model of 135 million parameters is no teacher.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from feldspar.generate.funnel import FUNNEL_FILE, Funnel, read_funnel
from feldspar.runs import open_step

STAGES = ("asked", "answered", "parsed", "judged", "distinct", "clean", "kept")
COMMAND = [sys.executable, "-P", "-m", "feldspar.cli.main"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", help="the server's name for it")
    parser.add_argument("--command", required=True)
    parser.add_argument("--taxonomy", type=Path, required=True)
    parser.add_argument("--base", required=True, help="whose tokenizer counts")
    parser.add_argument("--samples", type=int, default=24, help="of each leaf")
    parser.add_argument("--concurrency", type=int, default=4)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        recipe = here / "recipe.toml"
        recipe.write_text(recipe_of(asked), encoding="utf-8")
        first = generate(recipe)
        step = open_step(here / "runs" / "asked", "samples")
        assert step is not None, "no samples were made"
        funnel = read_funnel(step.folder / FUNNEL_FILE)
        held = journal(recipe)
        generate(recipe, "--set", "name=again")
        again = journal(recipe)
    print(table(funnel))
    print("\n| model | stage | answers | prompt tokens | completion tokens |")
    print("|---|---|---:|---:|---:|")
    for row in held["stages"]:
        print("| " + " | ".join(str(value) for value in row.values()) + " |")
    print("\nasked again by another run: ", "nothing was paid" if again == held else "PAID TWICE")
    print("\nwarnings of the run:", *first or ["none"], sep="\n- ")
    if faults := [*unnamed(funnel), *([] if again == held else ["the same calls were paid twice"])]:
        sys.exit("\n".join(faults))


def recipe_of(asked: argparse.Namespace) -> str:
    return f"""
name = "asked"
seed = 1

[taxonomy]
path = {json.dumps(str(asked.taxonomy.resolve()))}
chunk_tokens = 120
exam_fraction = 0.0

[teacher]
command = {json.dumps(asked.command)}
model = {json.dumps(asked.model)}
concurrency = {asked.concurrency}
start_seconds = 600

[generate]
samples_per_leaf = {asked.samples}
calls_per_chunk = 3
pairs_per_call = 2
exam_items = 0
max_tokens = 200

[student]
base = {json.dumps(asked.base)}

[[train.phase]]
name = "knowledge"
branches = ["knowledge"]
"""


def generate(recipe: Path, *more: str) -> list[str]:
    """Run the steps up to the samples; gives the warnings."""
    ended = subprocess.run(
        [*COMMAND, "generate", str(recipe), *more],
        cwd=recipe.parent,
        capture_output=True,
        text=True,
        check=False,
    )
    if ended.returncode:
        sys.exit(ended.stderr)
    return [line for line in ended.stderr.splitlines() if line.startswith("WARNING")]


def journal(recipe: Path) -> Any:
    told = subprocess.run(
        [*COMMAND, "journal", "stats", str(recipe), "--json"],
        cwd=recipe.parent,
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(told.stdout)
    # The file may grow by what its own book-keeping needs.
    return {"stages": found["stages"]}


def table(funnel: Funnel) -> str:
    lines = [f"| leaf | {' | '.join(STAGES)} | why the others fell |"]
    lines.append("|---|" + "---:|" * len(STAGES) + "---|")
    for leaf in funnel.leaves:
        counts = " | ".join(str(getattr(leaf, stage)) for stage in STAGES)
        why = ", ".join(f"{r.reason} {r.count}" for r in leaf.reasons)
        lines.append(f"| {leaf.leaf} | {counts} | {why} |")
    return "\n".join(lines)


def unnamed(funnel: Funnel) -> list[str]:
    """What is not accounted for."""
    faults = []
    for leaf in funnel.leaves:
        fell = sum(reason.count for reason in leaf.reasons)
        if leaf.kept + fell != leaf.asked:
            faults.append(f"{leaf.leaf}: {leaf.asked} asked, {leaf.kept} kept, {fell} named")
        for reason in leaf.reasons:
            if reason.reason.startswith("format") and not any(e.reply for e in reason.examples):
                faults.append(f"{leaf.leaf}: {reason.reason} shows no reply")
    return faults


if __name__ == "__main__":
    main()
