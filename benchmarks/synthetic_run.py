"""Make a run of many samples, to measure the studio and the report on.

python benchmarks/synthetic_run.py runs/many --samples 100000
"""

from __future__ import annotations

import argparse
import random
from collections.abc import Iterator
from pathlib import Path

from feldspar.config import Recipe
from feldspar.generate.funnel import LeafFunnel, Reason, write_funnel
from feldspar.records import (
    Answer,
    Checkpoint,
    Chunk,
    ExamItem,
    Judgment,
    Leaf,
    Sample,
    Score,
    Seed,
)
from feldspar.runs import Run, write_rows
from feldspar.stats.intervals import proportion_interval
from feldspar.steps import Step, Workspace
from feldspar.teacher.budget import Spent

NUM_LEAVES = 200
NUM_ITEMS = 30
REASONS = ("judge: not faithful", "duplicate: same question", "format: cut off", "judge: not fit")
WORDS = [f"{a}{b}" for a in ("stone", "river", "lamp", "copper", "winter") for b in range(400)]


def leaves() -> Iterator[Leaf]:
    rng = random.Random(1)
    for n in range(NUM_LEAVES):
        path = f"knowledge/field_{n % 10}/topic_{n % 40}/leaf_{n}"
        seeds = tuple(
            Seed(id=f"{n}s{k}", question=sentence(rng, 9), answer=sentence(rng, 14), line=5 + 3 * k)
            for k in range(5)
        )
        chunks = tuple(
            Chunk(id=f"{n}c{k}", document=f"d{n}.md", text=text(rng, 8), num_tokens=120)
            for k in range(20)
        )
        yield Leaf(
            path=path,
            branch="knowledge",
            task_description=sentence(rng, 12),
            seeds=seeds,
            chunks=chunks,
        )


def samples(workspace: Workspace, of: list[Leaf], num_samples: int) -> Iterator[Sample]:
    rng = random.Random(2)
    num_kept = dict.fromkeys((leaf.path for leaf in of), 0)
    fell = {leaf.path: dict.fromkeys(REASONS, 0) for leaf in of}
    for n in range(num_samples):
        leaf = of[n * len(of) // num_samples]
        reason = rng.choice(REASONS) if rng.random() < 0.3 else None
        if reason is None:
            num_kept[leaf.path] += 1
        else:
            fell[leaf.path][reason] += 1
        yield Sample(
            id=f"{n:016x}",
            leaf=leaf.path,
            branch="knowledge",
            question=sentence(rng, 10),
            answer=sentence(rng, 25),
            chunk=rng.choice(leaf.chunks[:-1]).id,
            seeds=tuple(s.id for s in leaf.seeds[:3]),
            teacher="synthetic",
            draw=n // 4,
            judgments=(Judgment(criterion="faithful", value=1, explanation=sentence(rng, 8)),),
            rejected_because=reason,
        )
    funnels = []
    for leaf in of:
        kept, reasons = num_kept[leaf.path], fell[leaf.path]
        asked = kept + sum(reasons.values())
        funnels.append(
            LeafFunnel(
                leaf=leaf.path,
                asked=asked,
                answered=asked,
                parsed=asked - reasons["format: cut off"],
                judged=kept + reasons["duplicate: same question"],
                distinct=kept,
                clean=kept,
                kept=kept,
                reasons=tuple(Reason(reason=r, count=c) for r, c in reasons.items()),
            )
        )
    spent = Spent(2 * num_samples, 900 * num_samples, 0.0)
    write_funnel(workspace.folder / "funnel.json", funnels, spent)


def items(of: list[Leaf]) -> Iterator[ExamItem]:
    rng = random.Random(3)
    for leaf in of:
        for n in range(NUM_ITEMS):
            yield ExamItem(
                id=f"{leaf.path}:{n}",
                exam=f"leaf:{leaf.path}",
                question=sentence(rng, 9),
                reference=sentence(rng, 12),
                accepted=("x",),
                leaf=leaf.path,
                origin="generated",
            )


def scores(workspace: Workspace, of: list[ExamItem]) -> Iterator[Score]:
    rng = random.Random(4)
    (workspace.folder / "answers").mkdir(exist_ok=True)
    for name, share in (("base", 0.3), ("skills", 0.8)):
        right = {item.id: rng.random() < share for item in of}
        said = (
            Answer(
                item=item.id,
                exam=item.exam,
                leaf=item.leaf,
                text=sentence(rng, 12),
                is_right=right[item.id],
                log_likelihood=-1.0,
            )
            for item in of
        )
        write_rows(workspace.folder / "answers" / f"{name}.jsonl.zst", said)
        by_leaf: dict[str, list[bool]] = {"": list(right.values())}
        for item in of:
            by_leaf.setdefault(item.leaf, []).append(right[item.id])
        for leaf, marks in by_leaf.items():
            yield Score(
                checkpoint=name,
                exam=f"leaf:{leaf}" if leaf else "leaf exams",
                metric="accuracy",
                value=sum(marks) / len(marks),
                interval=proportion_interval(sum(marks), len(marks)),
                num_items=len(marks),
                leaf=leaf,
            )


def sentence(rng: random.Random, num_words: int) -> str:
    return " ".join(rng.choices(WORDS, k=num_words)).capitalize() + "."


def text(rng: random.Random, num_sentences: int) -> str:
    return " ".join(sentence(rng, 14) for _ in range(num_sentences))


def make(path: Path, num_samples: int) -> None:
    """A finished run of so many samples over NUM_LEAVES leaves."""
    tree = {"name": path.name, "taxonomy": {"path": "t"}, "student": {"base": "b"}}
    with Run(path, Recipe.model_validate(tree)) as run:
        of = list(run.step(Step.pure("leaves", leaves, version=1))())
        run.step(Step("samples", samples, version=1))(of, num_samples)
        asked = list(run.step(Step.pure("leaf-exams", items, version=1))(of))
        trained = [Checkpoint(path="model", digest="0" * 16, phase="skills", step=900)]
        run.step(Step.pure("trained", lambda: trained, version=1))()
        run.step(Step("scores", scores, version=1))(asked)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("path", type=Path)
    parser.add_argument("--samples", type=int, default=100_000)
    arguments = parser.parse_args()
    make(arguments.path, arguments.samples)
