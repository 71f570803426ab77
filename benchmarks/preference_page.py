"""The page and the figure of benchmarks/preference.py, from the results that are there.

python benchmarks/preference_page.py --runs FOLDER --out benchmarks/preference_WHAT_DATE.md
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import re
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np

matplotlib.use("Agg")
from matplotlib import pyplot

MAIN = "log-ratio-N-=-16"
FREE = "free-wording-log-ratio"
READING = "## What it says"
ORDER = (
    MAIN, "no-reference", "wrong-reference", "N-=-4", "N-=-64", "mean-over-tokens",
    "restart-from-SFT", "DPO", FREE, "free-wording-no-reference",
    "free-wording-wrong-reference", "free-wording-mean-over-tokens", "domain-prompts",
    "examples-in-context", "heeded-no-prompts", "heeded-domain-prompts",
    "heeded-prompts-and-examples", "heeded-another-domain's-prompts",
)  # fmt: skip
PROMPTED = ORDER[ORDER.index("domain-prompts") :]
ROUNDS = (1, 2, 3)
STUDENT_T = {1: 12.71, 2: 4.303, 3: 3.182, 4: 2.776}
"""97.5 % quantiles by degrees of freedom."""
FIGURES = {
    "best_reward": "best of 16, prompts with a choice",
    "mean_reward": "mean of the policy that was drawn from",
    "held_out_after": "mean after the round, held-out prompts",
    "equal_share": "share of prompts with equal rewards",
    "distinct_share": "share of different answers",
    "length_correlation": "r of reward and length",
}
Results = dict[str, list[dict[str, Any]]]


def read_results(runs: Path) -> Results:
    """By arm, in the order of seeds."""
    found: Results = {arm: [] for arm in ORDER}
    for path in sorted(runs.glob("seed-*/*/result.json")):
        found[path.parent.name].append(json.loads(path.read_text(encoding="utf-8")))
    return {arm: rows for arm, rows in found.items() if rows}


def interval(values: Sequence[float], digits: int = 3) -> str:
    """Mean over seeds with its 95 % interval by Student's t; one value stands alone."""
    if len(values) < 2:
        return " ".join(f"{value:.{digits}f}" for value in values) or "-"
    freedom = min(len(values) - 1, max(STUDENT_T))
    half = STUDENT_T[freedom] * float(np.std(values, ddof=1)) / len(values) ** 0.5
    return f"{np.mean(values):.{digits}f} ± {half:.{digits}f}"


def measured(rows: Sequence[dict[str, Any]], phase: str, key: str) -> list[float]:
    return [row["measured"][phase][key] for row in rows if phase in row["measured"]]


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows)])


def released_quality(rows: Sequence[dict[str, Any]]) -> list[float]:
    """Of the round that is released; of the start, where none is."""
    phases = [next((r["phase"] for r in row["rounds"] if r["released"]), None) for row in rows]
    return [
        (row["measured"][phase] if phase else row["start"])["quality"]
        for row, phase in zip(rows, phases, strict=True)
    ]


def quality_table(results: Results) -> str:
    rows = []
    for arm, found in results.items():
        for kind in ("round", "control"):
            by_round = [measured(found, f"{kind}-{n}", "quality") for n in ROUNDS]
            if any(by_round):
                name = arm.replace("-", " ")
                name = name if kind == "round" else f"random pick beside {name}"
                start = [row["start"]["quality"] for row in found]
                cells = [interval(values) for values in (start, *by_round)]
                rows.append([name, str(len(found)), *cells])
    return table(["arm", "seeds", "SFT start", "round 1", "round 2", "round 3"], rows)


def gain_table(results: Results) -> str:
    rows = []
    for arm, found in results.items():
        name = arm.replace("-", " ")
        rows.append([name, *(interval(gains(found, n)) for n in ROUNDS)])
        if any("control-1" in row["measured"] for row in found):
            over = [interval(gains(found, n, f"control-{n}")) for n in ROUNDS]
            rows.append([f"{name}, over the round's random pick", *over])
    return table(["arm", "round 1", "round 2", "round 3"], rows)


def gains(rows: Sequence[dict[str, Any]], number: int, over: str | None = None) -> list[float]:
    """Of a round's quality over the start's, or over that of another phase, by seed."""
    phase = f"round-{number}"
    return [
        row["measured"][phase]["quality"]
        - (row["start"] if over is None else row["measured"][over])["quality"]
        for row in rows
        if phase in row["measured"]
    ]


def length_table(results: Results) -> str:
    rows = []
    for arm, found in results.items():
        start = [row["start"]["tokens"] for row in found]
        by_round = [measured(found, f"round-{n}", "tokens") for n in ROUNDS]
        told = [measured_kind(found, f"round-{n}", "everything") for n in (1, 3)]
        cells = [interval(values, 1) for values in (start, *by_round)]
        rows.append([arm.replace("-", " "), *cells, *(interval(values) for values in told)])
    head = ["arm", "SFT start", "round 1", "round 2", "round 3"]
    return table([*head, "descriptions, round 1", "round 3"], rows)


def measured_kind(rows: Sequence[dict[str, Any]], phase: str, kind: str) -> list[float]:
    return [row["measured"][phase]["kinds"][kind] for row in rows if phase in row["measured"]]


def reward_table(found: Sequence[dict[str, Any]]) -> str:
    rows = []
    for key, text in FIGURES.items():
        cells = [interval([row["rounds"][n - 1][key] for row in found]) for n in ROUNDS]
        rows.append([text, *cells])
    return table(["", "round 1", "round 2", "round 3"], rows)


