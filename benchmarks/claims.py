"""What replay, base replay and the order of phases do, in the micro-world, over several worlds.

    python benchmarks/claims.py [--seeds 1 2 3 4 5] [--jobs 2] [--out benchmarks/claims_2core_DATE]

Each seed is a world of its own: other names and facts, another base student, other samples. Its
samples are made once, a phase that two arms share is trained once, and an arm that is done is not
done again: the same command goes on where it was stopped. Each seed is a process of one thread.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
RECIPE = """
[world]
num_old = 40
num_new = 24
training = 0.4
[taxonomy]
path = "world:taxonomy"
chunk_tokens = 120
[teacher.errors]
wrong_fact = 0.10
unfaithful = 0.03
off_format = 0.03
duplicate = 0.05
unsafe = 0.01
wrong_judgment = 0.03
[generate]
samples_per_leaf = 120
calls_per_chunk = 16
pairs_per_call = 4
[student]
base = "world:student"
max_length = 256
device = "cpu"
[train]
learning_rate = 5e-4
batch_samples = 64
warmup_steps = 20
warmup = "per-phase"
[evaluate.general]
enabled = false
[[evaluate.exam]]
name = "world"
path = "world:exams"
[mix.base_replay]
source = "world:base-replay"
"""
EXAMS = {
    "new-knowledge": "NEW (knowledge)",
    "foundational": "foundational",
    "compositional-unseen-entities": "compositional",
    "old-knowledge": "OLD (the base's)",
}
KNOWLEDGE_EPOCHS, SKILLS_EPOCHS = 10, 8
FRACTIONS = (0.0, 0.01, 0.05, 0.10, 0.25, 1.0)
SHARES = (0.0, 0.05, 0.10, 0.25)
ORDER_SHARE = 0.25
T_975 = {1: 12.706, 2: 4.303, 3: 3.182, 4: 2.776, 5: 2.571, 6: 2.447, 7: 2.365, 8: 2.306, 9: 2.262}
"""Student's t by degrees of freedom."""

Figures = dict[str, dict[str, float]]
"""Accuracy by checkpoint (`base`, `1`, `2`: after that phase) and exam."""


class Arm(NamedTuple):
    """What is done instead of the default: which phases, how much of each kind of replay."""

    order: str = "phased"
    fraction: float = 1.0
    share: float = 0.0

    @property
    def name(self) -> str:
        return f"{self.order} fraction={self.fraction:g} share={self.share:g}"


ARMS = (
    *(Arm(fraction=fraction) for fraction in FRACTIONS),
    *(Arm(share=share) for share in SHARES if share),
    *(Arm(order, share=ORDER_SHARE) for order in ("stacked", "stacked-as-long", "reversed")),
)


def run_seed(seed: int, folder: Path) -> None:
    """All arms of one world. Called in a process of its own."""
    import torch

    torch.set_num_threads(1)
    folder.mkdir(parents=True, exist_ok=True)
    lab = Lab(seed, folder)
    for arm in ARMS:
        path = folder / f"{arm.name}.json"
        if not path.exists():
            started = time.process_time()
            result = {"accuracy": lab.run(arm), "cpu_seconds": time.process_time() - started}
            beside = path.with_suffix(".partial")
            beside.write_text(json.dumps(result, indent=1), encoding="utf-8")
            beside.replace(path)
            print(f"seed {seed}: {arm.name}: {result['cpu_seconds']:.0f} s", flush=True)


