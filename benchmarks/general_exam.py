"""The general-knowledge exam's own quality: what bases of several sizes answer, by kind.

    python benchmarks/general_exam.py NAME=FOLDER[:own|:lab] ... [--dtype DTYPE ...] [--show KIND]

For each model: how many items it has right in the first wording, in the second and in both, how
often the two wordings agree (with Cohen's kappa: what is beyond chance of it), and the time.
Answers are cached as in a run. With several `--dtype` each model sits in each of them, and it is
said how much it keeps of itself: what rounding alone turns, which is the most that any training can
be seen to keep. `--show` prints what was said to the items of a kind, for mending
checks by eye. With lm_eval, choices at full length for the same models are one line more:

    lm_eval --model hf --model_args pretrained=FOLDER --tasks arc_easy,hellaswag
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import NamedTuple

from feldspar.cli.progress import make_progress
from feldspar.config import GeneralConfig, StudentConfig
from feldspar.evaluate.examinee import CheckpointExaminee
from feldspar.evaluate.general.answers import general_answers
from feldspar.evaluate.general.marks import GeneralAnswer, Marks, marks_of
from feldspar.evaluate.general.questions import (
    GeneralItem,
    cannot_be_asked,
    general_items,
    halves,
    kinds,
)
from feldspar.runs import cache_folder
from feldspar.stats.intervals import proportion_interval
from feldspar.student.model import base_checkpoint
from feldspar.tokens.count import TokenCounter

DTYPES = ("float32", "bfloat16")


class Sat(NamedTuple):
    """A model that sat the exam."""

    name: str
    model: str
    answers: Sequence[GeneralAnswer]
    marks: Mapping[str, Marks]
    seconds: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+", metavar="NAME=FOLDER[:TEMPLATE]")
    parser.add_argument("--dtype", nargs="+", default=["bfloat16"], choices=DTYPES)
    parser.add_argument("--show", action="append", default=[], metavar="KIND")
    wanted = parser.parse_args()
    items = general_items()
    asked = [(model, dtype) for model in wanted.models for dtype in wanted.dtype]
    sat = [one for model, dtype in asked if (one := sit(model, dtype, items))]
    if not sat:
        return
    print("\n".join(table(items, sat)))
    for one in sat:
        print(f"\n{agreement(one)}")
    for one, other in pairwise(sat):
        if one.model == other.model:
            print(f"\n{kept_of_itself(one, other)}")
    for kind in wanted.show:
        for one in sat:
            print(f"\n## {one.name}: {kind}\n")
            print("\n".join(shown(kinds(items)[kind], one)))


def sit(model: str, dtype: str, items: Sequence[GeneralItem]) -> Sat | None:
    """Both halves, each from the cache where it was asked before. None where it cannot be asked."""
    name, _, place = model.partition("=")
    folder, _, template = place.partition(":")
    if why_not := cannot_be_asked(TokenCounter(folder)):
        print(f"{name}: {why_not}")
        return None
    student = StudentConfig.model_validate(
        {"base": folder, "template": template or "own", "dtype": dtype}
    )
    examinee = CheckpointExaminee(name, base_checkpoint(folder), student)
    started = time.monotonic()
    answers = [
        answer
        for half in halves(items).values()
        for answer in general_answers(
            examinee,
            half,
            max_new_tokens=GeneralConfig().max_new_tokens,
            cache_path=cache_folder() / "general",
            progress=make_progress(),
        )
    ]
    seconds = time.monotonic() - started
    return Sat(f"{name} in {dtype}", model, answers, marks_of(items, answers), seconds)


def table(items: Sequence[GeneralItem], sat: Sequence[Sat]) -> list[str]:
    """Right in the first wording, the second, and both, by kind."""
    lines = ["| kind | items | " + " | ".join(f"{one.name}: 1st, 2nd, both" for one in sat) + " |"]
    lines += ["|---|---:|" + "---|" * len(sat)]
    for kind, of_kind in [*kinds(items).items(), ("**all**", items)]:
        cells = []
        for one in sat:
            marks = [one.marks[item.id] for item in of_kind]
            both = sum(m.both for m in marks)
            cells.append(
                f"{sum(m.first for m in marks)}, {sum(m.second for m in marks)}, **{both}**"
            )
        lines.append(f"| {kind} | {len(of_kind)} | " + " | ".join(cells) + " |")
    return lines


def agreement(one: Sat) -> str:
    """How often both wordings are right, or both wrong, and how much of that is beyond chance."""
    marks = list(one.marks.values())
    num = len(marks)
    alike = sum(m.first == m.second for m in marks)
    first, second = (sum(m[i] for m in marks) / num for i in (0, 1))
    by_chance = first * second + (1 - first) * (1 - second)
    kappa = (alike / num - by_chance) / (1 - by_chance) if by_chance < 1 else 0.0
    both = sum(m.both for m in marks)
    low, high = proportion_interval(both, num)
    return (
        f"{one.name}: {both} of {num} right in both wordings ({both / num:.2f} [{low:.2f}, "
        f"{high:.2f}]); the wordings agree on {alike / num:.2f} (kappa {kappa:.2f}); "
        f"{one.seconds:.0f} s"
    )


def kept_of_itself(one: Sat, other: Sat) -> str:
    """Of what a model has right, what it still has right when it is computed otherwise."""
    known = [item for item, marks in one.marks.items() if marks.both]
    kept = sum(other.marks[item].both for item in known)
    low, high = proportion_interval(kept, len(known))
    single = [(m[i], other.marks[item][i]) for item, m in one.marks.items() for i in (0, 1)]
    turned = sum(not after for before, after in single if before)
    num_right = sum(before for before, _ in single)
    texts = [(a.texts, b.texts) for a, b in zip(one.answers, other.answers, strict=True)]
    alike = sum(x == y for pair in texts for x, y in zip(*pair, strict=True))
    return (
        f"{one.name}, then {other.name}: of {len(known)} items right in both wordings {kept} are "
        f"still ({kept / len(known):.2f} [{low:.2f}, {high:.2f}]); {turned} of {num_right} right "
        f"answers turned wrong ({turned / num_right:.2f}); {alike} of {len(single)} answers are "
        "the same text"
    )


def shown(items: Sequence[GeneralItem], one: Sat) -> list[str]:
    texts = {answer.item: answer.texts for answer in one.answers}
    return [
        f"{'x' if is_right else ' '} {question!r} -> {text!r}"
        for item in items
        for question, text, is_right in zip(
            item.ask, texts[item.id], one.marks[item.id], strict=True
        )
    ]


if __name__ == "__main__":
    main()