def truth_table(results: Results) -> str:
    """How the reward of each arm goes with the truth in round 1, before anything is tuned on it."""
    rows = [
        [
            arm.replace("-", " "),
            str(len(found)),
            *(
                interval([row["agreement"][key] for row in found])
                for key in ("pairs", "correlation")
            ),
        ]
        for arm, found in results.items()
    ]
    return table(["arm", "seeds", "pairs in which the better has the higher reward", "r"], rows)


def make_page(results: Results, reading: str) -> str:
    main = results[MAIN]
    seconds = sum(row["cpu_seconds"] for found in results.values() for row in found)
    pairs, correlation = (
        interval([row["agreement"][key] for row in main]) for key in ("pairs", "correlation")
    )
    start = [row["start"]["quality"] for row in main]
    free = results.get(FREE)
    reward_of_free = f"Where wording is free:\n\n{reward_table(free)}\n\n" if free else ""
    return f"""# What the log-ratio reward and its rounds do in the micro-world

One world and one reward pair; each seed has its own SFT start, prompts, questions and draws. The
start is taught by a writer who is wrong one time in ten and stops short one time in four: its
quality at temperature 1 is {interval(start)}. Prompts come from kinds of question in which it is
under .8. In the "free wording" arms all questions ask for descriptions, of one to four facts in any
order and wording, with a pair and starts of their own; they were added after the arm without a
reference had been seen on the others. All figures are means over seeds with 95 % intervals by
Student's t.

## Reward and truth, in round 1

- The better of two answers to a prompt has the higher reward: {pairs} of such pairs.
- Pearson's r of reward and quality, each prompt's mean taken out: {correlation}.

{truth_table(results)}

In the "domain prompts" and "examples in context" arms the study's own pair reads a sentence on what
counts in each kind of question, or one solved question; it never saw a prompt. In the "heeded" arms
the aligned model was taught to be right where it is told what counts in the question's domain, and
to err as its base does elsewhere (`benchmarks/preference_prompts.py`).

## Quality by round

The share of right answers at temperature 1 to questions never tuned on; of a description, its true
facts less its false ones, of four.

{quality_table(results)}

The random pick of a round starts from the model that the round starts from. The round that the
product releases, by the reward on held-out prompts, has quality {interval(released_quality(main))}.

## Gain over the SFT start, paired by seed

{gain_table(results)}

{reading}
## Length in tokens, and quality of descriptions, the long answers

{length_table(results)}

## Rewards by round, beside the published card

The card of Merlinite-7B-pt has the batch's reward rise to round 2 and saturate in round 3. Here,
in nats:

{reward_table(main)}

{reward_of_free}![Quality by round](FIGURE)

{os.cpu_count()} cores, {platform.processor() or platform.machine()}, one thread an arm, Python
{platform.python_version()}, torch {version("torch")}, transformers {version("transformers")};
{seconds / 60:.0f} CPU minutes for the arms above, beside the pair and the starts.
Again: `python benchmarks/preference.py --runs FOLDER`, then
`python benchmarks/preference_page.py --runs FOLDER --out PAGE.md`.
"""


def draw_figure(results: Results, path: Path) -> None:
    """Quality by round, an arm a line; bars are standard errors over seeds."""
    free = [arm for arm in ORDER if arm.startswith("free")]
    parts = {
        "One right answer a question": [a for a in ORDER if a not in (*free, *PROMPTED)],
        "Free wording": free,
        "Prompts of the reward pair": PROMPTED,
    }
    there = {title: [arm for arm in arms if arm in results] for title, arms in parts.items()}
    shown_in = {title: {a: results[a] for a in arms} for title, arms in there.items() if arms}
    size = (9.0, 4.2 * len(shown_in))
    figure, grid = pyplot.subplots(len(shown_in), 1, figsize=size, sharex=True, squeeze=False)
    panels = grid[:, 0]
    for axes, (title, shown) in zip(panels, shown_in.items(), strict=True):
        for number, (arm, found) in enumerate(shown.items()):
            name = arm.replace("-", " ").removeprefix("free wording ")
            draw_line(axes, found, "round", name, f"C{number}", "-")
            draw_line(axes, found, "control", f"random pick beside {name}", f"C{number}", "--")
        axes.set_title(title)
        axes.set_ylabel("quality at temperature 1 ± standard error")
        axes.legend(fontsize=8, loc="center left", bbox_to_anchor=(1.01, 0.5))
    panels[-1].set_xticks(range(4), ["SFT", "round 1", "round 2", "round 3"])
    figure.tight_layout()
    figure.savefig(path, dpi=110)


def draw_line(
    axes: Any, found: Sequence[dict[str, Any]], kind: str, label: str, colour: str, style: str
) -> None:
    by_round = [measured(found, f"{kind}-{n}", "quality") for n in ROUNDS]
    points = [
        [row["start"]["quality"] for row in found],
        *(values for values in by_round if values),
    ]
    if len(points) > 1:
        means = [float(np.mean(values)) for values in points]
        errors = [float(np.std(values)) / len(values) ** 0.5 for values in points]
        axes.errorbar(
            range(len(points)), means, errors, label=label, color=colour, linestyle=style, capsize=2
        )


def kept_reading(path: Path) -> str:
    """What somebody has written of the figures stays when these are made again."""
    before = path.read_text("utf-8") if path.exists() else ""
    found = re.search(rf"^{READING}\n.*?(?=\n^## )", before, re.DOTALL | re.MULTILINE)
    return found.group() if found else f"{READING}\n\nNobody has said so far.\n"


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    results = read_results(arguments.runs)
    figure_path = arguments.out.with_suffix(".png")
    draw_figure(results, figure_path)
    page = make_page(results, kept_reading(arguments.out)).replace("FIGURE", figure_path.name)
    arguments.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
