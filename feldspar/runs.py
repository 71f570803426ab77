"""The run directory: steps that are done once, found again, and resumed after any death.

    runs/NAME/
      recipe.json           what was run
      current.json          step name -> key; "" where a changed recipe has none of it yet
      steps/NAME/KEY8/      rows.jsonl.zst, what the step wrote beside it, and done.json, last
      lock                  one writer at a time
      shared                only in an arm of a study: where steps lie, which are links here

A step's key covers its name and version, what of its arguments decides its result (keys.py), and
the content of the files it reads. Where files lie and how fast a step is done do not count.
A folder without done.json is an unfinished step: the step finds it again as its workspace's folder.
A run that was moved, or is read from elsewhere, gives its records with the paths they have now.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import json
import logging
import os
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, ParamSpec, TypeVar

import zstandard
from filelock import FileLock, Timeout
from pydantic import TypeAdapter

from feldspar import records
from feldspar.config import Recipe, move_paths
from feldspar.digests import Digests
from feldspar.errors import DiskError, RecipeError, RunError
from feldspar.files import ZstdReader, checksummed, whole_file, write_json
from feldspar.keys import content_key
from feldspar.progress import SILENT, Progress
from feldspar.progress_file import RecordedProgress
from feldspar.steps import Step, Workspace
from feldspar.stored import (
    Done,
    adapter_of,
    check_file,
    check_name,
    damaged,
    mark_files,
    read_stored,
    reading,
)

log = logging.getLogger(__name__)

P = ParamSpec("P")
R = TypeVar("R")

ROWS = "rows.jsonl.zst"
DONE = "done.json"
CURRENT = "current.json"
LOCK = "lock"
SHARED = "shared"
"""In an arm of a study: a link to the folder whose steps all arms share."""
FORMAT = 2
"""Of the run directory: raised when what an earlier version made would be misread."""
_PLACE = "run_path"
"""In recipe.json: where the run was when it was last written."""
_FORMAT = "run_format"
_SHA256_LETTERS = 64
_REPEAT_WITHOUT_IT = "delete it and run again: what the step made is found again"
REPEAT = "repeat `feldspar run` with its recipe: all that is done is found again"
"""The cure for what the next run writes anew."""


class Rows(Generic[R]):
    """The records a finished step gave, read from disk each time they are iterated.

    Raises RunError where its done.json is damaged.
    """

    def __init__(self, folder: Path) -> None:
        path = folder / DONE
        self.done = read_stored(path, Done, _REPEAT_WITHOUT_IT)
        self.folder = folder
        self._is_checked = False
        self.key, self.seconds = self.done.key, self.done.seconds
        is_of_step = self.key[:8] == folder.name and self.done.is_whole
        if not is_of_step or not hasattr(records, self.done.record or "Sample"):
            raise damaged(path, "it is not what the step wrote", _REPEAT_WITHOUT_IT)

    def __len__(self) -> int:
        return self.done.num_rows

    def __iter__(self) -> Iterator[R]:
        path = self.folder / ROWS
        num_rows = 0
        # Also where it gave nothing: a file that is gone or has rows says that this is not so.
        kind = getattr(records, self.done.record) if self.done.record else dict
        for row in read_rows(path, kind):
            num_rows += 1
            yield _moved(row, self.done.run_path, str(self.folder.parents[2]))
        if num_rows != len(self):
            raise damaged(path, f"it has {num_rows} rows, not {len(self)}")
        if not self._is_checked:  # Another run's rows are whole too.
            check_file(self.folder, ROWS, self.done.files)
            self._is_checked = True

    def file(self, name: str) -> Path:
        """A file that the step wrote beside its rows; it may never have been there.

        Raises RunError where it is not as the step left it.
        """
        check_file(self.folder, name, self.done.files)
        return self.folder / name

    def files(self, under: str) -> Path:
        """A folder of the step's, all of its files checked as `file` does."""
        for name in self.done.files:
            if name.startswith(f"{under}/"):
                self.file(name)
        return self.folder / under

    def last(self) -> R:
        """The last record. A step that gives checkpoints gives its result last."""
        tail = deque(self, maxlen=1)
        if not tail:
            raise RunError(f"{self.folder}: the step gave nothing")
        return tail[0]


def read_rows(path: Path, record: type[R]) -> Iterator[R]:
    """Read records from a `.jsonl.zst` file, one at a time.

    Raises RunError where the file is cut off or was changed: it is never read as a shorter one.
    """
    adapter = adapter_of(record)
    with reading(path, also=(zstandard.ZstdError,)), path.open("rb") as raw:
        if not os.fstat(raw.fileno()).st_size:
            raise damaged(path, "it is empty")
        frames = ZstdReader(raw)
        for line in io.BufferedReader(frames):
            yield adapter.validate_json(line)
        if frames.num_frames > 1:
            raise damaged(path, "it holds more than was written")


