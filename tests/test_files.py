from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from pathlib import Path

import pytest

from feldspar.files import (
    files_below,
    first_folder,
    is_utf8,
    whole_file,
    whole_folder,
    write_bytes_whole,
    write_json,
    write_text_whole,
    write_texts_together,
)
from feldspar.stored import mark_files

DIES = """
import os, signal, sys
from pathlib import Path
from feldspar.files import whole_file, whole_folder
place = Path(sys.argv[1])
with whole_folder(place / "folder") as folder, whole_file(place / "file") as file:
    (folder / "half").write_text("half")
    file.write_text("half")
    os.kill(os.getpid(), signal.SIGKILL)
"""


class Interrupted(Exception):
    pass


def test_what_is_written_takes_the_place_of_what_was_there(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_text_whole(path, "old\r\nline\n")
    assert path.read_bytes() == b"old\r\nline\n"
    write_bytes_whole(path, b"new")
    assert path.read_bytes() == b"new"
    write_json(tmp_path / "deep" / "er.json", {"a": "\u00e9"})
    assert (tmp_path / "deep" / "er.json").read_text("utf-8") == '{\n "a": "\u00e9"\n}\n'
    for text in ("old", "new"):
        with whole_folder(tmp_path / "folder") as folder:
            (folder / text).mkdir()
            (folder / text / "file").write_text(text)
    assert [p.name for p in (tmp_path / "folder").iterdir()] == ["new"]
    assert not list(tmp_path.rglob("*.part*"))


def fail_half_way(write: Callable[[Path], AbstractContextManager[Path]], path: Path) -> None:
    with write(path) as beside:
        (beside / "half" if beside.is_dir() else beside).write_text("half")
        raise Interrupted


def test_what_fails_leaves_nothing_behind(tmp_path: Path) -> None:
    write_text_whole(tmp_path / "file", "old")
    for write in (whole_file, whole_folder, first_folder):
        with pytest.raises(Interrupted):
            fail_half_way(write, tmp_path / ("file" if write is whole_file else "folder"))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]
    assert (tmp_path / "file").read_text() == "old"


def test_a_kill_leaves_the_old_and_what_it_left_is_no_hindrance(tmp_path: Path) -> None:
    write_text_whole(tmp_path / "file", "old")
    died = subprocess.run([sys.executable, "-P", "-c", DIES, str(tmp_path)], check=False)
    assert died.returncode == -signal.SIGKILL
    assert (tmp_path / "file").read_text() == "old"
    assert not (tmp_path / "folder").exists()
    write_text_whole(tmp_path / "file", "new")
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "whole").write_text("whole")
    assert [path.name for path in (tmp_path / "folder").iterdir()] == ["whole"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_link_to_a_folder_leads_to_the_new_one(tmp_path: Path) -> None:
    (tmp_path / "disk" / "old").mkdir(parents=True)
    (tmp_path / "folder").symlink_to(tmp_path / "disk")
    with whole_folder(tmp_path / "folder") as folder:
        (folder / "new").write_text("new")
    assert (tmp_path / "folder").is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["new"]


def test_what_a_killed_process_left_is_no_part_of_a_result(tmp_path: Path) -> None:
    for name in ("rows", "rows.part", "rows.part-1a2b3c4d", "model.part/weights", "a.particle"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(name)
    assert list(mark_files(tmp_path)) == ["a.particle", "rows"]


def test_several_writers_of_the_same_do_not_meet(tmp_path: Path) -> None:
    content = json.dumps(list(range(20_000)))

    def write(number: int) -> None:
        with first_folder(tmp_path / "folder") as folder:
            (folder / "file").write_text(content)
        write_bytes_whole(tmp_path / "file", content.encode(), is_shared=True)

    with ThreadPoolExecutor(8) as threads:
        list(threads.map(write, range(24)))
    assert (tmp_path / "folder" / "file").read_text() == content
    assert (tmp_path / "file").read_text() == content
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "folder"]


def test_a_pipe_is_written_to_as_it_is(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    with ThreadPoolExecutor(1) as threads:
        read = threads.submit(pipe.read_text)
        write_text_whole(pipe, "lines")
        assert read.result(timeout=10) == "lines"
    assert pipe.is_fifo()


def test_files_that_belong_together_are_all_there_or_none(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("x")
    with pytest.raises(FileExistsError):
        write_texts_together({tmp_path / "a" / "one": "1", tmp_path / "taken" / "two": "2"})
    assert not (tmp_path / "a" / "one").exists()
    write_texts_together({tmp_path / "a" / "one": "1", tmp_path / "b" / "two": "2"})
    assert [path.read_text() for path in files_below(tmp_path)] == ["1", "2", "x"]


def test_a_folder_that_cannot_be_listed_is_not_an_empty_one(tmp_path: Path) -> None:
    assert files_below(tmp_path / "nothing") == []
    (tmp_path / "file").touch()
    with pytest.raises(NotADirectoryError):
        files_below(tmp_path / "file")


def test_names_that_are_no_text_are_told_apart() -> None:
    assert is_utf8(Path("ä"))
    assert not is_utf8(Path(os.fsdecode(b"a\xff")))
