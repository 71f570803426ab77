"""The same run with its servers on this machine, on a Ray cluster, and on one that loses parts.

    pip install -e '.[cluster]'
    python benchmarks/cluster.py [--samples 8] [--out benchmarks/cluster_WHAT_DATE.md]

The cluster is Ray's own for tests: a head without slots and two raylets with two CPU slots each,
all on this machine. Policy and both models of the reward pair are commands with two copies there;
the embedded teacher, which listens on its own machine alone, has two copies next to the run. Runs
lose a server, a Ray worker or a whole raylet while a role is at work. What is compared
are the rows of exams, samples and phases and the digests of all checkpoints.
"""

from __future__ import annotations

import argparse
import os
import platform
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
import tiny_run

from feldspar.children import child_environment, module_command
from feldspar.config import read_recipe
from feldspar.prepare import place
from feldspar.progress import SILENT

STEPS = ("leaf-exams", "samples", "phases")
RECIPE = """
extends = "tiny.toml"
name = "proof"
[cluster]
engine = "ENGINE"
[teacher]
# It listens on this machine alone.
engine = "local"
command = "TEACHER"
model = "feldspar-world"
replicas = 2
[generate]
samples_per_leaf = SAMPLES
[prefer]
control = false
# The tiny policy ends few of its answers.
num_prompts = 16
num_answers = 4
max_new_tokens = 64
[prefer.policy_server]
command = "SERVE"
key_variable = "FELDSPAR_API_KEY"
replicas = 2
concurrency = 2
[prefer.aligned_server]
command = "SERVE"
key_variable = "FELDSPAR_API_KEY"
model = "ALIGNED"
replicas = 2
concurrency = 2
[prefer.base_server]
command = "SERVE"
key_variable = "FELDSPAR_API_KEY"
model = "BASE"
replicas = 2
concurrency = 2
"""
"""Laid over the tiny recipe of the tests."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Outcome:
    name: str
    warnings: int
    """Servers that were started again."""
    rows: dict[str, bytes]
    digests: list[tuple[str, int, str]]


def write_recipe(folder: Path, engine: str, samples: int) -> Path:
    tiny_run.write_recipe(folder).replace(folder / "tiny.toml")
    path = folder / "recipe.toml"
    feldspar = " ".join(module_command("feldspar.cli.main"))
    text = RECIPE.replace("ENGINE", engine).replace("SAMPLES", str(samples))
    text = text.replace("TEACHER", f"{feldspar} world serve --recipe {path} --port {{port}}")
    text = text.replace("SERVE", f"{feldspar} serve {{model}} --host {{host}} --port {{port}}")
    path.write_text(text, encoding="utf-8")
    prefer = place(read_recipe(path), folder, SILENT).prefer
    assert prefer is not None
    text = text.replace('"ALIGNED"', f'"{prefer.aligned}"').replace('"BASE"', f'"{prefer.base}"')
    path.write_text(text, encoding="utf-8")
    return path


def do_run(name: str, recipe: Path, meanwhile: Callable[[], None] | None = None) -> Outcome:
    """The command line to its end, with something that happens on the way."""
    log_path = recipe.with_name("said.txt")
    with log_path.open("wb") as said:
        process = subprocess.Popen(
            [*module_command("feldspar.cli.main"), "run", str(recipe)],
            env=child_environment(),
            cwd=recipe.parent,
            stdout=said,
            stderr=subprocess.STDOUT,
        )
        if meanwhile is not None:
            threading.Thread(target=meanwhile, daemon=True).start()
        status = process.wait()
    text = log_path.read_text(encoding="utf-8", errors="replace")
    assert status == 0, text
    run = recipe.parent / "runs" / "proof"
    return Outcome(
        name=name,
        warnings=" ".join(text.split()).count("it is started again"),
        rows={step: tiny_run.rows_bytes(run, step) for step in STEPS},
        digests=tiny_run.digests(run),
    )


def processes_with(*words: str) -> list[int]:
    """Ids of the servers in whose command all words stand, but for the teacher's: it is next to the
    run, and whoever started it is no worker of Ray."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            command = path.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:
            continue
        is_wanted = all(word in command for word in words)
        if is_wanted and "-I -c" not in command and " world serve " not in command:
            found.append(int(path.parent.name))
    return found


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def once_there(find: Callable[[], list[int]], seconds: float, do: Callable[[int], None]) -> None:
    """Do it to the first that is found, some seconds after it was."""
    while not (found := find()):
        time.sleep(0.2)
    time.sleep(seconds)
    do(found[0])


