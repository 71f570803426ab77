"""Everything that a run holds, read from end to end: which files are not as they were written."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

from feldspar.errors import FeldsparError
from feldspar.progress_file import PROGRESS_FILE, RunState
from feldspar.records import Checkpoint, Conversation, Phase
from feldspar.reviews import HONOURED, read_decisions, read_honoured, review_files
from feldspar.runs import CURRENT, DONE, REPEAT, ROWS, Rows, open_step, read_recipe_of, read_rows
from feldspar.stored import damaged, read_stored
from feldspar.student.precision import read_noted
from feldspar.tokens import arrays

_TOKENS = "tokens"
"""Folder beside a phase's rows."""
_ASKING = ("calibration", "leaf-exams", "samples", "judged", "mt-bench", "served-exams")
"""Steps that ask a teacher or a judge, whose answers the journal keeps."""


class Checked(NamedTuple):
    """What was looked at, and one line for each file that is damaged."""

    num_checked: int
    faults: list[str]


def verify_run(run_path: Path) -> Checked:
    """Check every file of a run that something is known of, and its journal by SQLite's own check.

    Rows are read to their end and counted, files compared with what their step noted of them,
    checkpoints with their digests.
    """
    faults: dict[str, None] = {}
    num_checked = 0
    for check in _checks(run_path):
        num_checked += 1
        try:
            check()
        except FeldsparError as error:
            # A file that two checks look at is one fault.
            faults[str(error)] = None
    return Checked(num_checked, list(faults))


def _checks(run_path: Path) -> Iterator[Callable[[], object]]:
    yield lambda: read_recipe_of(run_path)
    yield lambda: _check_current(run_path)
    yield lambda: read_noted(run_path)
    if (run_path / PROGRESS_FILE).exists():
        yield lambda: read_stored(run_path / PROGRESS_FILE, RunState, REPEAT)
    if (run_path / HONOURED).exists():
        yield lambda: read_honoured(run_path)
    for path in review_files(run_path):
        yield lambda path=path: read_decisions(path)  # type: ignore[misc]
    for folder in sorted(run_path.glob("steps/*")):
        yield lambda name=folder.name: open_step(run_path, name)  # type: ignore[misc]
    yield lambda: _check_journal(run_path)
    for done in sorted(run_path.glob(f"steps/*/*/{DONE}")):
        yield from _step_checks(done.parent)
    for path in sorted(run_path.glob("answers/**/*.jsonl.zst")):
        yield lambda path=path: _exhaust(read_rows(path, dict))  # type: ignore[misc]
    for folder in sorted(run_path.glob(f"steps/*/*/{_TOKENS}/*")):
        if folder.is_dir():
            yield lambda folder=folder: arrays.read(folder)  # type: ignore[misc]


def _check_current(run_path: Path) -> None:
    path = run_path / CURRENT
    if path.exists():
        for name, key in read_stored(path, dict[str, str]).items():
            if key and not (run_path / "steps" / name).is_dir():
                raise damaged(path, f"it names a step that is not there: {name}", REPEAT)


def _step_checks(folder: Path) -> Iterator[Callable[[], object]]:
    try:
        step: Rows[object] = Rows(folder)
    except FeldsparError:
        yield lambda: Rows(folder)
        return
    yield lambda: _exhaust(step)
    for name in sorted(step.done.files.keys() - {ROWS}):
        yield lambda name=name: step.file(name)  # type: ignore[misc]
    if step.done.record == "Checkpoint":
        yield lambda: _check_checkpoints(step)
    if step.done.record == "Phase":
        yield lambda: _check_phases(step)


def _exhaust(rows: Iterable[object]) -> None:
    for _ in rows:
        pass


def _check_checkpoints(step: Rows[object]) -> None:
    # Loads torch.
    from feldspar.student.model import digest_checkpoint

    for checkpoint in step:
        assert isinstance(checkpoint, Checkpoint)
        path = Path(checkpoint.path)
        if not path.is_dir():
            raise damaged(path, "it is gone")
        if digest_checkpoint(path) != checkpoint.digest:
            raise damaged(path, "the checkpoint's content was changed")


def _check_phases(step: Rows[object]) -> None:
    for phase in step:
        assert isinstance(phase, Phase)
        for source in (*phase.sources, *phase.held_out):
            path = Path(source.path)
            num_rows = sum(1 for _ in read_rows(path, Conversation))
            if num_rows != source.num_samples:
                raise damaged(path, f"it has {num_rows} rows, not {source.num_samples}")


def _check_journal(run_path: Path) -> None:
    path = Path(read_recipe_of(run_path).journal)
    cure = "`sqlite3 FILE .recover` saves what can be saved; what is lost is asked for again"
    if not path.is_file() and not any((run_path / "steps" / name).is_dir() for name in _ASKING):
        return
    if not path.is_file():
        raise damaged(path, "the journal is gone", "put it back, or its answers are paid again")
    try:
        with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as connection:
            (found,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
            connection.execute("SELECT COUNT(key) FROM answers").fetchone()
    except sqlite3.Error as error:
        raise damaged(path, str(error), cure) from error
    if found != "ok":
        raise damaged(path, str(found).splitlines()[-1], cure)