class Lab:
    """One world: its samples, its base and its exams."""

    def __init__(self, seed: int, folder: Path) -> None:
        from feldspar.config import read_recipe
        from feldspar.evaluate.exams.read import exam_files, read_exams
        from feldspar.flow import run_recipe
        from feldspar.prepare import place
        from feldspar.progress import SILENT
        from feldspar.runs import open_step
        from feldspar.student.model import base_checkpoint

        recipe_path = folder / "recipe.toml"
        recipe_path.write_text(f"seed = {seed}\n{RECIPE}", encoding="utf-8")
        recipe = read_recipe(recipe_path, [f"world.seed={seed}"])
        run_recipe(recipe, folder, folder / "run", SILENT, until="samples")
        self.recipe = place(recipe, folder, SILENT)
        samples = open_step(folder / "run", "samples")
        assert samples is not None
        self.samples = list(samples)
        self.base = base_checkpoint(self.recipe.student.base)
        files = [f for e in self.recipe.evaluate.exam for f in exam_files(e) if f.name in EXAMS]
        self.items = list(read_exams(files))
        self.seed, self.folder = seed, folder

    def run(self, arm: Arm) -> Figures:
        from feldspar.steps import Workspace
        from feldspar.train.phases import train_phases

        checkpoint = self.base
        figures = {"base": self.score(checkpoint)}
        for number, (phase, training) in enumerate(self.phases(arm), start=1):
            sources = [(s.name, s.digest, s.fraction, s.share) for s in phase.sources]
            key = json.dumps([checkpoint.digest, sources, training.num_epochs])
            here = self.folder / "trained" / hashlib.sha256(key.encode()).hexdigest()[:12]
            (checkpoint,) = train_phases(
                Workspace(folder=here),
                checkpoint,
                [phase],
                [training],
                self.recipe.train,
                student=self.recipe.student,
                scores={},
                min_selection_items=1,
                seed=self.seed,
            )
            figures[str(number)] = self.score(checkpoint)
        return figures

    def phases(self, arm: Arm) -> list[tuple[object, object]]:
        from feldspar.config import BaseReplayConfig, MixConfig, PhaseConfig, ReplayConfig
        from feldspar.mix.phases import mix_phases
        from feldspar.steps import Workspace
        from feldspar.tokens.count import TokenCounter

        def phase(name: str, branches: tuple[str, ...], epochs: int, replayed: str = "") -> object:
            replay = (ReplayConfig(phase=replayed, fraction=arm.fraction),) if replayed else ()
            return PhaseConfig(
                name=name, branches=branches, num_epochs=epochs, replay=replay, select="last"
            )

        skills = ("foundational", "compositional")
        if arm.order == "phased":
            phases = (
                phase("knowledge", ("knowledge",), KNOWLEDGE_EPOCHS),
                phase("skills", skills, SKILLS_EPOCHS, "knowledge"),
            )
        elif arm.order == "reversed":
            phases = (
                phase("skills", skills, SKILLS_EPOCHS),
                phase("knowledge", ("knowledge",), KNOWLEDGE_EPOCHS, "skills"),
            )
        else:
            epochs = SKILLS_EPOCHS if arm.order == "stacked" else self._epochs_as_long()
            phases = (phase("everything", ("knowledge", *skills), epochs),)
        source = self.recipe.mix.base_replay.source
        general = BaseReplayConfig(source=source, share=arm.share)
        mixed = mix_phases(
            Workspace(folder=self.folder / "phases" / arm.name),
            self.samples,
            MixConfig(base_replay=general if arm.share else None),
            phases=phases,
            data={},
            base_replay=Path(source) if arm.share else None,
            counter=TokenCounter(),
        )
        trainings = self.recipe.train.model_copy(update={"phase": phases}).of_phases()
        return list(zip(mixed, trainings, strict=True))

    def _epochs_as_long(self) -> int:
        """Epochs over everything that come nearest to the rows of the two phases."""
        kept = [s.branch for s in self.samples if s.is_kept]
        knowledge = kept.count("knowledge")
        return round(KNOWLEDGE_EPOCHS * knowledge / len(kept) + SKILLS_EPOCHS)

    def score(self, checkpoint: object) -> dict[str, float]:
        """Accuracy per exam; answers of a checkpoint are kept by its content."""
        from feldspar.evaluate.exams.answers import kept_answers

        answers = kept_answers(
            self.folder / "answers" / f"{checkpoint.digest[:16]}.jsonl.zst",
            checkpoint,
            self.items,
            student=self.recipe.student,
            config=self.recipe.evaluate,
            seed=self.seed,
        )
        of_exam: dict[str, list[bool]] = {}
        for answer in answers:
            of_exam.setdefault(answer.exam, []).append(bool(answer.is_right))
        return {exam: statistics.mean(right) for exam, right in of_exam.items()}


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--runs", type=Path, default=ROOT / "runs" / "claims")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--out", type=Path, help="of OUT.md and OUT.svg")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.worker is not None:
        run_seed(arguments.worker, arguments.runs / f"seed-{arguments.worker}")
        return
    started = time.monotonic()
    with ThreadPoolExecutor(arguments.jobs) as pool:
        list(pool.map(lambda seed: _work(seed, arguments.runs), arguments.seeds))
    results = _results(arguments.seeds, arguments.runs)
    page = _page(results, arguments, time.monotonic() - started)
    print(page)
    if arguments.out:
        Path(f"{arguments.out}.md").write_text(page, encoding="utf-8")
        Path(f"{arguments.out}.svg").write_text(_figure(results), encoding="utf-8")