@contextmanager
def ray_cluster() -> Iterator[Any]:
    """Two raylets with two CPU slots each, and a head with none."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(
        initialize_head=True,
        head_node_args={"num_cpus": 0, "include_dashboard": False},
    )
    try:
        for _ in range(2):
            cluster.add_node(num_cpus=2)
        os.environ["RAY_ADDRESS"] = cluster.address
        yield cluster
    finally:
        cluster.shutdown()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=8, help="of a leaf")
    parser.add_argument("--root", type=Path, help="keeps the runs; those that are done stay")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    outcomes: list[Outcome] = []
    # Servers that others could reach want a key; Ray's nodes are started with this environment.
    os.environ["FELDSPAR_API_KEY"] = "proof"
    with tempfile.TemporaryDirectory() as temporary:
        root = options.root or Path(temporary)
        local = do_run("local", write_recipe(root / "local", "local", options.samples))
        tell(outcomes, local, options.out)
        with ray_cluster() as cluster:
            for name, meanwhile in losses(root, cluster):
                recipe = write_recipe(folder_of(root, name), "ray", options.samples)
                tell(outcomes, do_run(name, recipe, meanwhile), options.out)


def losses(root: Path, cluster: Any) -> Iterator[tuple[str, Callable[[], None] | None]]:
    """What happens in each run on the cluster."""
    yield "on Ray", None
    # The policy's folder lies in the run; the guard's parent is Ray's worker.
    policy = str(folder_of(root, "a worker killed while drawing"))
    yield (
        "a worker killed while drawing",
        lambda: once_there(
            lambda: processes_with(" serve ", policy),
            4.0,
            lambda p: os.kill(parent_of(parent_of(p)), signal.SIGKILL),
        ),
    )
    server = str(folder_of(root, "a server killed while drawing"))
    yield (
        "a server killed while drawing",
        lambda: once_there(
            lambda: processes_with(" serve ", server), 4.0, lambda p: os.kill(p, signal.SIGKILL)
        ),
    )
    before = set(processes_with(" serve ", "aligned"))
    yield (
        "a raylet lost while scoring",
        lambda: once_there(
            lambda: [p for p in processes_with(" serve ", "aligned") if p not in before],
            4.0,
            lambda _: lose_node(cluster),
        ),
    )


def folder_of(root: Path, name: str) -> Path:
    """Without spaces: commands are split at them."""
    return root / name.replace(" ", "-")


def lose_node(cluster: Any) -> None:
    """One raylet dies with its workers, and none comes in its place."""
    cluster.remove_node(sorted(cluster.worker_nodes, key=str)[0], allow_graceful=False)


def tell(outcomes: list[Outcome], outcome: Outcome, out: Path | None) -> None:
    """Print one more row, and write the page with what there is by now."""
    outcomes.append(outcome)
    print(row_of(outcome, outcomes[0]), flush=True)
    if out is not None:
        out.write_text(as_page(outcomes), encoding="utf-8")


def row_of(outcome: Outcome, local: Outcome) -> str:
    same_rows = "same" if outcome.rows == local.rows else "**other**"
    same_models = "same" if outcome.digests == local.digests else "**other**"
    return f"| {outcome.name} | {same_rows} | {same_models} | {outcome.warnings} |"


def as_page(outcomes: list[Outcome]) -> str:
    machine = f"{platform.machine()}, {os.cpu_count()} cores, other work on it at the same time"
    return "\n".join(
        [
            "# Servers of a run on a Ray cluster",
            "",
            f"`python benchmarks/cluster.py`, {datetime.now(UTC):%Y-%m-%d}; {machine}; Python "
            f"{platform.python_version()}, ray {version('ray')}, torch {version('torch')}.",
            "",
            "Policy and reward pair are commands with two copies each, on two raylets with two CPU "
            "slots each; the teacher has two copies next to the run.",
            "",
            "| run | rows | checkpoints | servers started again |",
            "|---|---|---|---:|",
            *(row_of(outcome, outcomes[0]) for outcome in outcomes),
            "",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
