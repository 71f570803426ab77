"""The journal: every answer of a teacher that was paid for, on disk before anyone sees it.

SQLite in WAL mode. The loop's thread reads; one writer thread commits answers in small batches. An
answer is handed out only after its commit, so that a killed process never loses one that mattered.
Two processes may share a journal: for one key the first commit wins, and both get that answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import queue
import sqlite3
import threading
import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from types import TracebackType
from typing import NamedTuple

from feldspar.endpoint.calls import sound_text
from feldspar.errors import DiskError

BATCH_SECONDS = 0.02
"""How long the writer gathers answers before it commits them."""
MOST_WAITING = 256
"""Answers that may wait for their commit: beyond them no call is sent, however slow the disk, so
that a kill loses a number of answers and not a time's worth."""
BUSY_SECONDS = 60.0
"""Longest wait for another process that is committing."""
NETWORK_FILE_SYSTEMS = frozenset(
    {"nfs", "nfs4", "cifs", "smb3", "smbfs", "fuse.sshfs", "lustre", "beegfs", "ceph", "afs"}
)

_MOST_TOKENS = 2**53
"""SQLite's integers end at 2**63, and sums of counts must fit too."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS answers (
  key BLOB PRIMARY KEY,
  model TEXT NOT NULL,
  stage TEXT NOT NULL,
  text TEXT NOT NULL,
  finish_reason TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL
) WITHOUT ROWID
"""
_FIND = "SELECT text, finish_reason, prompt_tokens, completion_tokens FROM answers WHERE key = ?"
_ALL = (
    "SELECT key, model, stage, text, finish_reason, prompt_tokens, completion_tokens FROM answers"
)
_STATS = """
SELECT model, stage, COUNT(*), SUM(prompt_tokens), SUM(completion_tokens)
FROM answers GROUP BY model, stage ORDER BY model, stage
"""


class Stored(NamedTuple):
    """An answer as it came; `finish_reason` is `refused` where the text is the reason for that."""

    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


def sound(stored: Stored) -> Stored:
    """The same as a file can hold it: whatever a server sent must not end the writer."""
    return Stored(
        sound_text(stored.text),
        sound_text(stored.finish_reason),
        min(max(stored.prompt_tokens, 0), _MOST_TOKENS),
        min(max(stored.completion_tokens, 0), _MOST_TOKENS),
    )


class StageStats(NamedTuple):
    """What the journal holds of one model (with revision) and the stage that asked first."""

    model: str
    stage: str
    num_answers: int
    prompt_tokens: int
    completion_tokens: int


class Entry(NamedTuple):
    """An answer with its key in hexadecimal, for export."""

    key: str
    model: str
    stage: str
    text: str
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int


class _Pending(NamedTuple):
    key: bytes
    model: str
    stage: str
    stored: Stored
    loop: asyncio.AbstractEventLoop
    done: asyncio.Future[Stored]


class Journal:
    """Answers by content key, at `path`. Close it, or use it in a `with`.

    Raises DiskError where the file cannot be made, read, or trusted.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        kind = network_file_system(path)
        if kind is not None:
            raise DiskError(
                f"{path}: a journal on a network file system ({kind}) can be corrupted; set "
                "`journal` in the recipe to a path on a local disk"
            )
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._reader = _connect(path)
        except (OSError, sqlite3.Error) as error:
            raise _disk_error(path, error) from error
        self._failure: DiskError | None = None
        """Of the first commit that failed: nothing more is to be paid for."""
        self._queue: queue.SimpleQueue[_Pending | None] = queue.SimpleQueue()
        self._writer = threading.Thread(target=self._write, name="journal", daemon=True)
        self._writer.start()

    def __enter__(self) -> Journal:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Commit what is waiting and let go of the file."""
        if self._writer.is_alive():
            self._queue.put(None)
            self._writer.join()
        self._reader.close()

    def get(self, key: bytes) -> Stored | None:
        """The answer committed under a key by any process, or None. Raises DiskError."""
        try:
            row = self._reader.execute(_FIND, (key,)).fetchone()
        except sqlite3.Error as error:
            raise _disk_error(self.path, error) from error
        return None if row is None else Stored(*row)

    def check(self) -> None:
        """Raises DiskError once a commit has failed: what is asked from then on would be lost."""
        if self._failure is not None:
            raise self._failure

    async def room(self) -> None:
        """Wait while too many answers wait for their commit. Raises DiskError like `check`."""
        while self._queue.qsize() >= MOST_WAITING:
            self.check()
            await asyncio.sleep(BATCH_SECONDS)
        self.check()

    async def put(self, key: bytes, stored: Stored, *, model: str, stage: str) -> Stored:
        """Commit an answer. Gives what the journal holds then: an earlier answer, if there is one.

        Raises DiskError when it cannot be written; what was committed before stays.
        """
        loop = asyncio.get_running_loop()
        done: asyncio.Future[Stored] = loop.create_future()
        self._queue.put(_Pending(key, sound_text(model), stage, sound(stored), loop, done))
        return await done

    @property
    def size_bytes(self) -> int:
        """On disk, what is not yet worked into the file included."""
        log = self.path.with_name(self.path.name + "-wal")
        return sum(path.stat().st_size for path in (self.path, log) if path.exists())

    def answers(self, model: str = "") -> Iterator[Entry]:
        """Every answer in order of key, of one model (with revision) or of all.

        Raises DiskError.
        """
        query = _ALL + (" WHERE model = ?" if model else "") + " ORDER BY key"
        try:
            for row in self._reader.execute(query, (model,) if model else ()):
                yield Entry(row[0].hex(), *row[1:])
        except sqlite3.Error as error:
            raise _disk_error(self.path, error) from error

    def remove(self, models: Collection[str]) -> int:
        """Forget the answers of these models (with revision) and give the room back.

        Gives the number forgotten. Raises DiskError.
        """
        marks = ", ".join("?" * len(models))
        return self._delete(f"model IN ({marks})", tuple(models))

    def remove_refusals(self) -> int:
        """Forget what models refused, so that it is asked again. Gives the number forgotten.

        Raises DiskError.
        """
        return self._delete("finish_reason = ?", ("refused",))

    def _delete(self, where: str, values: tuple[str, ...]) -> int:
        try:
            done = self._reader.execute(f"DELETE FROM answers WHERE {where}", values)
            # The write-ahead log goes into the file first, or the file stays as large as it was.
            self._reader.execute("VACUUM")
            self._reader.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.Error as error:
            raise _disk_error(self.path, error) from error
        return done.rowcount

    def stats(self) -> list[StageStats]:
        """Answers and tokens, per model and stage. Raises DiskError."""
        try:
            return [StageStats(*row) for row in self._reader.execute(_STATS)]
        except sqlite3.Error as error:
            raise _disk_error(self.path, error) from error

    def _write(self) -> None:
        connection: sqlite3.Connection | None = None
        try:
            connection = _connect(self.path)
        except (OSError, sqlite3.Error) as error:
            self._failure = _disk_error(self.path, error)
        is_open = True
        while is_open:
            waiting = [self._queue.get()]
            if waiting[0] is not None:
                time.sleep(BATCH_SECONDS)
            while not self._queue.empty():
                waiting.append(self._queue.get())
            is_open = None not in waiting
            batch = [pending for pending in waiting if pending is not None]
            _settle_all(batch, self._commit(connection, batch))
        if connection is not None:
            connection.close()

    def _commit(
        self, connection: sqlite3.Connection | None, batch: list[_Pending]
    ) -> Sequence[Stored | DiskError]:
        if connection is None:
            assert self._failure is not None
            return [self._failure] * len(batch)
        try:
            return _commit(connection, batch)
        except sqlite3.Error as error:
            self._failure = _disk_error(self.path, error, len(batch))
            return [self._failure] * len(batch)


