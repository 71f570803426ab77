"""The world's parts on disk: files, base student, reward pair, each made when it is named."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from filelock import FileLock

from feldspar.children import child_environment, module_command
from feldspar.config import WorldConfig
from feldspar.errors import RecipeError, TrainingError
from feldspar.keys import content_key
from feldspar.progress import Progress
from feldspar.world.write import WorldFiles, write_world

MODEL_PARTS = {"student": "student", "aligned": "reward-pair", "reward-base": "reward-pair"}
"""Part that a recipe names -> what is made for it."""
MODELS_VERSION = 1
"""Of what is true in the world and of how its models are trained. Raise it when either changes."""
FILES_VERSION = 1
"""Of the taxonomy, base replay and exams that are written. tests/world/test_build.py notices a
change."""
SHAPES_VERSION = 1
TINY_PARTS = (
    *("tiny-llama", "tiny-mistral", "tiny-granite", "tiny-qwen3"),
    *("tiny-mixtral", "tiny-mixtral-instruct"),
)
"""Untrained models in the shapes of real families."""


def make_world(
    config: WorldConfig, cache: Path, parts: set[str], progress: Progress
) -> dict[str, str]:
    """The paths of the world's parts by name, making those of `parts` that are not cached.

    Raises RecipeError for too few entities, TrainingError when a model's process dies.
    """
    folder = cache / "worlds" / content_key(config, MODELS_VERSION)[:16]
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        files = _write_files(config, folder / f"files-{FILES_VERSION}")
        wanted = sorted({MODEL_PARTS[p] for p in parts if p in MODEL_PARTS})
        missing = [part for part in wanted if not _is_made(part, folder)]
        _make_together(missing, config, folder, progress)
        tiny_folder = folder / f"tiny-{SHAPES_VERSION}"
        _make_tiny(sorted(parts.intersection(TINY_PARTS)), config, tiny_folder)
    paths = {
        "taxonomy": files.taxonomy,
        "base-replay": files.base_replay,
        "exams": files.exams,
        **{name: folder / name for name in MODEL_PARTS},
        **{name: tiny_folder / name for name in TINY_PARTS},
    }
    return {name: str(path) for name, path in paths.items()}


def _write_files(config: WorldConfig, folder: Path) -> WorldFiles:
    try:
        return write_world(config, folder)
    except (RecursionError, ValueError) as error:
        # Exam questions are drawn until one fits, and among a few entities none may.
        raise RecipeError(
            f"world: no exams can be made of {config.num_old} old and {config.num_new} new "
            "entities; take 16 new ones or more"
        ) from error


def _is_made(part: str, folder: Path) -> bool:
    return all((folder / name).exists() for name, p in MODEL_PARTS.items() if p == part)


def _make_tiny(names: Sequence[str], config: WorldConfig, folder: Path) -> None:
    if not names:
        return
    from feldspar.world.shapes import make_tiny

    folder.mkdir(exist_ok=True)
    for name in names:
        make_tiny(name, config.seed, folder / name)


def _make_together(
    parts: Sequence[str], config: WorldConfig, folder: Path, progress: Progress
) -> None:
    """Make parts at the same time; where one fails, or on Ctrl-C, all save their state and end."""
    running: list[subprocess.Popen[str]] = []
    with ThreadPoolExecutor(max_workers=2) as pool:
        made = pool.map(
            lambda part: _make_in_process(part, config, folder, progress, running), parts
        )
        try:
            for _ in made:
                pass
        except BaseException:
            for process in running:
                process.terminate()
            raise


def _make_in_process(
    part: str,
    config: WorldConfig,
    folder: Path,
    progress: Progress,
    running: list[subprocess.Popen[str]],
) -> None:
    """Make a part in a process of its own, which is put on the list of those that run."""
    command = module_command("feldspar.world.students")
    command += ["--world", config.model_dump_json(), "--part", part, "--folder", str(folder)]
    environment = child_environment() | {"OMP_NUM_THREADS": "1"}
    with (
        (folder / f"{part}.log").open("w+b") as log,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment,
            # Ctrl-C is for the run, which then ends this process.
            start_new_session=True,
        ) as process,
    ):
        running.append(process)
        assert process.stdin is not None
        try:
            _show(process, progress)
        finally:
            process.stdin.close()
    if process.returncode != 0:
        last = (folder / f"{part}.log").read_text(errors="replace").strip().split("\n")[-1]
        raise TrainingError(
            f"the micro-world's {part} could not be made: {last or 'its process was ended'}; "
            f"see {folder / part}.log, then run again: it goes on from there"
        )


def _show(process: subprocess.Popen[str], progress: Progress) -> None:
    """Forward the lines of a part's process to `progress`."""
    assert process.stdout is not None
    lines = (json.loads(line) for line in process.stdout)
    start = next(lines, None)
    while start is not None:
        with progress.task(start["task"], start["total"], start["unit"], start["done"]) as task:
            start = None
            for line in lines:
                if "task" in line:
                    start = line
                    break
                task.advance(line["by"], **line["figures"])
