"""What the first process tells the others of a `fit`, as a file on a disk that all see."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
from pydantic import TypeAdapter

from feldspar.config import StudentConfig
from feldspar.files import whole_file
from feldspar.stored import read_stored
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.memory import Shard
from feldspar.student.training.objective import Objective, ObjectiveParts, objective_of
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
