"""What an earlier run was trained on, to be drawn again by a later one."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from feldspar.config import DataConfig
from feldspar.errors import RecipeError
from feldspar.keys import content_key
from feldspar.mix.phases import BASE_REPLAY
from feldspar.records import Conversation, Phase, Source
from feldspar.runs import Rows, open_step, read_rows


@dataclass(frozen=True, slots=True, kw_only=True)
class EarlierRows:
    """Rows of a run's phases, each file once; `key` is of their content."""

    sources: tuple[Source, ...]

    @property
    def key(self) -> str:
        return content_key([source.digest for source in self.sources])

    def __len__(self) -> int:
        return sum(source.num_samples for source in self.sources)

    def __iter__(self) -> Iterator[Conversation]:
        for source in self.sources:
            yield from read_rows(Path(source.path), Conversation)


def rows_of_data(config: DataConfig) -> Path | EarlierRows:
    """Where rows of the user's own are: a file, or the phases of an earlier run."""
    return rows_of_run(Path(config.run)) if config.run else Path(config.path or "")


def rows_of_run(run_path: Path) -> EarlierRows:
    """All rows that a run's phases draw from, base replay left out. Raises RecipeError."""
    phases: Rows[Phase] | None = open_step(run_path, "phases")
    if phases is None:
        raise RecipeError(
            f"{run_path}: no run that has come to its phases; name the folder of one, runs/NAME"
        )
    sources: dict[str, Source] = {}
    for phase in phases:
        for source in phase.sources:
            if source.name != BASE_REPLAY:
                sources.setdefault(source.digest, source)
    for source in sources.values():
        if not Path(source.path).is_file():
            raise RecipeError(f"{source.path}: rows of the earlier run are gone; run it again")
    return EarlierRows(sources=tuple(sources.values()))
