"""A step is done once per key and resumed after a death; its key follows content, not place."""

import json
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from feldspar.config import Recipe, TaxonomyConfig
from feldspar.errors import RecipeError, RunError
from feldspar.records import Checkpoint, Message, Phase, Prompt, Source
from feldspar.runs import (
    Joined,
    Run,
    claim_run,
    find_run,
    open_step,
    read_recipe_of,
    read_rows,
    write_rows,
)
from feldspar.steps import Step, Workspace
from feldspar.verify import verify_run

ROOT = Path(__file__).parents[1]
RECIPE = Recipe.model_validate({"taxonomy": {"path": "t"}, "student": {"base": "b"}})


def prompts(texts: list[str]) -> Iterator[Prompt]:
    for text in texts:
        yield Prompt(id=text, source="s", messages=(Message(role="user", content=text),))


PROMPTS = Step.pure("prompts", prompts, version=1)


def open_run(path: Path) -> Run:
    return Run(path, RECIPE)


def test_rows_come_back_as_they_were_written(tmp_path: Path) -> None:
    rows = list(prompts(["a", "line\u2028separator\nand newline", "ü"]))
    assert write_rows(tmp_path / "rows.jsonl.zst", rows) == (3, "Prompt")
    assert list(read_rows(tmp_path / "rows.jsonl.zst", Prompt)) == rows


def test_a_step_is_computed_once_per_input(tmp_path: Path) -> None:
    calls: list[list[str]] = []

    def counted(texts: list[str]) -> Iterator[Prompt]:
        calls.append(texts)
        yield from prompts(texts)

    with open_run(tmp_path / "run") as run:
        first = run.step(Step.pure("prompts", counted, version=1))(["a", "b"])
        again = run.step(Step.pure("prompts", counted, version=1))(["a", "b"])
        other = run.step(Step.pure("prompts", counted, version=1))(["c"])
    assert calls == [["a", "b"], ["c"]]
    assert first.key == again.key != other.key
    assert [p.id for p in again] == ["a", "b"]
    assert len(again) == 2
    assert other.last().id == "c"