def _work(seed: int, runs: Path) -> None:
    command = [sys.executable, __file__, "--worker", str(seed), "--runs", str(runs)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})


Results = dict[Arm, list[Figures]]
"""One entry a seed."""


def _results(seeds: Sequence[int], runs: Path) -> Results:
    return {
        arm: [json.loads(_path(runs, seed, arm).read_text())["accuracy"] for seed in seeds]
        for arm in ARMS
    }


def _path(runs: Path, seed: int, arm: Arm) -> Path:
    return runs / f"seed-{seed}" / f"{arm.name}.json"


class Mean(NamedTuple):
    """Over seeds, with the half width of its 95 % interval by Student's t."""

    value: float
    half: float

    def __str__(self) -> str:
        return f"{self.value:.2f} ± {self.half:.2f}"


def _mean(values: Sequence[float]) -> Mean:
    if len(values) < 2:
        return Mean(values[0], math.nan)
    error = statistics.stdev(values) / math.sqrt(len(values))
    return Mean(statistics.mean(values), T_975[len(values) - 1] * error)


def _last(figures: Figures) -> dict[str, float]:
    return figures[max(key for key in figures if key != "base")]


def _table(rows: Sequence[tuple[str, Arm]], results: Results, against: Arm) -> str:
    """After the last phase, and the paired difference to the arm `against`."""
    names = list(EXAMS.values())
    head = " | ".join(["arm", *names, *(f"{n}, difference" for n in names)])
    lines = [f"| {head} |", "|---" * (1 + 2 * len(EXAMS)) + "|"]
    for label, arm in rows:
        cells = [str(_mean([_last(f)[e] for f in results[arm]])) for e in EXAMS]
        for exam in EXAMS:
            pairs = zip(results[arm], results[against], strict=True)
            changes = [_last(f)[exam] - _last(g)[exam] for f, g in pairs]
            cells.append("" if arm == against else _signed(_mean(changes)))
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _signed(mean: Mean) -> str:
    mark = "*" if abs(mean.value) > mean.half else ""
    return f"{mean.value:+.2f} ± {mean.half:.2f}{mark}"


