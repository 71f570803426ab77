"""What the first process tells the others of a `fit`, as a file on a disk that all see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from pydantic import TypeAdapter

from feldspar.config import StudentConfig
from feldspar.files import whole_file
from feldspar.stored import read_stored
from feldspar.student.distributed.fsdp import choose_shard
from feldspar.student.model import Student
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.activation_checkpointing import foresees_checkpointing
from feldspar.student.training.memory import Method, Shard
from feldspar.student.training.objective import (
    Objective,
    ObjectiveParts,
    name_of_kind,
    objective_of,
)
from feldspar.student.training.process_group import LaunchSettings
from feldspar.student.training.schedule import Schedule
from feldspar.student.training.settings import FitSettings
from feldspar.tokens.arrays import read, write

JOB_FOLDER = "ranks"
"""Of a job, in the folder of its state."""

SavedRows = tuple[tuple[str, str], ...]
"""Name and folder of each source's tokens."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What the others need to know of a `fit`."""

    start: str
    config: StudentConfig
    seed: int
    schedule: Schedule
    settings: FitSettings
    shard: Shard
    key: str
    rows: SavedRows
    objective: str
    """Its kind, as `module:Class`."""
    objective_rows: dict[str, SavedRows]
    objective_settings: dict[str, float]
    objective_folder: str
    versions: tuple[str, ...]


class ReadJob(NamedTuple):
    job: Job
    rows: TokenRows
    objective: Objective


class WantedFit(NamedTuple):
    """What `fit` was asked for."""

    student: Student
    rows: TokenRows
    schedule: Schedule
    settings: FitSettings
    objective: Objective
    key: str


def make_job(wanted: WantedFit, launch: LaunchSettings, folder: Path, memory: int | None) -> Job:
    """What the processes of `launch` are told, on GPUs of `memory` bytes (None: on CPUs). Rows that
    are in memory alone are written to `folder`."""
    shard = choose_shard(wanted.student, launch.num_processes, launch.shard, memory)
    settings = wanted.settings
    if settings.activation_checkpointing == "auto":
        again = _foresees_checkpointing(wanted, shard, launch, memory)
        settings = replace(settings, activation_checkpointing="always" if again else "never")
    parts = wanted.objective.parts()
    return Job(
        start=_resolved(launch.start),
        config=launch.config,
        seed=launch.seed,
        schedule=wanted.schedule,
        settings=settings,
        shard=shard,
        key=wanted.key,
        rows=save_rows(wanted.rows, folder),
        objective=name_of_kind(wanted.objective),
        objective_rows={
            name: save_rows(others, folder / name) for name, others in parts.rows.items()
        },
        objective_settings=dict(parts.settings),
        objective_folder=_resolved(parts.folder),
        versions=versions(launch.config),
    )


def _resolved(path: str) -> str:
    """A folder by its whole path, for processes that may run elsewhere; a hub id as it is."""
    return str(Path(path).resolve()) if path and Path(path).exists() else path


def _foresees_checkpointing(
    wanted: WantedFit, shard: Shard, launch: LaunchSettings, memory: int | None
) -> bool:
    if memory is None:
        return False
    method = Method(
        compute="float32" if wanted.student.dtype == torch.float32 else "bfloat16",
        states=wanted.settings.optimizer_states,
        lora_rank=launch.config.lora.rank if launch.config.lora else 0,
        shard=shard,
        num_shards=launch.num_processes,
    )
    num_tokens = max(wanted.settings.tokens_per_micro_batch, launch.config.max_length)
    return foresees_checkpointing(launch.start, method, num_tokens, memory)


def versions(config: StudentConfig) -> tuple[str, ...]:
    """Of what decides how a model is loaded and a step computed."""
    names = ["feldspar", "torch", "transformers", *(["peft"] if config.lora else [])]
    return tuple(f"{name} {version(name)}" for name in names)


def write_job(job: Job, folder: Path) -> Path:
    with whole_file(folder / "job.json") as temporary:
        temporary.write_bytes(TypeAdapter(Job).dump_json(job))
    return folder


def read_job(folder: Path) -> ReadJob:
    """The job with its rows, and its objective made anew."""
    job = read_stored(folder / "job.json", Job)
    rows = _read_rows(job.rows)
    others = {name: _read_rows(saved) for name, saved in job.objective_rows.items()}
    parts = ObjectiveParts(others, job.objective_settings, job.objective_folder)
    return ReadJob(job, rows, objective_of(job.objective, rows, parts))


def save_rows(rows: TokenRows, folder: Path) -> SavedRows:
    """Where each source's tokens lie; those that are in memory alone are written."""
    return tuple(_saved(rows, folder))


def _saved(rows: TokenRows, folder: Path) -> Iterator[tuple[str, str]]:
    for number, (name, arrays) in enumerate(rows.sources):
        place = folder / f"rows-{number}"
        if isinstance(arrays.ids, np.memmap) and arrays.ids.filename is not None:
            place = Path(arrays.ids.filename).resolve().parent
        else:
            place.mkdir(parents=True, exist_ok=True)
            write(place, [[arrays.row(index) for index in range(arrays.num_rows)]])
        folder.mkdir(parents=True, exist_ok=True)
        yield name, str(place)


def _read_rows(saved: SavedRows) -> TokenRows:
    return TokenRows((name, read(Path(place))) for name, place in saved)