def write_rows(
    path: Path, rows: Iterable[object], *, is_shared: bool = False
) -> tuple[int, str | None]:
    """Write records to a file that is there whole or not at all. Returns their number and their
    type's name. `is_shared`: several processes may write the same at once."""
    adapter: TypeAdapter[Any] | None = None
    record: str | None = None
    num_rows = 0
    with (
        whole_file(path, is_shared=is_shared) as beside,
        beside.open("wb") as raw,
        checksummed().stream_writer(raw, closefd=False) as stream,
    ):
        for row in rows:
            if adapter is None:
                adapter, record = adapter_of(type(row)), type(row).__name__
            stream.write(adapter.dump_json(row) + b"\n")
            num_rows += 1
    return num_rows, record


def claim_run(path: Path, recipe_folder: Path) -> None:
    """Note which project a run is of. Raises RunError where it is another's that is still there.

    A project that was moved or copied takes its runs along: they are not where they were noted.
    """
    check_name(path)
    note = path / "project.json"
    claim = {"folder": str(recipe_folder.resolve()), "run_path": str(path.resolve())}
    try:
        noted = json.loads(note.read_text("utf-8")) if note.is_file() else claim
        owner, place = str(noted["folder"]), str(noted["run_path"])
    except (ValueError, KeyError, TypeError):
        # Damaged: it is written anew.
        owner, place = claim["folder"], claim["run_path"]
    if place == claim["run_path"] and owner != claim["folder"] and Path(owner).is_dir():
        raise RunError(
            f"{path} is the run of the recipe in {owner}; give this recipe another `name`, "
            "or keep its runs elsewhere with --runs"
        )
    write_json(note, claim)


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
        self.progress: Progress = progress
        self.num_processes = num_processes
        self._digests = Digests(path / "digests.json")
        self._lock = FileLock(path / LOCK)
        self._found: set[str] = set()
        """Steps that this process has done or found again."""

    def __enter__(self) -> Run:
        check_name(self.path)
        self.path.mkdir(parents=True, exist_ok=True)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise RunError(
                f"{self.path} is being written by another process; wait for it, stop it, "
                "or give this run another `name`"
            ) from None
        _announce_format(self.path)
        recipe = self.recipe.model_dump(mode="json")
        place = {_PLACE: str(self.path.absolute()), _FORMAT: FORMAT}
        write_json(self.path / "recipe.json", recipe | place)
        self._recorded = RecordedProgress(self.progress, self.path)
        self.progress = self._recorded.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: object
    ) -> None:
        self._recorded.__exit__(kind, error, trace)
        self._lock.release()

    def step(
        self, step: Step[P, R], *, reads: Mapping[str, Path] | None = None
    ) -> Callable[P, Rows[R]]:
        """Give what computes a step's rows, once per key: `run.step(SAMPLES)(leaves, config)`.

        `reads`: the files and folders whose content decides the result, by names that do not depend
        on where they lie.
        """

        def rows(*args: P.args, **kwargs: P.kwargs) -> Rows[R]:
            files = {name: self._digests.of(existing(p)) for name, p in (reads or {}).items()}
            key = content_key(step.name, step.version, files, step.arguments(*args, **kwargs))
            folder = self._step_folder(step.name, key[:8])
            if not (folder / DONE).exists():
                folder.mkdir(parents=True, exist_ok=True)
                work = Workspace(
                    folder=folder,
                    progress=self.progress,
                    num_processes=self.num_processes,
                    answers=self.path / "answers",
                )
                self._finish(folder, key, lambda: step.run(work, *args, **kwargs))
            self._make_current(step.name, key)
            return Rows(folder)

        return rows

    def _step_folder(self, name: str, key: str) -> Path:
        """Where a step works; in an arm of a study a link to where all arms find it."""
        folder, shared = self.path / "steps" / name / key, self.path / SHARED
        if shared.is_dir() and not folder.exists():
            home = shared.resolve() / "steps" / name / key
            home.mkdir(parents=True, exist_ok=True)
            folder.parent.mkdir(parents=True, exist_ok=True)
            place = os.path.relpath(home, folder.parent.resolve())
            folder.symlink_to(place, target_is_directory=True)
        return folder

    def _finish(self, folder: Path, key: str, compute: Callable[[], Iterable[object]]) -> None:
        """Write a step's rows, and last that it is done."""
        started = time.monotonic()
        num_rows, record = write_rows(folder / ROWS, compute())
        seconds = round(time.monotonic() - started, 3)
        done = Done(
            key=key,
            record=record,
            num_rows=num_rows,
            seconds=seconds,
            run_path=str(self.path),
            files=mark_files(folder, (DONE,)),
        )
        write_json(folder / DONE, dataclasses.asdict(done.sealed()))

    def forget_others(self) -> None:
        """At the end of a run: what it has not done or found is another recipe's result."""
        path = self.path / CURRENT
        current = read_stored(path, dict[str, str])
        if (kept := self._of_found(current)) != current:
            write_json(path, kept)

    def _make_current(self, name: str, key: str) -> None:
        """A changed result takes away those of later steps, until they are found again: what comes
        before it was found already."""
        path = self.path / CURRENT
        current = read_stored(path, dict[str, str]) if path.exists() else {}
        self._found.add(name)
        if current.get(name) != key:
            write_json(path, self._of_found(current) | {name: key})

    def _of_found(self, current: dict[str, str]) -> dict[str, str]:
        return {name: key if name in self._found else "" for name, key in current.items()}


