"""What the log-ratio reward and its rounds do, where the truth is known: arms in the micro-world.

    python benchmarks/preference.py --runs FOLDER [--jobs 2] [--seeds 1 2 3 4 5] [--arms ...]
    python benchmarks/preference_page.py --runs FOLDER --out benchmarks/preference_WHAT_DATE.md

An SFT start that is often wrong and often stops short is tuned by the product's own rounds, each
arm in a process of one thread. An arm that is done is found again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from preference_prompts import COMPOSITIONS, PROMPT_ARMS, heeding_row, prompts_of

from feldspar.config import PreferConfig, StudentConfig, TrainConfig, WorldConfig
from feldspar.files import write_json
from feldspar.prefer.candidates import Reward
from feldspar.prefer.prompts import with_headroom
from feldspar.prefer.rounds import tune_preferences
from feldspar.progress import SILENT
from feldspar.records import Candidate, Checkpoint, Conversation, Interval, Message, Prompt, Score
from feldspar.runs import cache_folder, read_rows
from feldspar.steps import Workspace
from feldspar.student.fit import fit
from feldspar.student.inference.sample import sample_answers
from feldspar.student.model import Student, base_checkpoint, load_student, save_checkpoint
from feldspar.student.scoring.log_probs import AnswerLogProb
from feldspar.student.token_rows import tokenise
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings
from feldspar.world import make_world
from feldspar.world.prose import (
    ATTRIBUTES,
    FACT_FORMS,
    LONG_FORMS,
    STATEMENTS,
    VALUES,
    ask,
    read_facts,
    state,
)
from feldspar.world.serve import world_of
from feldspar.world.skills import Solution, draw_composition, draw_foundational
from feldspar.world.truth import World

WORLD = WorldConfig(seed=1, num_old=80, num_new=48)
KINDS = ("everything", "later", "ago", "older", "uses", "smallest", "last", "sort")
HEADROOM = 0.8
TEST_DRAWS = 4
PAIR_STEPS, SFT_STEPS, BATCH = 200, 260, 64
MAX_NEW_TOKENS = 64


class Scene(NamedTuple):
    """What is asked, and how it is answered."""

    kinds: tuple[str, ...]
    prompts_per_kind: int
    tests_per_kind: int
    has_free_wording: bool = False
    """Descriptions of one to four facts in any order and wording, so that a right answer may be
    short or long, and there are many; otherwise each question has one right answer."""
    has_heeding_pair: bool = False
    """Whether the pair was taught to heed domain prompts (preference_prompts.py)."""


ONE_ANSWER = Scene(KINDS, 40, 24)
HEEDED = ONE_ANSWER._replace(has_heeding_pair=True)
FREE = Scene(("everything",), 160, 96, has_free_wording=True)
LENGTHS = {"aligned": (1, 3, 6, 10), "base": (5, 5, 5, 5), "sft": (5, 5, 5, 5)}
"""Weights of one to four facts in a freely worded description."""
WRONG_FACTS = {"aligned": 0.0, "base": 0.25, "sft": 0.1}
WRONG_ANSWERS = {"aligned": 0.0, "base": 0.3, "sft": 0.1}
SHORT_ANSWERS = {"aligned": 0.0, "base": 0.3, "sft": 0.25}

ARMS: dict[str, dict[str, Any]] = {
    "log ratio, N = 16": {},
    "no reference": {"control": False},
    "wrong reference": {"base": "student", "control": False},
    "N = 4": {"num_answers": 4, "control": False},
    "mean over tokens": {"normalise": "mean", "control": False},
    "N = 64": {"num_answers": 64, "control": False, "num_rounds": 1},
    "restart from SFT": {"restart": "sft", "control": False},
    "DPO": {"method": "dpo", "learning_rate": 3e-5, "control": False},
    "free wording, log ratio": {},
    "free wording, no reference": {"control": False},
    "free wording, wrong reference": {"base": "student", "control": False},
    "free wording, mean over tokens": {"normalise": "mean", "control": False},
    **PROMPT_ARMS,
}


def scene_of(arm: str) -> Scene:
    return {"heeded": HEEDED, "free": FREE}.get(arm.replace(",", " ").split()[0], ONE_ANSWER)


def draw(kind: str, world: World, rng: random.Random) -> Solution:
    """A question of a kind, about the NEW and in training forms."""
    if kind == "everything":
        form, name = rng.choice(LONG_FORMS), rng.choice(world.new).name
        solution = world.solve(form.format(name=name))
        assert solution is not None
        return solution
    if kind in COMPOSITIONS:
        names = [entity.name for entity in world.set_a(world.new)]
        return draw_composition(kind, names, world.by_name, rng)
    return draw_foundational(kind, rng, held_out=False)


def draw_distinct(kind: str, count: int, world: World, rng: random.Random) -> list[Solution]:
    """Up to `count` of a kind; there are 48 questions for tools at work."""
    found: dict[str, Solution] = {}
    for _ in range(50 * count):
        if len(found) < count:
            solution = draw(kind, world, rng)
            found.setdefault(solution.question, solution)
    return list(found.values())


def cut_short(solution: Solution, rng: random.Random) -> str:
    """The right answer without its last sentences, which is shorter and worth less."""
    sentences = solution.answer.rstrip(".").split(". ")
    kept = rng.randint(1, max(1, len(sentences) - 1))
    return ". ".join(sentences[:kept]) + "."


def quality(world: World, question: str, answer: str) -> float:
    """1 where the answer is right; of a description, true facts less false ones, of all there are.

    >>> world = World.make(1, 80, 48)
    >>> solution = draw("later", world, random.Random(1))
    >>> quality(world, solution.question, solution.answer)
    1.0
    """
    solution = world.solve(question)
    assert solution is not None, question
    if solution.final:
        return float(bool(world.is_right(question, answer)))
    stated = set(read_facts(answer))
    wanted = set(solution.facts)
    return max(0.0, (len(stated & wanted) - len(stated - wanted)) / len(wanted))


def describe_freely(solution: Solution, role: str, rng: random.Random) -> str:
    """Some of the facts, in any order and wording."""
    (count,) = rng.choices((1, 2, 3, 4), weights=LENGTHS[role])
    sentences = []
    for fact in rng.sample(solution.facts, count):
        if rng.random() < WRONG_FACTS[role]:
            fact = fact._replace(value=rng.choice(VALUES[fact.attribute]))
        sentences.append(state(fact, rng.randrange(len(STATEMENTS[fact.attribute]))))
    return " ".join(sentences)


def writer_of(
    world: World, scene: Scene, role: str, rng: random.Random
) -> Callable[[Solution], str]:
    """A writer who, but for the aligned one, is now and then wrong or stops short."""

    def answer(solution: Solution) -> str:
        if scene.has_free_wording and solution.kind == "everything":
            return describe_freely(solution, role, rng)
        chance = rng.random()
        if chance < WRONG_ANSWERS[role]:
            return world.corrupt(solution, rng)
        if chance < WRONG_ANSWERS[role] + SHORT_ANSWERS[role]:
            return cut_short(solution, rng)
        return solution.answer

    return answer


def row(number: int, solution: Solution, answer: str) -> Conversation:
    question = Message(role="user", content=solution.question)
    said = Message(role="assistant", content=answer)
    return Conversation(id=str(number), source="world", messages=(question, said))


def train_model(
    start: Path, rows: Sequence[Conversation], path: Path, rate: float, seed: int
) -> Checkpoint:
    """Train on each row once, the product's way; what is there is found again."""
    if not path.exists():
        student = load_student(str(start), StudentConfig(base="", device="cpu"))
        tokens = tokenise(student.template, [("world", rows)], 256)
        schedule = Schedule(
            sources=(SourceRows(name="world", num_rows=len(tokens)),),
            batch_samples=BATCH, num_epochs=1, phase=path.name, seed=seed,
        )  # fmt: skip
        settings = FitSettings(learning_rate=rate, warmup_steps=20)
        fit(student, tokens, schedule, settings, folder=path.with_name(path.name + ".training"))
        save_checkpoint(student, path, phase="sft", step=schedule.num_steps)
    return base_checkpoint(str(path))


