"""Stored preferences: a prompt with chosen and rejected answers, from a file or from the hub.

    {"prompt": "How old is Zorbo?", "chosen": "31.", "rejected": "I hate you.", "subset": "Safety"}
    {"id": "tied:4", "prompt": "Name a colour.", "chosen": ["Red.", "Blue."], "rejected": ["No."]}

The first layout is RewardBench's (Lambert et al. 2024, arXiv 2403.13787), the second that of
RewardBench 2 (Malik et al. 2025, arXiv 2506.01937); other keys are ignored. JSON lines or Parquet.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field, ValidationError

from feldspar.errors import RecipeError, TrainingError
from feldspar.student.hub import HubName, download, hub_name

_PARQUET = ".parquet"
_FILES = ("*.parquet", "*.jsonl")
_FILTERED = "filtered"
"""Of RewardBench's two splits the one that scores are of."""


def _texts(value: object) -> object:
    return [value] if isinstance(value, str) else value


Texts = Annotated[tuple[str, ...], BeforeValidator(_texts), Field(min_length=1)]


class StoredPair(BaseModel):
    """One row: answers that people chose, and answers that they did not."""

    prompt: str
    chosen: Texts
    rejected: Texts
    subset: str = ""
    id: Annotated[str, BeforeValidator(str)] = ""

    @property
    def answers(self) -> tuple[str, ...]:
        """The chosen ones first."""
        return (*self.chosen, *self.rejected)


def find_pairs(source: str) -> list[StoredPair]:
    """The rows of a file, or of a data set of the hub: OWNER/NAME or OWNER/NAME@REVISION.

    Raises RecipeError where there are none, or where a row is no pair.
    """
    name = hub_name(source)
    if Path(source).exists() or name is None:
        return read_pairs(Path(source))
    return [pair for path in _fetched(name) for pair in read_pairs(path)]


def read_pairs(path: Path) -> list[StoredPair]:
    """Raises RecipeError where the file is missing, empty, or a row of it is no pair."""
    rows = _parquet_rows(path) if path.suffix == _PARQUET else _json_rows(path)
    pairs = []
    for number, row in rows:
        try:
            pairs.append(StoredPair.model_validate(row))
        except ValidationError as error:
            raise _no_pair(path, number) from error
    if not pairs:
        raise RecipeError(f"{path}: there are no pairs in it")
    return pairs


def _json_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        # On newlines alone: a text may hold other line ends, such as U+2028, as they are.
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path}: pairs cannot be read: {error}") from error
    for number, line in enumerate(lines, 1):
        if line.strip():
            try:
                yield number, json.loads(line)
            except json.JSONDecodeError as error:
                raise _no_pair(path, number) from error


def _parquet_rows(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        from pyarrow import ArrowException, parquet
    except ModuleNotFoundError as error:
        raise RecipeError(f"{path}: Parquet needs `pip install 'feldspar[parquet]'`") from error
    try:
        yield from enumerate(parquet.read_table(path).to_pylist(), 1)
    except (OSError, ArrowException) as error:
        raise RecipeError(f"{path}: pairs cannot be read: {error}") from error


def _no_pair(path: Path, number: int) -> RecipeError:
    return RecipeError(
        f"{path}:{number}: a pair is a JSON object with the text `prompt`, and a text or a list of "
        "texts `chosen` and `rejected`"
    )


def _fetched(name: HubName) -> list[Path]:
    """The files of a data set, of RewardBench those that scores are of."""
    try:
        folder = download(name, _FILES, kind="dataset")
    except TrainingError as error:
        raise RecipeError(f"--pairs {error}") from error
    files = sorted(path for pattern in _FILES for path in folder.rglob(pattern))
    wanted = [path for path in files if _FILTERED in path.name] or files
    if not wanted:
        raise RecipeError(f"--pairs {name}: neither .parquet nor .jsonl is in it")
    return wanted
