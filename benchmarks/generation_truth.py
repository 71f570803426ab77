"""What judges and filters are worth, against the world's truth.

    python benchmarks/generation_truth.py [--samples 120] [--calls 6] [--out FILE.md]

A teacher that errs at fixed rates, each drawn independently per call, writes for every leaf of a
world's taxonomy; a judge that errs at rates of its own judges. The world knows which samples are
right. The same texts are judged and filtered again with one thing off at a time, and by judges of
four error rates. The teacher is asked within the process; journal and pipelines are the product's.
"""

from __future__ import annotations

import argparse
import os
import platform
import tempfile
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import matplotlib.pyplot as plt
from local_teacher import LocalTeacher, answer_by

from feldspar.config import ErrorRates, GenerateConfig, KnowledgeConfig, TaxonomyConfig, WorldConfig
from feldspar.generate import generate_samples, make_exams
from feldspar.records import ExamItem, Leaf, Sample
from feldspar.steps import Workspace
from feldspar.taxonomy import read_taxonomy
from feldspar.teacher import Journal
from feldspar.text import normalise
from feldspar.world.brain import Brain
from feldspar.world.judge import is_unsafe, world_truth
from feldspar.world.serve import world_of
from feldspar.world.write import write_world

WORLD = WorldConfig(num_old=40, num_new=30)
WRITES = ErrorRates(wrong_fact=0.15, unfaithful=0.05, off_format=0.05, duplicate=0.10, unsafe=0.02)
JUDGE_ERRORS = (0.05, 0.0, 0.10, 0.20)
"""The first is the one that all other comparisons are made with."""
OFF: dict[str, dict[str, Any]] = {
    "nothing off": {},
    "off: fit (safety of skills)": {"judge_skips": ("fit",)},
    "off: answer": {"judge_skips": ("answer",)},
    "off: faithful (grounding)": {"judge_skips": ("faithful",)},
    "off: relevant": {"judge_skips": ("relevant",)},
    "off: all judges": {"judge": False},
    "off: near-duplicates": {"near_duplicates": False},
    "off: all duplicates": {"duplicates": False},
    "off: exam questions": {"decontaminate": False},
    "off: language": {"language": False},
}
ALL_OFF = {"judge": False, "duplicates": False, "decontaminate": False, "language": False}
RENDERED = {"knowledge": KnowledgeConfig(renderings=("summary", "facts", "study"))}

Generate = Callable[..., list[Sample]]


class Table(NamedTuple):
    """What is in the kept rows, and what is not."""

    kept: int
    wrong: float
    """Part of the kept ones that are wrong, unsafe or claim too much."""
    lost: float
    """Part of the different right ones of all that was written that are not kept."""
    again: float
    """Part of the kept ones that say what an earlier one, or a seed, says."""
    in_exams: int
    """Kept ones that an exam asks."""


class Truth:
    """The world, its leaves, and what their exams ask."""

    def __init__(self, leaves: list[Leaf], exams: list[ExamItem]) -> None:
        world = world_of(WORLD)
        assert world is not None
        self._world = world
        self._seeds = {
            (leaf.path, *_said(seed)[:2], "" if leaf.branch == "knowledge" else _said(seed)[2])
            for leaf in leaves
            for seed in leaf.seeds
        }
        self._asked = {(item.leaf, *_said(item)[::2]) for item in exams}

    def is_right(self, sample: Sample) -> bool:
        return world_truth(self._world, sample) is True

    def is_asked(self, sample: Sample) -> bool:
        question, _, context = _said(sample)
        return (
            sample.leaf,
            question,
            "" if sample.branch == "knowledge" else context,
        ) in self._asked

    def wanted(self, samples: Iterable[Sample]) -> set[tuple[str, ...]]:
        """The different right ones that are neither a seed nor asked in an exam."""
        right = (s for s in samples if s.answer and self.is_right(s) and not self.is_asked(s))
        return {_content(sample) for sample in right} - self._seeds

    def table(self, samples: list[Sample], wanted: set[tuple[str, ...]]) -> Table:
        kept = [sample for sample in samples if sample.is_kept]
        seen, num_again = set(self._seeds), 0
        for sample in kept:
            num_again += _content(sample) in seen
            seen.add(_content(sample))
        return Table(
            kept=len(kept),
            wrong=sum(not self.is_right(sample) for sample in kept) / len(kept),
            lost=1 - len(self.wanted(kept) & wanted) / len(wanted),
            again=num_again / len(kept),
            in_exams=sum(self.is_asked(sample) for sample in kept),
        )