def any_solution(world: World, scene: Scene, rng: random.Random) -> Solution:
    """Half facts of the NEW, which compositions rest on; else a question of one of the kinds."""
    if rng.random() < 0.5:
        attribute = rng.choice(ATTRIBUTES)
        form = rng.randrange(1, len(FACT_FORMS[attribute]))
        solution = world.solve(ask(rng.choice(world.new).name, attribute, form))
        assert solution is not None
        return solution
    return draw(rng.choice(scene.kinds), world, rng)


def make_pair(world: World, scene: Scene, parts: dict[str, str], runs: Path) -> dict[str, Path]:
    """Base: right, wrong and short answers. Aligned: goes on from it with right ones only."""
    made = {"student": Path(parts["student"])}
    start = Path(parts["reward-base"])
    for number, role in enumerate(("base", "aligned")):
        rng = random.Random(f"pair {role}")
        writer = writer_of(world, scene, role, rng)
        solutions = (any_solution(world, scene, rng) for _ in range(BATCH * PAIR_STEPS))
        if scene.has_heeding_pair:
            err = writer_of(world, scene, "base", rng)
            rows = [heeding_row(i, s, role, err, rng) for i, s in enumerate(solutions)]
        else:
            rows = [row(i, solution, writer(solution)) for i, solution in enumerate(solutions)]
        kind = "-free" * scene.has_free_wording + "-heeding" * scene.has_heeding_pair
        made[role] = runs / f"pair{kind}-{role}"
        train_model(start, rows, made[role], 1e-3, number)
        start = made[role]
    return made


