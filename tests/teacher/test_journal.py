from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from feldspar.errors import DiskError
from feldspar.teacher import Journal
from feldspar.teacher import journal as module
from feldspar.teacher.journal import Stored, network_file_system

ANSWER = Stored("yes", "stop", 3, 1)


def put(journal: Journal, key: bytes, stored: Stored = ANSWER) -> Stored:
    return asyncio.run(journal.put(key, stored, model="m@1", stage="judge-answer"))


def test_an_answer_is_found_again_in_another_process_life(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "journal.sqlite"
    with Journal(path) as journal:
        assert journal.get(b"k") is None
        put(journal, b"k")
        assert journal.get(b"k") == ANSWER
    with Journal(path) as journal:
        assert journal.get(b"k") == ANSWER
        (stats,) = journal.stats()
        assert (stats.model, stats.num_answers, stats.completion_tokens) == ("m@1", 1, 1)


def test_of_two_writers_the_first_is_believed_by_both(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as one, Journal(path) as other:
        put(one, b"k", Stored("first", "stop", 1, 1))
        assert put(other, b"k", Stored("second", "stop", 1, 1)).text == "first"
        assert other.get(b"k") == one.get(b"k")


@pytest.mark.slow
def test_many_make_one_journal_at_once(tmp_path: Path) -> None:
    together = threading.Barrier(8)

    def make(path: Path) -> None:
        together.wait()
        Journal(path).close()

    with ThreadPoolExecutor(8) as pool:
        for number in range(60):
            assert list(pool.map(make, [tmp_path / f"{number}.sqlite"] * 8)) == [None] * 8


def test_many_answers_share_a_commit(tmp_path: Path) -> None:
    async def put_many(journal: Journal) -> None:
        puts = (journal.put(b"%d" % i, ANSWER, model="m", stage="s") for i in range(500))
        await asyncio.gather(*puts)

    with Journal(tmp_path / "j") as journal:
        asyncio.run(put_many(journal))
        assert journal.stats()[0].num_answers == 500


FILL_DISK = """
import asyncio, resource, sys
from pathlib import Path
from feldspar.errors import DiskError
from feldspar.teacher import Journal
from feldspar.teacher import journal as module
from feldspar.teacher.journal import Stored
journal = Journal(Path(sys.argv[1]))
resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, 400_000))
num_kept = 0
try:
    for i in range(1000):
        asyncio.run(journal.put(b"%d" % i, Stored("x" * 9000, "stop", 1, 1), model="m", stage="s"))
        num_kept += 1
except DiskError as error:
    print(num_kept, error)
"""


@pytest.mark.slow
def test_a_full_disk_stops_with_the_cure_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    done = subprocess.run(
        [sys.executable, "-c", FILL_DISK, str(path)], capture_output=True, text=True, check=True
    )
    num_kept, _, message = done.stdout.partition(" ")
    assert int(num_kept) > 5
    assert "make room" in message
    with Journal(path) as journal:
        assert all(journal.get(b"%d" % i) is not None for i in range(int(num_kept)))
        put(journal, b"more")


def test_a_file_that_is_no_journal_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    path.write_text("notes of a person, not a database\n" * 100)
    with pytest.raises(DiskError, match="move that file away"):
        Journal(path)


def test_a_network_file_system_is_recognised(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(
        "/dev/a / ext4 rw 0 0\nserver:/x /home nfs4 rw 0 0\n/dev/b /home/me ext4 rw\n"
    )
    assert network_file_system(Path("/home/you/j"), mounts) == "nfs4"
    assert network_file_system(Path("/home/me/j"), mounts) is None
    assert network_file_system(Path("/tmp/j"), mounts) is None
    assert network_file_system(Path("/tmp/j"), tmp_path / "no such file") is None


def test_answers_are_listed_and_those_of_a_model_forgotten(tmp_path: Path) -> None:
    text = Stored("x" * 5000, "stop", 1, 1)
    with Journal(tmp_path / "j") as journal:
        for model in ("old", "new"):
            for number in range(50):
                key = f"{model} {number}".encode()
                asyncio.run(journal.put(key, text, model=model, stage="s"))
        assert len(list(journal.answers())) == 100
        assert {entry.model for entry in journal.answers("old")} == {"old"}
        first = next(journal.answers("new"))
        assert journal.get(bytes.fromhex(first.key)) == text
        before = journal.size_bytes
        assert journal.remove(["old"]) == 50
        assert journal.size_bytes < 0.7 * before
        assert [row.model for row in journal.stats()] == ["new"]
        put(journal, b"more")


def test_what_no_file_can_hold_is_made_sound_and_the_rest_of_its_batch_is_kept(
    tmp_path: Path,
) -> None:
    odd = [
        Stored("half \ud83d", "stop", 3, 1),
        Stored("much", "stop", 10**30, -(10**30)),
        Stored("none\x00within", "st\udc00p", 1, 1),
    ]

    async def put_all(journal: Journal) -> list[Stored]:
        every = [ANSWER, *odd, ANSWER]
        return await asyncio.gather(
            *(
                journal.put(bytes([n]), stored, model="m\ud83d", stage="s")
                for n, stored in enumerate(every)
            )
        )

    with Journal(tmp_path / "j") as journal:
        first, half, much, none, last = asyncio.run(put_all(journal))
        assert first == last == ANSWER
        assert half.text == "half \ufffd"
        assert (much.prompt_tokens, much.completion_tokens) == (2**53, 0)
        assert none == ("none\x00within", "st\ufffdp", 1, 1)
        assert [journal.get(bytes([n])) for n in range(5)] == [first, half, much, none, last]


def test_nothing_more_is_asked_once_a_commit_has_failed(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        put(journal, b"k")
        journal.check()
        with sqlite3.connect(tmp_path / "j") as other:
            other.execute("DROP TABLE answers")
        other.close()
        with pytest.raises(DiskError, match="1 answers could not be kept"):
            put(journal, b"l")
        with pytest.raises(DiskError):
            journal.check()


def test_no_call_is_sent_while_too_many_answers_wait_for_their_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_WAITING", 3)

    async def main(journal: Journal, other: sqlite3.Connection) -> None:
        def later(key: int) -> asyncio.Future[Stored]:
            return asyncio.ensure_future(journal.put(bytes([key]), ANSWER, model="m", stage="s"))

        other.execute("BEGIN IMMEDIATE")
        puts = [later(0)]
        await asyncio.sleep(0.1)  # the writer has it, and waits for the other connection
        puts += [later(key) for key in (1, 2)]
        await asyncio.sleep(0)
        await asyncio.wait_for(journal.room(), 1)
        puts.append(later(3))
        await asyncio.sleep(0)
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(journal.room(), 0.05)
        other.execute("COMMIT")
        await asyncio.gather(journal.room(), *puts)

    with Journal(tmp_path / "j") as journal:
        other = sqlite3.connect(tmp_path / "j", isolation_level=None)
        asyncio.run(main(journal, other))
        other.close()
        assert len(list(journal.answers())) == 4


def test_refusals_can_be_forgotten(tmp_path: Path) -> None:
    with Journal(tmp_path / "j") as journal:
        put(journal, b"k")
        put(journal, b"l", Stored("422 no seed", "refused", 0, 0))
        assert journal.remove_refusals() == 1
        assert journal.get(b"l") is None
        assert journal.get(b"k") == ANSWER


@pytest.mark.slow
def test_a_damaged_journal_says_that_it_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "journal.sqlite"
    with Journal(path) as journal:
        for number in range(300):
            put(journal, b"%d" % number)
    content = bytearray(path.read_bytes())
    content[4096:] = b"\xff" * (len(content) - 4096)
    path.write_bytes(content)
    for read in (Journal.stats, lambda j: list(j.answers()), lambda j: j.get(b"7")):
        with pytest.raises(DiskError, match="it is damaged"), Journal(path) as journal:
            read(journal)