def network_file_system(path: Path, mounts_path: Path = Path("/proc/mounts")) -> str | None:
    """The kind of network file system a path lies on; None where local or not known."""
    try:
        lines = mounts_path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return None
    place = path.absolute()
    best, found = Path("/"), None
    for line in lines:
        _, mount, kind, *_ = [*line.split(), "", "", ""]
        folder = Path(mount.replace("\\040", " ") or "/")
        if place.is_relative_to(folder) and len(folder.parts) >= len(best.parts):
            best, found = folder, kind
    return found if found in NETWORK_FILE_SYSTEMS else None


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    try:
        _write_ahead(connection)
        connection.execute("PRAGMA synchronous=FULL")
        connection.execute(_SCHEMA)
    except sqlite3.Error:
        connection.close()
        raise
    return connection


def _write_ahead(connection: sqlite3.Connection) -> None:
    """Let processes read while one writes. To change to that SQLite needs the file alone, and does
    not wait for another that changes it at the same time."""
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode=WAL")
        except sqlite3.OperationalError as error:
            is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not is_busy or time.monotonic() > deadline:
                raise
            time.sleep(0.01)
        else:
            return


def _commit(connection: sqlite3.Connection, batch: list[_Pending]) -> list[Stored]:
    """What the journal holds for each after the commit."""
    results = []
    connection.execute("BEGIN IMMEDIATE")
    try:
        for pending in batch:
            row = (pending.key, pending.model, pending.stage, *pending.stored)
            cursor = connection.execute(
                "INSERT OR IGNORE INTO answers VALUES (?, ?, ?, ?, ?, ?, ?)", row
            )
            if cursor.rowcount:
                results.append(pending.stored)
            else:
                results.append(Stored(*connection.execute(_FIND, (pending.key,)).fetchone()))
        connection.execute("COMMIT")
    except sqlite3.Error:
        # SQLite may have rolled back by itself, as it does on a full disk.
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise
    return results


def _settle_all(batch: Sequence[_Pending], results: Sequence[Stored | DiskError]) -> None:
    """One message to each loop that waits: waking it for each answer would cost more than they."""
    by_loop: dict[asyncio.AbstractEventLoop, list[tuple[_Pending, Stored | DiskError]]] = {}
    for pending, result in zip(batch, results, strict=True):
        by_loop.setdefault(pending.loop, []).append((pending, result))
    for loop, settled in by_loop.items():
        # A loop that was closed meanwhile has nobody left to tell.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(_settle, settled)


def _settle(settled: Sequence[tuple[_Pending, Stored | DiskError]]) -> None:
    for pending, result in settled:
        if pending.done.done():
            continue
        if isinstance(result, DiskError):
            pending.done.set_exception(result)
        else:
            pending.done.set_result(result)


def _disk_error(path: Path, error: Exception, num_lost: int = 0) -> DiskError:
    if isinstance(error, sqlite3.OperationalError) and "locked" in str(error):
        cure = "another process holds it; let that one finish, then run again"
    elif isinstance(error, sqlite3.DatabaseError) and "not a database" in str(error):
        cure = "move that file away, or name another `journal` in the recipe"
    elif isinstance(error, sqlite3.DatabaseError) and "malformed" in str(error):
        cure = "it is damaged: `sqlite3 FILE .recover` saves what can be saved, into a new one"
    else:
        cure = "make room and see that it can be written, then run again; what it holds is kept"
    lost = f"; {num_lost} answers could not be kept" if num_lost else ""
    return DiskError(
        f"{path}: the journal of teacher answers cannot be written ({error}){lost}; {cure}"
    )
