"""Damage of any kind to any file of a run: one line that names it, never a shorter result."""

import json
import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest
from tiny_run import feldspar

from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.records import Conversation, Message, Phase, Sample, Source
from feldspar.runs import Run, open_step, read_recipe_of, write_rows
from feldspar.steps import Step, Workspace
from feldspar.stored import read_whole_lines
from feldspar.verify import verify_run

NUM = 40


def _samples(workspace: Workspace) -> Iterator[Sample]:
    (workspace.folder / "funnel.json").write_text('{"leaves": []}\n')
    for number in range(NUM):
        yield Sample(
            id=str(number), leaf="k/a", branch="knowledge", question="q", answer=f"a{number}"
        )


def _phases(workspace: Workspace) -> Iterator[Phase]:
    path = workspace.folder / "own.jsonl.zst"
    said = (Message(role="user", content="q"), Message(role="assistant", content="a"))
    write_rows(path, [Conversation(id=f"c{n}", source="own", messages=said) for n in range(NUM)])
    source = Source(name="own", path=str(path), digest="d", num_samples=NUM)
    yield Phase(name="p", sources=(source,))


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("whole")
    journal = folder / "journal.sqlite"
    with closing(sqlite3.connect(journal)) as connection:
        connection.execute("CREATE TABLE answers (key BLOB PRIMARY KEY, text TEXT) WITHOUT ROWID")
        rows = [(bytes([n]), "x" * 500) for n in range(200)]
        connection.executemany("INSERT INTO answers VALUES (?, ?)", rows)
        connection.commit()
    recipe = Recipe.model_validate(
        {"taxonomy": {"path": "t"}, "student": {"base": "b"}, "journal": str(journal)}
    )
    with Run(folder / "run", recipe) as run:
        run.step(Step("samples", _samples, version=1))()
        run.step(Step("phases", _phases, version=1))()
    return folder


@pytest.fixture
def run(whole: Path, tmp_path: Path) -> Path:
    # What SQLite's addresses give a meaning to.
    place = tmp_path / "odd #1?"
    shutil.copytree(whole, place)
    path = place / "run"
    recipe = json.loads((path / "recipe.json").read_text())
    recipe |= {"journal": str(place / "journal.sqlite"), "run_path": str(path)}
    (path / "recipe.json").write_text(json.dumps(recipe))
    return path


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def empty(path: Path) -> None:
    path.write_bytes(b"")


def zeros(path: Path) -> None:
    path.write_bytes(bytes(path.stat().st_size))


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0x10
    path.write_bytes(bytes(content))


FILES = {
    "current.json": "current.json",
    "recipe.json": "recipe.json",
    "done.json": "steps/samples/*/done.json",
    "rows": "steps/samples/*/rows.jsonl.zst",
    "funnel.json": "steps/samples/*/funnel.json",
    "a phase's rows": "steps/phases/*/own.jsonl.zst",
    "journal": "../journal.sqlite",
}


def find(run: Path, name: str) -> Path:
    (path,) = run.glob(FILES[name])
    return path


def test_a_whole_run_has_no_faults(run: Path) -> None:
    checked = verify_run(run)
    assert checked.faults == []
    # recipe.json, current.json, precision.json, progress.json, the journal, two steps, their rows,
    # a file beside each, a phase.
    assert checked.num_checked == 12


@pytest.mark.parametrize("damage", [cut, empty, zeros, Path.unlink])
@pytest.mark.parametrize("name", FILES)
def test_each_damage_to_each_file_is_one_line_that_names_it(
    run: Path, name: str, damage: Callable[[Path], None]
) -> None:
    path = find(run, name)
    damage(path)
    faults = verify_run(run).faults
    assert faults
    assert all("\n" not in fault for fault in faults)
    shown = path.resolve().parent / path.name
    assert any(str(path) in fault or str(shown) in fault for fault in faults), faults
    assert all(" damaged (" in fault and "; " in fault for fault in faults)


@pytest.mark.parametrize("name", ["done.json", "rows", "funnel.json", "a phase's rows"])
def test_one_flipped_bit_is_found(run: Path, name: str) -> None:
    path = find(run, name)
    flip(path)
    assert any(str(path) in fault for fault in verify_run(run).faults)


def test_how_far_it_was_may_be_gone_and_not_be_damaged(run: Path) -> None:
    path = run / "progress.json"
    cut(path)
    (fault,) = verify_run(run).faults
    assert str(path) in fault
    path.unlink()
    assert verify_run(run).faults == []


def test_a_reader_is_told_too_and_never_given_less(run: Path) -> None:
    find(run, "current.json").unlink()
    with pytest.raises(RunError, match=r"current\.json: damaged .*repeat `feldspar run`"):
        open_step(run, "samples")
    assert open_step(run, "scores") is None


def test_a_file_beside_the_rows_is_checked_when_it_is_read(run: Path) -> None:
    samples = open_step(run, "samples")
    assert samples is not None
    assert samples.file("funnel.json").read_text() == '{"leaves": []}\n'
    find(run, "funnel.json").write_text('{"leaves": []}')
    with pytest.raises(RunError, match=r"funnel\.json: damaged \(it has 14 bytes, not 15\)"):
        samples.file("funnel.json")


def test_a_damaged_recipe_is_written_anew_by_the_next_run(run: Path) -> None:
    recipe = read_recipe_of(run)
    empty(find(run, "recipe.json"))
    with pytest.raises(RunError, match=r"recipe\.json: damaged"):
        read_recipe_of(run)
    with Run(run, recipe):
        pass
    assert verify_run(run).faults == []


def test_digests_that_are_damaged_are_found_anew(run: Path, tmp_path: Path) -> None:
    for content in (b"", b"[]", b'{"/x": [1]}', b"\xff", b'{"/x": 3}'):
        (run / "digests.json").write_bytes(content)
        with Run(run, read_recipe_of(run)) as opened:
            rows = opened.step(Step("samples", _samples, version=1), reads={"t": tmp_path})
            assert len(rows()) == NUM


def test_a_torn_last_line_is_left_out_and_any_other_is_told(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    path.write_text('{"a": 1}\n{"a": 2}\n{"a": ')
    assert read_whole_lines(path, dict) == [{"a": 1}, {"a": 2}]
    path.write_text('{"a": 1}\n{"a": \n{"a": 3}\n')
    with pytest.raises(RunError, match=r"lines\.jsonl: damaged"):
        read_whole_lines(path, dict)


@pytest.mark.slow
def test_the_command_checks_a_whole_run_and_names_what_is_damaged(
    tiny: Path, tmp_path: Path
) -> None:
    project = tmp_path / "project"
    shutil.copytree(tiny.parents[1], project)
    done = feldspar("verify", "tiny", "--json", cwd=project)
    assert done.returncode == 0, done.stdout
    assert json.loads(done.stdout)["faults"] == []
    (weights, *_) = sorted(project.glob("runs/tiny/steps/trained/*/*/*/*.safetensors"))
    flip(weights)
    done = feldspar("verify", "tiny", cwd=project)
    assert done.returncode == RunError.exit_code
    first, *_, last = done.stdout.splitlines()
    assert weights.parent.name in first
    assert "damaged" in first
    assert last.endswith(" damaged")
