"""Every setting that decides no result is changed in the middle of a run, and from nothing.

    python benchmarks/keys.py [--only train.tokens_per_micro_batch] [--out FOLDER]

A three-phase run is killed after its second phase. For each field that feldspar/config marks as
rounding, speed or place, the project is copied to another folder and the same command goes on there
with another value: no step that was done may be done again. Then a run from nothing with that value
is set against one without: same bytes, or weights that differ by no more than BOUND of what
training moved.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from types import NoneType
from typing import Any, NamedTuple, get_args

import torch
from safetensors.torch import load_file

from feldspar.config import Part, Recipe, read_recipe
from feldspar.keys import decisions

BOUND = 1e-2
"""Largest distance of the weights to those of the usual values, of the distance from the base."""

RECIPE = """
name = "keys"
[world]
num_old = 12
num_new = 10
training = 0.02
[taxonomy]
path = "world:taxonomy"
chunk_tokens = 120
[teacher]
concurrency = 4
[generate]
samples_per_leaf = 8
calls_per_chunk = 2
exam_items = 4
[student]
base = "world:student"
max_length = 256
[train]
learning_rate = 1e-3
batch_samples = 16
warmup_steps = 2
tokens_per_micro_batch = 2048
"""
VALUES = {
    "name": "renamed",
    "journal": '"{folder}/elsewhere.sqlite"',
    "taxonomy.fetch": "false",
    "teacher.key_variable": '"OTHER_KEY"',
    "teacher.concurrency": "3",
    "teacher.max_concurrency": "17",
    "teacher.requests_per_minute": "1000000",
    "teacher.tokens_per_minute": "1000000000",
    "teacher.timeout_seconds": "77.0",
    "teacher.max_retries": "3",
    "teacher.start_seconds": "77.0",
    "teacher.prompt_price": "1.5",
    "teacher.completion_price": "2.5",
    "teacher.failure_budget": "0.5",
    "student.device": '"cpu"',
    "student.compile": "true",
    "train.tokens_per_micro_batch": "150",
    "train.packing": "false",
    "train.recompute": '"always"',
    "train.shard": '"layer"',
    "train.keep_best": "5",
    "track.to": '["tensorboard"]',
    "track.project": '"other"',
    "publish.max_shard_mb": "1",
    "publish.gguf_server": '""',
    "publish.private": "true",
    "serve.max_tokens": "5",
    "serve.max_request_tokens": "5000",
    "serve.max_requests": "5",
    "serve.max_body_bytes": "5000",
}
"""Another value of each field, in TOML."""
TOGETHER = (("--nproc", "2"), ("--nproc", "2", "--set", 'train.shard="layer"'))
"""Two processes in place of one, and with the weights in parts."""
ELSEWHERE = {
    "name": "names the run's folder: another name is another run",
    "taxonomy.path": "the copy is in another folder",
    "taxonomy.mirror": "no such folder in this recipe",
    "taxonomy.tokenizer": "no such file in this recipe",
    "generate.prompts": "no such folder in this recipe",
    "student.base": "the world's, found again in the cache",
    "teacher.endpoint": "the embedded teacher has another address in every run",
    "teacher.endpoints": "the embedded teacher is one",
    "teacher.command": "the teacher of this recipe is the embedded one",
    "teacher.replicas": "only with a command",
    "teacher.engine": "only with a command",
    "teacher.gpus_each": "only with a command on a cluster",
    "teacher.nodes_each": "only with a command on a cluster",
    "teacher.batch": "the embedded teacher reads no batch files",
    "train.workers": "only on a cluster",
    "teacher.folder": "the teacher of this recipe is the embedded one",
}
"""Fields that this recipe cannot change, and why."""


class Outcome(NamedTuple):
    field: str
    decides: str
    goes_on: str
    from_nothing: str


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--only", nargs="*", default=[])
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    fields = [(f, d) for f, d in marked_fields(Recipe, "") if not given.only or f in given.only]
    unknown = [f for f, _ in fields if f not in VALUES and f not in ELSEWHERE]
    assert not unknown, f"give these a value in VALUES: {unknown}"
    folder = given.out or Path(tempfile.mkdtemp(prefix="feldspar-keys-"))
    usual = make_project(folder / "usual")
    run(usual)
    killed = make_project(folder / "killed")
    kill_after_two_phases(killed)
    outcomes = []
    for field, decides in fields:
        if field in ELSEWHERE:
            continue
        outcomes.append(try_field(field, decides, folder, killed, usual))
        print(*outcomes[-1], sep=" | ", flush=True)
    for more in TOGETHER:
        name = " ".join(more)
        if given.only and name not in given.only:
            continue
        fresh = make_project(folder / f"together {name}")
        run(fresh, *more)
        goes_on = go_on(killed, folder / f"goes on {name}", *more)
        outcomes.append(Outcome(name, "rounding", goes_on, distance(usual, fresh)))
        print(*outcomes[-1], sep=" | ", flush=True)
    print(page(outcomes))


def marked_fields(part: type[Part], prefix: str) -> Iterator[tuple[str, str]]:
    """Fields of the tables that the recipe has, with what they decide."""
    tables = {"taxonomy", "teacher", "generate", "student", "train", "track", "publish", "serve"}
    for name, decides in decisions(part).items():
        annotation: Any = part.model_fields[name].annotation
        if not prefix and name in tables:
            # `TaxonomyConfig | None` too.
            [table] = [one for one in get_args(annotation) or [annotation] if one is not NoneType]
            yield from marked_fields(table, f"{name}.")
        elif decides != "result":
            yield f"{prefix}{name}", decides


def try_field(field: str, decides: str, folder: Path, killed: Path, usual: Path) -> Outcome:
    place = folder / field
    value = VALUES[field].format(folder=place)
    setting = ("--set", f"{field}={value}")
    goes_on = go_on(killed, place, *setting)
    fresh = make_project(folder / f"{field}-from-nothing")
    run(fresh, *setting)
    return Outcome(field, decides, goes_on, distance(usual, fresh))


def make_project(folder: Path) -> Path:
    folder.mkdir(parents=True)
    (folder / "keys.toml").write_text(RECIPE, encoding="utf-8")
    read_recipe(folder / "keys.toml")
    return folder


def command(folder: Path, *more: str) -> list[str]:
    line = [sys.executable, "-P", "-m", "feldspar.cli.main", "train", str(folder / "keys.toml")]
    return [*line, "--runs", str(folder / "runs"), *more]


def run(folder: Path, *more: str) -> None:
    done = subprocess.run(
        command(folder, *more), cwd=folder, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(more)}: {done.stderr[-2000:]}")


def kill_after_two_phases(folder: Path) -> None:
    process = subprocess.Popen(
        command(folder), cwd=folder, stderr=subprocess.DEVNULL, start_new_session=True
    )
    while len(selections(folder)) < 2:
        assert process.poll() is None, "it ended before its second phase was done"
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    assert len(selections(folder)) == 2, "the third phase was done before the kill"


def selections(folder: Path) -> list[str]:
    paths = list(folder.glob("runs/*/steps/trained/*/selections.jsonl"))
    return paths[0].read_text("utf-8").splitlines() if paths else []


def go_on(killed: Path, place: Path, *more: str) -> str:
    """Copy the killed project, finish its run there, and say what was done again."""
    shutil.copytree(killed, place)
    before = state(place)
    run(place, *more)
    again = [what for what, content in before.items() if state(place).get(what) != content]
    return f"again: {', '.join(again)}" if again else "nothing again"


def state(folder: Path) -> dict[str, str]:
    """What is done: each step's manifest, and the figures of every step of the first two phases,
    which hold how long it took."""
    found = {
        path.parts[-3]: path.read_text("utf-8")
        for path in folder.glob("runs/keys/steps/*/*/done.json")
        if path.parts[-3] != "trained"
    }
    for path in folder.glob("runs/keys/steps/trained/*/metrics.jsonl"):
        for line in path.read_text("utf-8").splitlines():
            row = json.loads(line)
            if row["phase"] != "skills":
                found[f"{row['phase']} step {row['step']}"] = line
    return found


def distance(usual: Path, other: Path) -> str:
    """Of two results: `same bytes`, or how far apart, of what training moved."""
    base, one, two = (result(usual, 0), result(usual, -1), result(other, -1))
    if all(torch.equal(one[name], two[name]) for name in one):
        return "same bytes"
    kept = [name for name in one if name in base and one[name].shape == base[name].shape]
    moved = sum(float((one[name] - base[name]).square().sum()) for name in kept)
    apart = sum(float((one[name] - two[name]).square().sum()) for name in one)
    share = (apart / moved) ** 0.5
    return f"{share:.1e} apart{'' if share <= BOUND else f', over {BOUND:g}'}"


def result(folder: Path, number: int) -> dict[str, torch.Tensor]:
    """Weights of the base (0) or of the run's result (-1)."""
    from feldspar.runs import open_step, read_recipe_of

    (path,) = folder.glob("runs/*")
    trained = open_step(path, "trained")
    assert trained is not None
    where = Path(read_recipe_of(path).student.base) if number == 0 else Path(trained.last().path)
    return load_file(where / "model.safetensors")


def page(outcomes: list[Outcome]) -> str:
    rows = "\n".join(
        f"| `{o.field}` | {o.decides} | {o.goes_on} | {o.from_nothing} |" for o in outcomes
    )
    left = "\n".join(f"- `{field}`: {why}" for field, why in ELSEWHERE.items())
    return (
        "| field | decides | changed after phase 2 of 3, in another folder | from nothing |\n"
        f"|---|---|---|---|\n{rows}\n\nNot changed here:\n{left}\n"
    )


if __name__ == "__main__":
    main()