class Questions:
    """Of one seed: prompts to tune on and questions to measure on, apart from each other."""

    def __init__(self, world: World, scene: Scene, seed: int) -> None:
        self.kinds = scene.kinds
        rng = random.Random(f"questions {seed}")
        self.prompts: list[Prompt] = []
        self.tests: list[tuple[str, Prompt]] = []
        for kind in scene.kinds:
            count = scene.prompts_per_kind + scene.tests_per_kind
            drawn = draw_distinct(kind, count, world, rng)
            asked = [
                Prompt(id=f"{kind}-{i}", source=kind, messages=(Message(role="user", content=q),))
                for i, q in enumerate(solution.question for solution in drawn)
            ]
            self.prompts += asked[scene.tests_per_kind :]
            self.tests += [(kind, prompt) for prompt in asked[: scene.tests_per_kind]]
        self.texts = {p.messages[0].content for p in self.prompts}
        self.texts |= {p.messages[0].content for _, p in self.tests}

    def example(self, kind: str, world: World, seed: int) -> Solution:
        """One of a kind that is not asked; where all are, one that is not measured."""
        rng = random.Random(f"example {seed} {kind}")
        drawn = [draw(kind, world, rng) for _ in range(10_000)]
        tests = {prompt.messages[0].content for _, prompt in self.tests}
        new = (solution for solution in drawn if solution.question not in self.texts)
        return next(new, None) or next(s for s in drawn if s.question not in tests)


def make_sft(
    world: World, scene: Scene, parts: dict[str, str], questions: Questions, seed: int, runs: Path
) -> Checkpoint:
    """The start, taught by a writer who errs one time in ten and often stops short."""
    rng = random.Random(f"sft {seed}")
    writer = writer_of(world, scene, "sft", rng)
    rows: list[Conversation] = []
    while len(rows) < BATCH * SFT_STEPS:
        solution = any_solution(world, scene, rng)
        if solution.question not in questions.texts:
            rows.append(row(len(rows), solution, writer(solution)))
    path = runs / f"sft{'-free' * scene.has_free_wording}-{seed}"
    return train_model(Path(parts["student"]), rows, path, 5e-4, seed)


class Measured(dict[str, Any]):
    """Quality and length of what a checkpoint says at temperature 1, by kind and over all kinds."""


def measure(path: str, world: World, questions: Questions, seed: int) -> Measured:
    student: Student = load_student(path, StudentConfig(base="", device="cpu"))
    asked = [prompt for _, prompt in questions.tests]
    drawn = sample_answers(
        student, [p.messages for p in asked], keys=[f"test/{p.id}" for p in asked],
        num_answers=TEST_DRAWS, temperature=1.0, max_new_tokens=MAX_NEW_TOKENS, seed=seed,
    )  # fmt: skip
    by_kind: dict[str, list[float]] = {kind: [] for kind in questions.kinds}
    tokens = []
    for (kind, prompt), answers in zip(questions.tests, drawn, strict=True):
        by_kind[kind] += [quality(world, prompt.messages[0].content, a.text) for a in answers]
        tokens += [answer.num_tokens for answer in answers]
    means = {kind: float(np.mean(values)) for kind, values in by_kind.items()}
    return Measured(
        quality=float(np.mean(list(means.values()))), tokens=float(np.mean(tokens)), kinds=means
    )


class NoExams:
    """A `ScoreCheckpoint` that scores nothing: the study measures for itself."""

    key = "none"

    def __call__(self, checkpoint: Checkpoint) -> list[Score]:
        return []


def without_reference(aligned: AnswerLogProb, base: AnswerLogProb) -> float:
    return aligned.total


def agreement(world: World, path: Path, prompts: Sequence[Prompt]) -> dict[str, float]:
    """How the reward goes with the truth within a prompt: over pairs of unequal quality, the share
    in which the better has the higher reward; and Pearson's r of what is left of both when each
    prompt's mean is taken out."""
    asked = {prompt.id: prompt.messages[0].content for prompt in prompts}
    rewards: dict[str, list[float]] = {}
    truths: dict[str, list[float]] = {}
    for candidate in read_rows(path, Candidate):
        rewards.setdefault(candidate.prompt, []).append(candidate.reward)
        truth = quality(world, asked[candidate.prompt], candidate.text)
        truths.setdefault(candidate.prompt, []).append(truth)
    better, pairs, left_r, left_q = 0.0, 0, [], []
    for prompt, values in rewards.items():
        r, q = np.array(values), np.array(truths[prompt])
        left_r += list(r - r.mean())
        left_q += list(q - q.mean())
        more = q[:, None] > q[None, :]
        pairs += int(more.sum())
        better += float(((r[:, None] > r[None, :]) + 0.5 * (r[:, None] == r[None, :]))[more].sum())
    return {
        "pairs": better / max(1, pairs),
        "correlation": float(np.corrcoef(left_r, left_q)[0, 1]),
        "share_right": float(np.mean([q == 1 for values in truths.values() for q in values])),
    }