def test_an_old_result_is_found_again(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        run.step(PROMPTS)(["a"])
        run.step(PROMPTS)(["b"])
        run.step(PROMPTS)(["a"])
    rows = open_step(tmp_path / "run", "prompts")
    assert rows is not None
    assert [p.id for p in rows] == ["a"]


def test_a_run_that_was_moved_knows_where_its_files_are(tmp_path: Path) -> None:
    def train(workspace: Workspace) -> Iterator[Checkpoint]:
        yield Checkpoint(path="base", digest="0")
        yield Checkpoint(path=str(workspace.folder / "model"), digest="1")

    with open_run(tmp_path / "run") as run:
        run.step(Step("trained", train, version=1))()
    (tmp_path / "run").rename(tmp_path / "moved")
    rows = open_step(tmp_path / "moved", "trained")
    assert rows is not None
    assert [c.path for c in rows] == ["base", str(rows.folder / "model")]
    assert rows.folder.is_relative_to(tmp_path / "moved")


def test_a_moved_run_finds_what_came_along_and_what_stayed(tmp_path: Path) -> None:
    project, stayed = tmp_path / "project", tmp_path / "stayed"
    for folder in (project / "taxonomy", stayed):
        folder.mkdir(parents=True)
    recipe = Recipe(
        taxonomy={"path": str(project / "taxonomy"), "mirror": str(stayed)},
        student={"base": "owner/model"},
        journal=str(project / "journal.sqlite"),
    )
    with Run(project / "runs" / "run", recipe):
        pass
    assert read_recipe_of(project / "runs" / "run") == recipe
    moved = project.rename(tmp_path / "deeper")
    found = read_recipe_of(moved / "runs" / "run")
    assert found.taxonomy.path == str(moved / "taxonomy")
    assert (found.taxonomy.mirror, found.student.base) == (str(stayed), "owner/model")
    # Nothing is there yet: as it was.
    assert found.journal == str(project / "journal.sqlite")


def test_a_step_that_died_finds_its_folder_again(tmp_path: Path) -> None:
    def dies_once(workspace: Workspace, texts: list[str]) -> Iterator[Prompt]:
        if not (workspace.folder / "half").exists():
            (workspace.folder / "half").write_text("done")
            raise KeyboardInterrupt
        yield from prompts(texts)

    step = Step("prompts", dies_once, version=1)
    with open_run(tmp_path / "run") as run:
        with pytest.raises(KeyboardInterrupt):
            run.step(step)(["a"])
        assert open_step(tmp_path / "run", "prompts") is None
        assert len(run.step(step)(["a"])) == 1


def test_a_step_key_follows_the_content_of_what_it_reads(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    keys = []
    with open_run(tmp_path / "run") as run:
        for text in ("one", "two!", "one"):
            document.write_text(text)
            keys.append(run.step(PROMPTS, reads={"document": document})(["a"]).key)
    assert keys[0] == keys[2] != keys[1]


def test_a_step_key_does_not_follow_places(tmp_path: Path) -> None:
    def ignores(config: TaxonomyConfig) -> Iterator[Prompt]:
        return prompts(["a"])

    step = Step.pure("prompts", ignores, version=1)
    with open_run(tmp_path / "run") as run:
        here = run.step(step)(TaxonomyConfig(path="/one/place", mirror="/m"))
        there = run.step(step)(TaxonomyConfig(path="/other/place"))
        smaller = run.step(step)(TaxonomyConfig(path="/one/place", chunk_tokens=9))
    assert here.key == there.key != smaller.key


def test_what_is_handed_in_counts_by_its_key(tmp_path: Path) -> None:
    class Teacher:
        def __init__(self, key: str) -> None:
            self.key = key

    def taught(*, teacher: Teacher) -> Iterator[Prompt]:
        return prompts([teacher.key])

    step = Step.pure("prompts", taught, version=1)
    with open_run(tmp_path / "run") as run:
        one = run.step(step)(teacher=Teacher("mixtral"))
        two = run.step(step)(teacher=Teacher("other"))
    assert one.key != two.key


def test_joined_rows_keep_their_order(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        joined = Joined(
            run.step(Step.pure("a", prompts, version=1))(["1", "2"]),
            run.step(Step.pure("b", prompts, version=1))(["3"]),
        )
    assert [p.id for p in joined] == ["1", "2", "3"]
    assert len(joined) == 3


def test_two_writers_are_refused(tmp_path: Path) -> None:
    with (
        open_run(tmp_path / "run"),
        pytest.raises(RunError, match="another process"),
        open_run(tmp_path / "run"),
    ):
        pass


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path) -> None:
    with open_run(tmp_path / "demo"):
        pass
    assert find_run("demo", tmp_path) == tmp_path / "demo"
    assert find_run(str(tmp_path / "demo"), Path("nowhere")) == tmp_path / "demo"
    with pytest.raises(RunError, match="there are: demo"):
        find_run("demos", tmp_path)


def test_the_run_directory_says_what_is_current(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        rows = run.step(PROMPTS)(["a"])
    current = json.loads((tmp_path / "run" / "current.json").read_text())
    assert current == {"prompts": rows.key}


def test_a_changed_result_takes_away_what_was_made_of_the_one_before(tmp_path: Path) -> None:
    """Else scores of an earlier checkpoint would stand beside the new one."""
    before, after = Step.pure("after", prompts, version=1), Step.pure("last", prompts, version=1)
    path = tmp_path / "run"
    with open_run(path) as run:
        run.step(PROMPTS)(["a"])
        made = run.step(before)(["b"])
        run.step(after)(["c"])
    with open_run(path) as run:
        run.step(PROMPTS)(["a"])
        assert open_step(path, "after") is not None
        run.step(PROMPTS)(["changed"])
        assert open_step(path, "after") is None
        assert open_step(path, "last") is None
        assert run.step(before)(["b"]).key == made.key
        # The recipe wants no "last" any more.
        run.forget_others()
    found = open_step(path, "after")
    assert found is not None
    assert found.key == made.key
    assert open_step(path, "last") is None


def test_a_step_that_the_recipe_lacks_now_is_no_result_of_it(tmp_path: Path) -> None:
    path, more = tmp_path / "run", Step.pure("more", prompts, version=1)
    with open_run(path) as run:
        run.step(PROMPTS)(["a"])
        run.step(more)(["b"])
    with open_run(path) as run:
        run.step(PROMPTS)(["a"])
        assert open_step(path, "more") is not None
        run.forget_others()
    assert open_step(path, "more") is None
    assert not verify_run(path).faults


def test_a_file_that_is_not_there_is_said_with_its_path(tmp_path: Path) -> None:
    with (
        open_run(tmp_path / "run") as run,
        pytest.raises(RecipeError, match=r"general\.jsonl: no such file"),
    ):
        run.step(PROMPTS, reads={"document": tmp_path / "general.jsonl"})(["a"])


def test_a_raised_version_computes_anew(tmp_path: Path) -> None:
    with open_run(tmp_path / "run") as run:
        first = run.step(Step.pure("prompts", prompts, version=1))(["a"])
        mended = run.step(Step.pure("prompts", prompts, version=2))(["a"])
    assert first.key != mended.key


def test_a_default_is_part_of_the_key(tmp_path: Path) -> None:
    def some(texts: list[str], *, limit: int = 2) -> Iterator[Prompt]:
        return prompts(texts[:limit])

    step = Step.pure("prompts", some, version=1)
    with open_run(tmp_path / "run") as run:
        assert run.step(step)(["a"]).key == run.step(step)(texts=["a"], limit=2).key
        assert run.step(step)(["a"]).key != run.step(step)(["a"], limit=1).key


@pytest.mark.parametrize("damage", ["cut", "emptied", "flipped", "row gone", "missing"])
def test_damaged_rows_are_told_and_never_read_as_fewer(tmp_path: Path, damage: str) -> None:
    with open_run(tmp_path / "run") as run:
        rows = run.step(PROMPTS)([f"text {number}" for number in range(200)])
    path = rows.folder / "rows.jsonl.zst"
    packed = bytearray(path.read_bytes())
    if damage == "cut":
        path.write_bytes(packed[: len(packed) // 2])
    elif damage == "emptied":
        path.write_bytes(b"")
    elif damage == "flipped":
        packed[len(packed) // 2] ^= 16
        path.write_bytes(packed)
    elif damage == "row gone":
        write_rows(path, list(prompts(["only"])))
    else:
        path.unlink()
    found = open_step(tmp_path / "run", "prompts")
    assert found is not None
    with pytest.raises(RunError, match=r"rows\.jsonl\.zst.*delete .*prompts.* and run again"):
        list(found)


def test_a_run_of_an_earlier_version_is_read_and_said(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with open_run(tmp_path / "run") as run:
        run.step(PROMPTS)(["a"])
    path = tmp_path / "run" / "recipe.json"
    tree = json.loads(path.read_text())
    del tree["run_format"]
    path.write_text(json.dumps(tree))
    assert read_recipe_of(tmp_path / "run").student.base == "b"
    rows = open_step(tmp_path / "run", "prompts")
    assert rows is not None
    assert len(list(rows)) == 1
    with open_run(tmp_path / "run"):
        pass
    assert "made by an earlier version of Feldspar" in caplog.text
    path.write_text(json.dumps(tree | {"run_format": 99}))
    with pytest.raises(RunError, match="newer version of Feldspar"):
        read_recipe_of(tmp_path / "run")


@pytest.mark.slow
def test_misspelt_missing_and_wrong_inputs_are_found_before_they_run(tmp_path: Path) -> None:
    code = """
from collections.abc import Iterator
from feldspar.records import Prompt
from feldspar.runs import Run
from feldspar.steps import Step, Workspace
from feldspar.verify import verify_run

def some(workspace: Workspace, texts: list[str], *, limit: int = 2) -> Iterator[Prompt]:
    yield from ()

STEP = Step("prompts", some, version=1)

def use(run: Run) -> None:
    run.step(STEP)(["a"], limit=2)
    run.step(STEP)(["a"], limt=2)
    run.step(STEP)()
    run.step(STEP)(["a"], limit="2")
"""
    (tmp_path / "used.py").write_text(code)
    mypy = [sys.executable, "-m", "mypy", "--strict", "--config-file", str(ROOT / "pyproject.toml")]
    done = subprocess.run(
        [*mypy, str(tmp_path / "used.py")], capture_output=True, text=True, check=False, cwd=ROOT
    )
    found = [line.split(": error: ")[1] for line in done.stdout.splitlines() if "error: " in line]
    assert [next(word for word in ("limt", "Too few", "str") if word in f) for f in found] == [
        *("limt", "Too few", "str")
    ], done.stdout


def test_a_run_of_another_project_is_not_written_over(tmp_path):
    one, other, runs = tmp_path / "one", tmp_path / "other", tmp_path / "runs" / "ferry"
    for folder in (one, other):
        folder.mkdir()
    claim_run(runs, one)
    claim_run(runs, one)
    with pytest.raises(RunError, match=r"is the run of the recipe in .*one; give this recipe"):
        claim_run(runs, other)
    copied = tmp_path / "copied" / "ferry"
    shutil.copytree(runs, copied)
    claim_run(copied, other)
    one.rename(tmp_path / "moved")
    claim_run(runs, tmp_path / "moved")
    for damage in ("", "[]", '{"folder": 1}', "\ufeff{"):
        (runs / "project.json").write_text(damage, encoding="utf-8")
        claim_run(runs, other)


def test_rows_of_another_run_are_not_taken_for_a_steps_own(tmp_path: Path) -> None:
    for name in ("one", "other"):
        with open_run(tmp_path / name) as run:
            run.step(PROMPTS)([name])
    rows, others = (open_step(tmp_path / name, "prompts") for name in ("one", "other"))
    assert rows is not None
    assert others is not None
    shutil.copyfile(others.folder / "rows.jsonl.zst", rows.folder / "rows.jsonl.zst")
    with pytest.raises(RunError, match=r"rows\.jsonl\.zst: damaged .*; delete .* and run again"):
        list(rows)


def test_rows_that_are_set_apart_move_with_their_run(tmp_path: Path) -> None:
    def phases(workspace: Workspace) -> Iterator[Phase]:
        source = Source(name="s", path=str(workspace.folder / "s.zst"), digest="d", num_samples=1)
        yield Phase(name="one", sources=(source,), held_out=(source,))

    with open_run(tmp_path / "run") as run:
        run.step(Step("phases", phases, version=1))()
    moved = (tmp_path / "run").rename(tmp_path / "elsewhere")
    [phase] = open_step(moved, "phases") or ()
    assert all(s.path.startswith(str(moved)) for s in (*phase.sources, *phase.held_out))
