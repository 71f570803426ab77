"""What the machine has of what the recipe needs: programs, packages, devices, room."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from feldspar.ahead.checks import Note, Subject
from feldspar.config import Recipe
from feldspar.errors import DiskError, RecipeError
from feldspar.runs import cache_folder
from feldspar.student.bases.find import is_file_base
from feldspar.student.model_sizes import find_config, num_weights, read_architecture
from feldspar.student.precision import run_precision

_FLOAT_BYTES = 4
_COMPILERS = ("c++", "g++", "clang++")


class _Extra(NamedTuple):
    package: str
    extra: str
    """Empty where none of ours has it."""
    why: str

    @property
    def cure(self) -> str:
        return f"pip install '{f'feldspar[{self.extra}]' if self.extra else self.package}'"


def python(subject: Subject) -> str | None:
    """Which one runs, and on what."""
    return None if subject.is_run else f"{platform.python_version()} on {platform.system()}"


def extras(subject: Subject) -> str | None:
    """Optional packages that the recipe needs."""
    needed = list(_needed(subject))
    for one in needed:
        if importlib.util.find_spec(one.package) is None:
            raise RecipeError(f"{one.why} needs {one.package}, which is not installed; {one.cure}")
    return ", ".join(one.package for one in needed) or None


def device(subject: Subject) -> str | None:
    """Where the student is computed, and in which precision."""
    student = subject.recipe.student
    if not subject.reaches("phases"):
        return None
    from feldspar.student.model import find_device

    found = find_device(student.device).type
    says = found if found != "cpu" else f"{found}, {_num_cores()} cores"
    return f"{says}, {run_precision(student, found, subject.run_path)}"


def _num_cores() -> int:
    """That this process may use; macOS tells only how many there are."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def compiler(subject: Subject) -> str | None:
    """A C++ compiler, for `student.compile`."""
    if subject.recipe.student.compile is not True or not subject.reaches("trained"):
        return None
    named = os.environ.get("CXX", "")
    for name in (named, *_COMPILERS):
        if name and (found := shutil.which(name)):
            return found
    raise RecipeError(
        "student.compile needs a C++ compiler, and none is found (c++, g++ or clang++); install "
        "one, name it in CXX, or set student.compile = false"
    )


def memory(subject: Subject) -> str | None:
    """Room for the base and its training, where it is computed on the CPU."""
    if subject.is_run or not subject.reaches("trained") or not sys.platform.startswith("linux"):
        return None
    there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    needed = 4 * _FLOAT_BYTES * _num_parameters(subject)
    says = f"{there / 1e9:.1f} GB"
    if subject.recipe.student.device == "cpu" and needed > there:
        return Note(
            f"{says}, and weights, gradients and moments take {needed / 1e9:.1f} GB: see "
            "`feldspar plan` for what fits"
        )
    return says


def disk(subject: Subject) -> str | None:
    """Room for the run, at the least, and a cache that can be written."""
    if subject.reaches("trained"):
        _check_cache(cache_folder())
    folder = _existing_parent(subject.run_path or subject.folder)
    free = shutil.disk_usage(folder).free
    needed = 0
    if subject.reaches("trained") and not _has_trained(subject):
        needed = round(_least_copies(subject.recipe) * _FLOAT_BYTES * _num_parameters(subject))
    if needed > free:
        raise DiskError(
            f"{folder}: {free / 1e9:.1f} GB are free and training takes {needed / 1e9:.1f} GB at "
            "the least; make room, or put the runs elsewhere with --runs"
        )
    return f"{free / 1e9:.1f} GB free"


def _check_cache(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise DiskError(
            f"{folder}: the cache cannot be written: {error.strerror}; mend that, or set "
            "FELDSPAR_CACHE to another folder"
        ) from error


def _needed(subject: Subject) -> Iterator[_Extra]:
    recipe = subject.recipe
    if recipe.student.lora is not None and subject.reaches("trained"):
        yield _Extra("peft", "lora", "student.lora")
    if is_file_base(recipe.student.base) and not Path(recipe.student.base).is_dir():
        yield _Extra("gguf", "gguf", "a GGUF base")
    if recipe.evaluate.benchmark and subject.reaches("scores"):
        yield _Extra("lm_eval", "eval", "evaluate.benchmark")
    if recipe.evaluate.retrieval is not None and subject.reaches("scores"):
        yield _Extra("bm25s", "retrieval", "evaluate.retrieval")
    for tracker in recipe.track.to if subject.reaches("trained") else ():
        extra = "tracking" if tracker == "tensorboard" else ""
        yield _Extra(tracker, extra, "track.to")
    replay = recipe.mix.base_replay
    paths = [d.path for d in recipe.data] + [replay.source if replay else None]
    if any(path and path.endswith(".parquet") for path in paths):
        yield _Extra("pyarrow", "parquet", "a Parquet file")


def _least_copies(recipe: Recipe) -> float:
    """Of the base, in float32: a checkpoint, one being written, and, where all is trained, the
    weights of the state to resume from with their two moments."""
    if recipe.student.lora is not None:
        return 2
    return 2 + 1 + 2 * (1 if recipe.train.optimizer_states == "float32" else 0.5)


def _num_parameters(subject: Subject) -> int:
    base = subject.recipe.student.base
    config = find_config(base)
    found = num_weights(config.parent if config else Path(base))
    sizes = read_architecture(base) or subject.recipe.plan.architecture
    return found or (sizes.num_parameters if sizes else 0)


def _has_trained(subject: Subject) -> bool:
    return subject.run_path is not None and (subject.run_path / "steps" / "trained").is_dir()


def _existing_parent(path: Path) -> Path:
    path = path.absolute()
    return next(p for p in (path, *path.parents) if p.is_dir())