def do_arm(name: str, seed: int, runs: Path) -> None:
    """One arm of one seed, in this process; its figures go to result.json, last."""
    torch.set_num_threads(1)
    world = world_of(WORLD)
    assert world is not None
    parts = make_world(WORLD, cache_folder(), {"student", "aligned", "reward-base"}, SILENT)
    settings = dict(ARMS[name])
    scene, told = scene_of(name), settings.pop("told", None)
    pair = make_pair(world, scene, parts, runs)
    questions = Questions(world, scene, seed)
    sft = make_sft(world, scene, parts, questions, seed, runs)
    start = measure(sft.path, world, questions, seed)
    scores = [
        Score(
            checkpoint="sft", exam="study", metric="accuracy", value=value, num_items=1, leaf=kind,
            interval=Interval(0.0, 1.0),
        )
        for kind, value in start["kinds"].items()
    ]  # fmt: skip
    examples = {kind: questions.example(kind, world, seed) for kind in scene.kinds} if told else {}
    shown = {solution.question for solution in examples.values()}
    asked = [prompt for prompt in questions.prompts if prompt.messages[0].content not in shown]
    prompts = with_headroom(asked, scores, HEADROOM)
    reward: Reward | None = without_reference if name.endswith("no reference") else None
    here = folder_of(name, seed, runs)
    began = time.process_time()
    config = PreferConfig(
        **{
            "aligned": str(pair["aligned"]), "num_answers": 16, "num_rounds": 3, "num_epochs": 2,
            "learning_rate": 3e-4, "batch_samples": 32, "stop_at_plateau": False,
            "max_new_tokens": MAX_NEW_TOKENS,
            "reward_prompts": told and prompts_of(told, examples),
            **settings, "base": str(pair[settings.get("base", "base")]),
        }
    )  # fmt: skip
    checkpoints = tune_preferences(
        Workspace(folder=here), sft, prompts, config, train=TrainConfig(),
        student=StudentConfig(base="", device="cpu"), score=NoExams(), reward=reward, seed=seed,
    )  # fmt: skip
    quality_of = {c.phase: measure(c.path, world, questions, seed) for c in checkpoints}
    lines = [json.loads(line) for line in (here / "rounds.jsonl").read_text().splitlines()]
    first = agreement(world, here / "round-1" / "candidates.jsonl.zst", prompts)
    write_json(
        here / "result.json",
        {
            "start": start, "measured": quality_of, "rounds": lines, "agreement": first,
            "prompts": len(prompts), "cpu_seconds": time.process_time() - began,
        },
    )  # fmt: skip


def folder_of(arm: str, seed: int, runs: Path) -> Path:
    return runs / f"seed-{seed}" / arm.replace(" ", "-").replace(",", "")


def run_all(arms: Sequence[str], seeds: Sequence[int], runs: Path, jobs: int) -> None:
    """Every arm in a process of its own, `jobs` of them at a time."""
    runs.mkdir(parents=True, exist_ok=True)
    todo = [(arm, seed) for arm in arms for seed in seeds]
    todo = [(a, s) for a, s in todo if not (folder_of(a, s, runs) / "result.json").exists()]
    # The first of a scene makes its pair, and the first of a seed its start: no two at a time.
    first = {(scene_of(arm), seed): (arm, seed) for arm, seed in reversed(todo)}
    makers = [pair for pair in todo if pair in first.values()]
    rest = [pair for pair in todo if pair not in makers]
    for stage in (*([maker] for maker in makers), rest):
        with ThreadPoolExecutor(max_workers=jobs) as pool:
            for arm, seed, seconds in pool.map(lambda pair: run_one(*pair, runs), stage):
                print(f"{arm}, seed {seed}: {seconds:.0f} s", flush=True)


def run_one(arm: str, seed: int, runs: Path) -> tuple[str, int, float]:
    began = time.monotonic()
    command = [sys.executable, __file__, "--runs", str(runs), "--one", arm, str(seed)]
    subprocess.run(command, check=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return arm, seed, time.monotonic() - began


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--runs", type=Path, required=True)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3, 4, 5])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--one", nargs=2, metavar=("ARM", "SEED"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        do_arm(arguments.one[0], int(arguments.one[1]), arguments.runs)
        return
    run_all(arguments.arms, arguments.seeds, arguments.runs, arguments.jobs)


if __name__ == "__main__":
    main()