class Joined(Generic[R]):
    """Rows of several steps as one iterable with one key."""

    def __init__(self, *parts: Rows[R]) -> None:
        self.parts = parts
        self.key = content_key([part.key for part in parts])

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def __iter__(self) -> Iterator[R]:
        for part in self.parts:
            yield from part


def open_step(run_path: Path, name: str) -> Rows[Any] | None:
    """The current rows of a step, or None where the run has not come so far. For readers.

    Raises RunError where what says so is damaged.
    """
    path, folder = run_path / CURRENT, run_path / "steps" / name
    current = read_stored(path, dict[str, str]) if path.exists() else {}
    if name in current:
        if not current[name]:
            return None
        rows: Rows[Any] = Rows(folder / current[name][:8])
        if rows.key != current[name]:
            raise damaged(path, f"it does not name the key of {name}")
        return rows
    if any(folder.glob(f"*/{DONE}")):
        raise damaged(path, f"the step {name} is done, and it does not say so", REPEAT)
    return None


def read_recipe_of(run_path: Path) -> Recipe:
    """The recipe a run was made with, its paths real, also where the run was moved."""
    path = run_path / "recipe.json"
    tree = read_stored(path, dict[str, Any], REPEAT)
    then, made_by = tree.pop(_PLACE, None), tree.pop(_FORMAT, 1)
    if isinstance(made_by, int) and made_by > FORMAT:
        raise RunError(
            f"{run_path}: made by a newer version of Feldspar (run format {made_by}, this "
            f"one reads up to {FORMAT}); update Feldspar"
        )
    with reading(path, REPEAT):
        recipe = Recipe.model_validate(tree)
    now = run_path.absolute()
    return recipe if then in (None, str(now)) else move_paths(recipe, Path(then), now)


def result_of(run_path: Path) -> records.Checkpoint:
    """A run's result: the preference-tuned checkpoint, else the merged, else the fine-tuned one.

    Raises RunError when the run has not trained anything yet.
    """
    recipe = read_recipe_of(run_path)
    made = {"preferred": recipe.prefer is not None, "merged": recipe.train.merges_the_end}
    for name in (*(name for name, is_made in made.items() if is_made), "trained"):
        rows = open_step(run_path, name)
        if rows is not None and len(rows):
            checkpoint = rows.last()
            assert isinstance(checkpoint, records.Checkpoint)
            return checkpoint
    raise RunError(f"{run_path} has no trained model yet; `feldspar run` the recipe to its end")


def _announce_format(run_path: Path) -> None:
    """Say it where an earlier version made the run: its steps have other keys."""
    path = run_path / "recipe.json"
    about: dict[str, Any] = {_FORMAT: FORMAT}
    if path.is_file():
        # Damaged: it is about to be written anew.
        with contextlib.suppress(RunError):
            about = read_stored(path, dict[str, Any])
    if about.get(_FORMAT, 1) != FORMAT:
        log.warning(
            "%s was made by an earlier version of Feldspar: its steps are computed again, teacher "
            "answers come from the journal; to keep it as it is, give this run another `name`",
            run_path,
        )


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
    named = os.environ.get("FELDSPAR_CACHE") or os.path.expanduser("~/.cache/feldspar")
    if named.startswith("~"):  # Some containers' users have no home.
        raise DiskError("no home folder is known; set HOME, or FELDSPAR_CACHE to a folder")
    return Path(named)


def _moved(row: Any, then: str, now: str) -> Any:
    """A record of a run at `then` as it is where the run is `now`."""
    if then == now:
        return row
    if isinstance(row, records.Phase):
        sources, held_out = (
            tuple(_moved(source, then, now) for source in of) for of in (row.sources, row.held_out)
        )
        return dataclasses.replace(row, sources=sources, held_out=held_out)
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