def _said(row: Any) -> tuple[str, str, str]:
    answer = row.reference if isinstance(row, ExamItem) else row.answer
    return normalise(row.question), normalise(answer), normalise(row.context or "")


def _content(sample: Sample) -> tuple[str, ...]:
    question, answer, context = _said(sample)
    return sample.leaf, question, answer, "" if sample.branch == "knowledge" else context


def study(num_samples: int, num_calls: int, folder: Path) -> dict[str, Table]:
    taxonomy = write_world(WORLD, folder / "world").taxonomy
    leaves = list(read_taxonomy(TaxonomyConfig(path=str(taxonomy), chunk_tokens=120)))
    config = GenerateConfig(samples_per_leaf=num_samples, calls_per_chunk=num_calls)
    world = world_of(WORLD)
    tables: dict[str, Table] = {}
    with Journal(folder / "journal") as journal:
        teacher = LocalTeacher("teacher", answer_by(Brain(world, WRITES)), journal)
        judges = {
            error: LocalTeacher(
                f"judge {error}",
                answer_by(Brain(world, ErrorRates(wrong_judgment=error, off_format=0.05))),
                journal,
            )
            for error in JUDGE_ERRORS
        }
        usual = judges[JUDGE_ERRORS[0]]
        exams = list(
            make_exams(
                Workspace(folder=folder), leaves, config, teacher=teacher, judge=usual, seed=1
            )
        )
        truth = Truth(leaves, exams)

        def generate(judge: LocalTeacher, changes: dict[str, Any]) -> list[Sample]:
            changed = config.model_copy(update=changes)
            return list(
                generate_samples(
                    Workspace(folder=folder),
                    leaves,
                    changed,
                    teacher=teacher,
                    judge=judge,
                    avoid=exams,
                    seed=1,
                )
            )

        raw = generate(usual, ALL_OFF)
        unsafe = sum(is_unsafe(sample.question) for sample in raw)
        print(f"{len(raw)} samples written, {unsafe} unsafe, {len(exams)} exam items", flush=True)
        wanted = truth.wanted(raw)

        def note(name: str, samples: list[Sample], wanted: set[tuple[str, ...]]) -> None:
            tables[name] = truth.table(samples, wanted)
            print(name, tables[name], flush=True)

        note("everything off", raw, wanted)
        for name, changes in OFF.items():
            note(name, generate(usual, changes), wanted)
        for error in sorted(JUDGE_ERRORS):
            note(f"judge wrong {error:.0%}", generate(judges[error], {}), wanted)
        unjudged = generate(usual, RENDERED | ALL_OFF)
        note("renderings, everything off", unjudged, truth.wanted(unjudged))
        note("renderings, nothing off", generate(usual, RENDERED), truth.wanted(unjudged))
    return tables


def draw_curve(tables: dict[str, Table], path: Path) -> None:
    errors = sorted(JUDGE_ERRORS)
    points = [tables[f"judge wrong {error:.0%}"] for error in errors]
    figure, axis = plt.subplots(figsize=(5.2, 3.2), layout="constrained")
    percent = [100 * error for error in errors]
    axis.plot(
        percent, [100 * p.wrong for p in points], "o-", color="C3", label="wrong, of the kept"
    )
    axis.plot(percent, [100 * p.lost for p in points], "s-", color="C0", label="right ones lost")
    raw = 100 * tables["everything off"].wrong
    axis.axhline(raw, color="C3", linestyle=":", label="wrong, with nothing judged")
    axis.set(xlabel="judge wrong, % of judgments", ylabel="%", ylim=(0, None))
    axis.legend(frameon=False, fontsize=8)
    figure.savefig(path)


def page(tables: dict[str, Table], figure: str) -> str:
    rows = [
        f"| {name} | {t.kept} | {t.wrong:.2%} | {t.lost:.1%} | {t.again:.1%} | {t.in_exams} |"
        for name, t in tables.items()
    ]
    head = "| | kept | wrong | right ones lost | said before | asked in an exam |"
    machine = f"{os.cpu_count()} cores ({platform.machine()}), Python {platform.python_version()}"
    return "\n".join([head, "|---" * 6 + "|", *rows, "", f"![]({figure})", "", machine, ""])


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--samples", type=int, default=120)
    parser.add_argument("--calls", type=int, default=6)
    parser.add_argument("--out", type=Path, default=Path("generation_truth.md"))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        tables = study(given.samples, given.calls, Path(folder))
    figure = given.out.with_suffix(".svg")
    draw_curve(tables, figure)
    given.out.write_text(page(tables, figure.name), encoding="utf-8")


if __name__ == "__main__":
    main()
