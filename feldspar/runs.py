"""The run directory: steps that are done once, found again, and resumed after any death.

    runs/NAME/
      recipe.json           what was run
      current.json          step name -> key
      steps/NAME/KEY8/      rows.jsonl.zst, what the step wrote beside it, and done.json, last
      lock                  one writer at a time

A step's key covers its version, its part of the recipe, the content of the files it reads, the keys
of its inputs, and the `key` of every client or function handed in. Where files lie does not count.
A folder without done.json is an unfinished step: the step's function finds it again as `here`.
A run that was moved, or is read from elsewhere, gives its records with the paths they have now.
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import inspect
import io
import json
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import zstandard
from filelock import FileLock, Timeout
from pydantic import BaseModel, TypeAdapter

from feldspar import records
from feldspar.config import Recipe, is_path, move_paths
from feldspar.errors import RecipeError, RunError
from feldspar.progress import SILENT, Progress

R = TypeVar("R")

ROWS = "rows.jsonl.zst"
DONE = "done.json"
_PLACE = "run_path"
"""In recipe.json: where the run was when it was last written."""


class Rows(Generic[R]):
    """The records a finished step gave, read from disk each time they are iterated."""

    def __init__(self, folder: Path) -> None:
        done = json.loads((folder / DONE).read_text(encoding="utf-8"))
        self.folder = folder
        self.key: str = done["key"]
        self.seconds: float = done["seconds"]
        self._num_rows: int = done["num_rows"]
        self._record: str | None = done["record"]
        self._run_path_then: str = done["run_path"]

    def __len__(self) -> int:
        return self._num_rows

    def __iter__(self) -> Iterator[R]:
        if self._record is None:
            return
        run_path = str(self.folder.parents[2])
        for row in read_rows(self.folder / ROWS, getattr(records, self._record)):
            yield _moved(row, self._run_path_then, run_path)

    def last(self) -> R:
        """The last record. A step that gives checkpoints gives its result last."""
        tail = deque(self, maxlen=1)
        if not tail:
            raise RunError(f"{self.folder}: the step gave nothing")
        return tail[0]


def read_rows(path: Path, record: type[R]) -> Iterator[R]:
    """Read records from a `.jsonl.zst` file, one at a time."""
    adapter = TypeAdapter(record)
    with path.open("rb") as raw, zstandard.ZstdDecompressor().stream_reader(raw) as stream:
        for line in io.TextIOWrapper(stream, encoding="utf-8", newline="\n"):
            yield adapter.validate_json(line)


def write_rows(path: Path, rows: Iterable[object]) -> tuple[int, str | None]:
    """Write records beside `path` and rename. Returns their number and their type's name."""
    beside = path.with_name(path.name + ".part")
    adapter: TypeAdapter[Any] | None = None
    record: str | None = None
    num_rows = 0
    with (
        beside.open("wb") as raw,
        zstandard.ZstdCompressor(level=3).stream_writer(raw, closefd=False) as stream,
    ):
        for row in rows:
            if adapter is None:
                adapter, record = TypeAdapter(type(row)), type(row).__name__
            stream.write(adapter.dump_json(row) + b"\n")
            num_rows += 1
    _make_durable(beside, path)
    return num_rows, record


