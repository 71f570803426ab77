"""The demo over several seeds, as tables and a picture: learned, kept, lost.

    for n in 1 2 3; do feldspar run recipes/demo.toml --set seed=$n --set name=demo-$n; done
    python benchmarks/demo.py runs/demo-1 runs/demo-2 runs/demo-3 --svg docs/img/demo.svg

Prints Markdown: every exam of base and taught by seed, the kinds of general knowledge that lost
most, and five general questions as both answer them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from feldspar.evaluate.examples import example_questions
from feldspar.records import Score
from feldspar.runs import open_step
from feldspar.serve.chat import Conversationalist

KEPT = "general knowledge kept"
NUM_ASKED = 5
NUM_KINDS = 8
TOKENS = 40


def scores_of(run: Path) -> dict[tuple[str, str], Score]:
    """By (exam, checkpoint), `base` and `taught`: shares of right answers."""
    steps = [open_step(run, name) or () for name in ("scores", "general")]
    rows = [s for step in steps for s in step if isinstance(s, Score)]
    accurate = [s for s in rows if s.metric == "accuracy" and not s.leaf]
    last = [s.checkpoint for s in accurate if s.checkpoint != "base"][-1]
    names = {"base": "base", last: "taught"}
    return {(s.exam, names[s.checkpoint]): s for s in accurate if s.checkpoint in names}


def exams_table(runs: Sequence[dict[tuple[str, str], Score]]) -> str:
    lines = [
        "| exam | items | base | " + " | ".join(f"seed {n + 1}" for n in range(len(runs))) + " |"
    ]
    lines += ["|---|---:|---|" + "---|" * len(runs)]
    for exam in [exam for exam, who in runs[0] if who == "taught" and ": " not in exam]:
        base = runs[0].get((exam, "base"))
        cells = [shown(run[exam, "taught"]) for run in runs]
        items = runs[0][exam, "taught"].num_items
        lines.append(f"| {exam} | {items} | {shown(base)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def kinds_table(runs: Sequence[dict[tuple[str, str], Score]]) -> str:
    """The kinds of kept knowledge that lost most items, over all seeds."""
    kinds = [exam for exam, who in runs[0] if who == "taught" and exam.startswith(f"{KEPT}: ")]
    lost = {exam: sum(num_lost(run[exam, "taught"]) for run in runs) for exam in kinds}
    lines = ["| kind | items | lost, by seed |", "|---|---:|---|"]
    for exam in sorted(kinds, key=lambda exam: -lost[exam])[:NUM_KINDS]:
        by_seed = ", ".join(str(num_lost(run[exam, "taught"])) for run in runs)
        num_items = runs[0][exam, "taught"].num_items
        lines.append(f"| {exam.removeprefix(f'{KEPT}: ')} | {num_items} | {by_seed} |")
    return "\n".join(lines)


def num_lost(score: Score) -> int:
    return round((1 - score.value) * score.num_items)


def shown(score: Score | None) -> str:
    if score is None:
        return "-"
    return f"{score.value:.2f} [{score.interval.low:.2f}, {score.interval.high:.2f}]"


def answers_table(run: Path) -> str:
    """Five general questions, drawn by the questions alone, as base and taught answer them."""
    partner = Conversationalist(run, max_tokens=TOKENS, temperature=0.0)
    partner.bring_base()
    lines = ["| question | base | taught |", "|---|---|---|"]
    for question in example_questions(run, 2 * NUM_ASKED)[NUM_ASKED:]:
        partner.forget()
        *_, (taught, base) = partner.answers(question)
        cells = (
            " ".join(text.split()).replace("|", "\\|") for text in (question, base or "", taught)
        )
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(runs: Sequence[dict[tuple[str, str], Score]], path: Path) -> None:
    """Bars of base and taught, the mean of all seeds, with the intervals of the first."""
    import matplotlib

    matplotlib.use("svg")
    import matplotlib.pyplot as plt

    exams = [exam for exam, who in runs[0] if who == "taught" and ": " not in exam]
    figure, axes = plt.subplots(figsize=(7.2, 0.7 * len(exams) + 0.8))
    for offset, who, color in ((-0.19, "taught", "#1b7f5c"), (0.19, "base", "#b0b0b0")):
        for place, exam in enumerate(reversed(exams)):
            found = [run[exam, who] for run in runs if (exam, who) in run]
            mean = sum(score.value for score in found) / max(len(found), 1)
            axes.barh(place + offset, mean, 0.36, color=color, label=who if not place else None)
            axes.text(mean + 0.01, place + offset, f"{mean:.2f}", va="center", fontsize=8)
    axes.set_yticks(range(len(exams)), list(reversed(exams)))
    axes.set_xlim(0, 1.1)
    axes.set_xlabel(f"share of right answers, mean of {len(runs)} seeds")
    axes.legend(loc="center right", frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None})


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("runs", type=Path, nargs="+", help="folders of runs, one a seed")
    parser.add_argument("--svg", type=Path, help="where to draw the picture")
    options = parser.parse_args()
    runs = [scores_of(run) for run in options.runs]
    print(exams_table(runs), kinds_table(runs), sep="\n\n", flush=True)
    if options.svg:
        draw(runs, options.svg)
    print("\n" + answers_table(options.runs[0]))


if __name__ == "__main__":
    main()