def _before(results: Results) -> str:
    """The base, and where the first phases end."""
    arms = {
        "base": (ARMS[0], "base"),
        "after knowledge alone, no base replay": (ARMS[0], "1"),
        "after knowledge alone, base replay .25": (Arm(share=ORDER_SHARE), "1"),
        "after skills alone, base replay .25": (Arm("reversed", share=ORDER_SHARE), "1"),
    }
    lines = [f"| before | {' | '.join(EXAMS.values())} |", "|---" * (1 + len(EXAMS)) + "|"]
    for label, (arm, checkpoint) in arms.items():
        cells = [str(_mean([f[checkpoint][e] for f in results[arm]])) for e in EXAMS]
        lines.append(f"| {label} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _page(results: Results, arguments: argparse.Namespace, seconds: float) -> str:
    fractions = [(f"fraction {f:g}", Arm(fraction=f)) for f in FRACTIONS]
    shares = [(f"share {s:g}", Arm(share=s)) for s in SHARES]
    orders = [("phased", Arm(share=ORDER_SHARE))]
    orders += [(a.order.replace("-as-", ", as "), a) for a in ARMS if a.order != "phased"]
    cpu = [
        json.loads(_path(arguments.runs, seed, arm).read_text())["cpu_seconds"]
        for seed in arguments.seeds
        for arm in ARMS
    ]
    figure = f"\n![The three questions]({arguments.out.name}.svg)\n" if arguments.out else ""
    return f"""# Replay, base replay and order in the micro-world

Accuracy on exams in forms that were never trained on, mean over {len(arguments.seeds)} worlds with
95 % intervals (Student's t over worlds). Differences are paired by world; * marks an interval that
leaves out zero. `foundational` and `compositional` (unseen entities) are skills, `NEW` is what the
knowledge phase teaches, `OLD` is known to the base alone and stands in no replay.
{figure}
{_before(results)}

## Replay of the earlier phase: `fraction`

Knowledge ({KNOWLEDGE_EPOCHS} epochs), then skills ({SKILLS_EPOCHS} epochs) replaying a fraction of
the knowledge rows, drawn anew each epoch; no base replay. After skills:

{_table(fractions, results, Arm())}

## Base replay: `share`

The same with fraction 1, and base replay in both phases:

{_table(shares, results, Arm())}

## Order

Base replay .25 and fraction 1 throughout. Stacked: one phase of everything, {SKILLS_EPOCHS} epochs;
`as long`: as many epochs as come nearest to the two phases' rows. Reversed: skills first, then
knowledge replaying them.

{_table(orders, results, Arm(share=ORDER_SHARE))}

{os.cpu_count()} cores, {platform.processor() or platform.machine()}, Python
{platform.python_version()}, torch {version("torch")}, transformers {version("transformers")};
{sum(cpu) / 60:.0f} minutes of one core for the arms; this call took {seconds / 60:.0f} minutes.
Recipe: see `RECIPE` in the script. Again: `python benchmarks/claims.py --seeds
{" ".join(map(str, arguments.seeds))}`
"""


def _figure(results: Results) -> str:
    """Three panels: accuracy after the last phase by fraction, by share, and by order."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "claims"
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 3, figsize=(13, 4), sharey=True)
    orders = [Arm(share=ORDER_SHARE), *(a for a in ARMS if a.order != "phased")]
    axes: list[tuple[str, list[Arm], Callable[[Arm], str]]] = [
        ("replay fraction", [Arm(fraction=f) for f in FRACTIONS], lambda a: f"{a.fraction:g}"),
        ("base replay share", [Arm(share=s) for s in SHARES], lambda a: f"{a.share:g}"),
        ("order", orders, lambda a: a.order.replace("-as-", "\nas ")),
    ]
    for panel, (title, arms, label) in zip(panels, axes, strict=True):
        for exam, name in EXAMS.items():
            means = [_mean([_last(f)[exam] for f in results[arm]]) for arm in arms]
            panel.errorbar(
                range(len(arms)),
                [m.value for m in means],
                yerr=[m.half for m in means],
                fmt="o-" if title != "order" else "o",
                capsize=3,
                label=name,
            )
        panel.set_xticks(range(len(arms)), [label(arm) for arm in arms])
        panel.set_xlabel(title)
        panel.set_ylim(-0.05, 1.1)
        panel.grid(alpha=0.25)
        panel.spines[["top", "right"]].set_visible(False)
    panels[0].set_ylabel("accuracy after the last phase")
    panels[0].legend(fontsize=8, frameon=False)
    figure.tight_layout()
    return "".join(_svg(figure))


def _svg(figure: object) -> Iterator[str]:
    import io

    drawn = io.StringIO()
    figure.savefig(drawn, format="svg", metadata={"Date": None, "Creator": None})
    text = drawn.getvalue()
    yield "\n".join(line.rstrip() for line in text[text.index("<svg") :].splitlines()) + "\n"


if __name__ == "__main__":
    main()