def write_json(path: Path, value: object) -> None:
    """Write JSON beside `path` and rename, so that a reader sees all of it or nothing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(path.name + ".part")
    beside.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    _make_durable(beside, path)


def _make_durable(beside: Path, path: Path) -> None:
    with beside.open("rb") as file:
        os.fsync(file.fileno())
    beside.replace(path)


class Run:
    """A run directory, opened for writing by one process at a time.

    `with Run(Path("runs/demo"), recipe, progress) as run: leaves = run.step("leaves", ...)`
    Raises RunError when another process holds it.
    """

    def __init__(
        self, path: Path, recipe: Recipe, progress: Progress = SILENT, num_processes: int = 1
    ) -> None:
        self.path = path
        self.recipe = recipe
        self.progress = progress
        self.num_processes = num_processes
        self._digests = Digests(path / "digests.json")
        self._lock = FileLock(path / "lock")

    def __enter__(self) -> Run:
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"{self.path} is being written by another process; wait for it, stop it, "
                "or give this run another `name`"
            ) from None
        recipe = self.recipe.model_dump(mode="json")
        write_json(self.path / "recipe.json", recipe | {_PLACE: str(self.path.absolute())})
        return self

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def step(
        self,
        name: str,
        function: Callable[..., Iterable[R]],
        *inputs: object,
        version: int = 1,
        reads: Sequence[Path] = (),
        **handed: object,
    ) -> Rows[R]:
        """Give the rows of `function(*inputs, **handed)`, computed once per key.

        `here` (the step's folder, kept when the step dies), `progress` and `num_processes` are
        passed to functions that take them.
        """
        parts = [name, version, self._content_of(reads), [_key_of(i) for i in inputs]]
        parts.append({key: _key_of(value) for key, value in sorted(handed.items())})
        key = _hash(parts)
        folder = self.path / "steps" / name / key[:8]
        if not (folder / DONE).exists():
            folder.mkdir(parents=True, exist_ok=True)
            available: dict[str, object] = {"here": folder, "progress": self.progress}
            available["num_processes"] = self.num_processes
            wanted = inspect.signature(function).parameters
            handed = handed | {k: v for k, v in available.items() if k in wanted}
            started = time.monotonic()
            num_rows, record = write_rows(folder / ROWS, function(*inputs, **handed))
            seconds = round(time.monotonic() - started, 3)
            done = {"key": key, "record": record, "num_rows": num_rows, "seconds": seconds}
            done["run_path"] = str(self.path)
            write_json(folder / DONE, done)
        self._make_current(name, key)
        return Rows(folder)

    def _content_of(self, paths: Sequence[Path]) -> list[list[str]]:
        """Names, relative to what the paths have in common, and digests."""
        if not paths:
            return []
        top = os.path.commonpath([existing(path).parent for path in paths])
        return [[os.path.relpath(path, top), self._digests.of(path)] for path in sorted(paths)]

    def _make_current(self, name: str, key: str) -> None:
        path = self.path / "current.json"
        current = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
        if current.get(name) != key:
            write_json(path, current | {name: key})


class Joined(Generic[R]):
    """Rows of several steps as one iterable with one key."""

    def __init__(self, *parts: Rows[R]) -> None:
        self.parts = parts
        self.key = _hash([part.key for part in parts])

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __iter__(self) -> Iterator[R]:
        for part in self.parts:
            yield from part


def open_step(run_path: Path, name: str) -> Rows[Any] | None:
    """The current rows of a step, or None where the run has not come so far. For readers."""
    try:
        current = json.loads((run_path / "current.json").read_text(encoding="utf-8"))
        return Rows(run_path / "steps" / name / current[name][:8])
    except (FileNotFoundError, KeyError):
        return None


def read_recipe_of(run_path: Path) -> Recipe:
    """The recipe a run was made with, its paths real, also where the run was moved."""
    tree = json.loads((run_path / "recipe.json").read_text(encoding="utf-8"))
    then = tree.pop(_PLACE, None)
    recipe = Recipe.model_validate(tree)
    now = run_path.absolute()
    return recipe if then in (None, str(now)) else move_paths(recipe, Path(then), now)


def result_of(run_path: Path) -> records.Checkpoint:
    """A run's result: the preference-tuned checkpoint, else the fine-tuned one.

    Raises RunError when the run has not trained anything yet.
    """
    wanted = ["trained"] if read_recipe_of(run_path).prefer is None else ["preferred", "trained"]
    for name in wanted:
        rows = open_step(run_path, name)
        if rows is not None and len(rows):
            checkpoint = rows.last()
            assert isinstance(checkpoint, records.Checkpoint)
            return checkpoint
    raise RunError(f"{run_path} has no trained model yet; `feldspar run` the recipe to its end")


def find_run(name: str, root: Path) -> Path:
    """A run by name (under `root`) or by path. Raises RunError when there is none."""
    for path in (Path(name), root / name):
        if (path / "recipe.json").is_file():
            return path
    there = sorted(p.parent.name for p in root.glob("*/recipe.json"))
    known = f"; there are: {', '.join(there)}" if there else f"; {root} holds none"
    raise RunError(f"no run called {name!r}{known}")


def existing(path: Path) -> Path:
    """The same path. Raises RecipeError where nothing is there."""
    if not path.exists():
        raise RecipeError(f"{path}: no such file or folder; mend its path in the recipe")
    return path


def cache_folder() -> Path:
    """Where what can be made again is kept: FELDSPAR_CACHE, or `~/.cache/feldspar`."""
    return Path(os.environ.get("FELDSPAR_CACHE") or Path.home() / ".cache" / "feldspar")


class Digests:
    """Content digests of files, remembered by size and time of change."""

    def __init__(self, cache_path: Path) -> None:
        self.cache_path = cache_path
        self._known: dict[str, list[Any]] = {}
        with contextlib.suppress(FileNotFoundError, json.JSONDecodeError):
            self._known = json.loads(cache_path.read_text(encoding="utf-8"))

    def of(self, path: Path) -> str:
        """sha256 of a file, or of the names and contents of a folder's files."""
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file())
            return _hash([[str(p.relative_to(path)), self.of(p)] for p in files])
        stat = path.stat()
        stamp = [stat.st_size, stat.st_mtime_ns]
        known = self._known.get(str(path))
        if known is None or known[:2] != stamp:
            with path.open("rb") as file:
                known = [*stamp, hashlib.file_digest(file, "sha256").hexdigest()]
            self._known[str(path)] = known
            if stat.st_size > 1 << 20:
                write_json(self.cache_path, self._known)
        digest: str = known[2]
        return digest


def _moved(row: Any, then: str, now: str) -> Any:
    """A record of a run at `then` as it is where the run is `now`."""
    if then == now:
        return row
    if isinstance(row, records.Phase):
        sources = tuple(_moved(source, then, now) for source in row.sources)
        return dataclasses.replace(row, sources=sources)
    if isinstance(row, (records.Checkpoint, records.Source)):
        return dataclasses.replace(row, path=_path_now(row.path, then, now))
    if isinstance(row, records.Score):
        return dataclasses.replace(row, answers_path=_path_now(row.answers_path, then, now))
    return row


def _path_now(path: str, then: str, now: str) -> str:
    """The same path, of a file in the run in its new place."""
    return (
        str(Path(now) / Path(path).relative_to(then)) if Path(path).is_relative_to(then) else path
    )


def _hash(value: object) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _key_of(value: object) -> Any:
    """What of a value decides the result: keys for what has one, never where a file lies."""
    if isinstance(value, records.Checkpoint):
        return value.digest
    if isinstance(key := getattr(value, "key", None), str):
        return key
    if isinstance(value, BaseModel):
        fields = type(value).model_fields
        return {n: _key_of(getattr(value, n)) for n, f in fields.items() if not is_path(f)}
    if dataclasses.is_dataclass(value):
        return {f.name: _key_of(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, (list, tuple)):
        return [_key_of(v) for v in value]
    if isinstance(value, dict):
        return {str(k): _key_of(v) for k, v in value.items()}
    if isinstance(value, Path):
        return None
    if value is None or isinstance(value, (str, int, float, bool)):
        return value
    raise AssertionError(f"a step was handed a {type(value).__name__}, which has no key")
