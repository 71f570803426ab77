"""Write docs/shopping.md: what to rent for each published model and three modern bases.

    python docs/shopping.py

Each row is one `feldspar plan --cluster ... --json`; the page shows the command. Prices are stated
below, not looked up.
"""

import json
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).parents[1]
PRICE_PER_GPU_HOUR = {"h100": 2.5, "h200": 3.5, "rtx4090": 0.4}
PRICE_PER_MILLION_TOKENS = 0.5
SAMPLES = {"knowledge": 5_000, "foundational": 2_500, "compositional": 2_500}
"""For the modern bases; the published recipes state the paper's volumes."""
INTRODUCTION = f"""\
# What to rent

Hours and money for the four published models, at the paper's 1.2 million samples, and for three
modern bases at {sum(SAMPLES.values()):,} samples, a taxonomy of some dozens of leaves.
Every row is a plan, printed by a command below the table; nothing here was measured on a GPU
([what a plan assumes](planning.md#a-cluster)). The bracket is the same plan with every share of the
peak 1.25 times and 0.5 times as high.

Prices are examples, in one currency: {PRICE_PER_GPU_HOUR["h100"]:.2f} for an hour of an H100,
{PRICE_PER_GPU_HOUR["h200"]:.2f} of an H200, {PRICE_PER_GPU_HOUR["rtx4090"]:.2f} of an RTX 4090, and
{PRICE_PER_MILLION_TOKENS:.2f} for a million tokens of a teacher that somebody else serves, read or
written. Put your own into the commands, or into the recipe.

*Own* serves the recipe's teacher on the rented machine before training begins; *priced* asks one
that takes money for tokens, and rents the machine for training alone.

| recipe | teacher | machine | GPU-h teacher | training | preferences | hours | bracket | money |
|---|---|---|---:|---:|---:|---:|---|---:|
"""
NOTES = """
- Hours are those in which the machine is rented, from the first call to the last score, without
  what the plan leaves out and says so: benchmarks, and the student's answers to exams.
- A priced teacher's own time is not in the hours: it depends on its rate limit. Rent the machine
  when `feldspar generate` is done.
- Where the machine is an H200, a copy of the recipe's own teacher has no room on the same number of
  H100s.
- Other volumes and machines: change `plan.samples` and `--cluster` in the commands. `feldspar plan`
  without `--cluster` says what memory is needed, and warns where the recipe does not fit.

## The commands

"""


class Row(NamedTuple):
    recipe: str
    machine: str
    is_own: bool
    settings: tuple[str, ...] = ()


def size(parameters: float, active: float) -> tuple[str, ...]:
    """The settings of a teacher's size."""
    return (
        f"plan.teacher.parameters={parameters:g}",
        f"plan.teacher.active_parameters={active:g}",
    )


PUBLISHED = ("merlinite-7b", "merlinite-7b-pt", "granite-7b-lab", "labradorite-13b")
VOLUME = tuple(f"plan.samples.{branch}={number}" for branch, number in SAMPLES.items())
ROWS = [
    *(Row(name, "h100x8x1", own) for name in PUBLISHED for own in (True, False)),
    Row("modern-laptop", "h200x1x1", True, (*VOLUME, *size(30.5e9, 3.3e9))),
    Row("modern-laptop", "rtx4090x1x1", False, VOLUME),
    Row("modern-one-gpu", "h100x1x1", True, (*VOLUME, *size(20.9e9, 3.6e9))),
    Row("modern-one-gpu", "h100x1x1", False, VOLUME),
    Row("modern-eight-gpus", "h200x8x1", True, (*VOLUME, *size(235e9, 22e9))),
    Row("modern-eight-gpus", "h100x8x1", False, VOLUME),
]


def main() -> int:
    table, commands = [], []
    with tempfile.TemporaryDirectory() as folder:
        for row in ROWS:
            command = command_of(row)
            plan = planned(command, Path(folder))
            table.append(line_of(row, plan))
            commands.append(f"feldspar {shlex.join(command)}")
            print(table[-1], file=sys.stderr, flush=True)
    shown = "\n".join(commands)
    page = INTRODUCTION + "\n".join(table) + "\n" + NOTES + f"```\n{shown}\n```\n"
    (ROOT / "docs" / "shopping.md").write_text(page, encoding="utf-8")
    return 0


def command_of(row: Row) -> list[str]:
    gpu = row.machine.rsplit("x", 2)[0]
    settings = [*row.settings, f"plan.price_per_gpu_hour={PRICE_PER_GPU_HOUR[gpu]}"]
    if not row.is_own:
        price = PRICE_PER_MILLION_TOKENS
        settings += [f"teacher.prompt_price={price}", f"teacher.completion_price={price}"]
    words = ["plan", f"recipes/{row.recipe}.toml", "--cluster", row.machine]
    return [*words, *(word for setting in settings for word in ("--set", setting))]


def planned(command: list[str], folder: Path) -> dict[str, Any]:
    """Without a taxonomy at hand, so that the stated volumes count."""
    recipe = ROOT / command[1]
    words = [command[0], str(recipe), *command[2:], "--json"]
    done = subprocess.run(
        [sys.executable, "-m", "feldspar.cli.main", *words],
        cwd=folder,
        stdout=subprocess.PIPE,
        text=True,
        check=True,
    )
    return dict(json.loads(done.stdout))


def line_of(row: Row, plan: dict[str, Any]) -> str:
    hours = dict.fromkeys(("teacher", "training", "preference"), 0.0)
    for turn in plan["turns"]:
        role = turn["role"]
        if role in ("policy", "aligned", "base") or turn["part"].startswith(("round", "control")):
            hours["preference"] += turn["gpu_hours"]
        elif role in ("teacher", "judge"):
            hours["teacher"] += turn["gpu_hours"]
        elif role == "training":
            hours["training"] += turn["gpu_hours"]
    cells = [f"{value:,.1f}" if value else "-" for value in hours.values()]
    expected, fastest, slowest = (plan[name] for name in ("expected", "fastest", "slowest"))
    bracket = f"{fastest['hours']:,.1f} to {slowest['hours']:,.1f}"
    told = [row.recipe, "own" if row.is_own else "priced", row.machine, *cells]
    told += [f"{expected['hours']:,.1f}", bracket, f"{expected['cost']:,.0f}"]
    return f"| {' | '.join(told)} |"


if __name__ == "__main__":
    sys.exit(main())
