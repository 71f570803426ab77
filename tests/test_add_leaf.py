"""One leaf more: taught from the run's result, with its rows replayed and its journal used."""

import json
import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import tiny_run

from feldspar.add_leaf import is_new, learn_leaf, learning_recipe
from feldspar.errors import RunError
from feldspar.flow import run_recipe
from feldspar.progress import SILENT
from feldspar.runs import open_step, read_recipe_of, result_of


def num_answers(journal: Path) -> int:
    with closing(sqlite3.connect(journal)) as store:
        tables = [name for (name,) in store.execute("select name from sqlite_master")]
        counts = [
            store.execute(f"select count(*) from {name}").fetchone()[0]
            for name in tables
            if not name.startswith("sqlite_")
        ]
    return sum(counts)


@pytest.fixture
def run(tiny: Path, tmp_path: Path) -> Path:
    """The tiny run in a copy of its project."""
    shutil.copytree(tiny.parents[1], tmp_path / "project")
    return tmp_path / "project" / "runs" / "tiny"


@pytest.mark.slow
def test_a_run_that_was_moved_without_its_journal_gets_another(run: Path, tmp_path: Path) -> None:
    leaf = Path(read_recipe_of(run).taxonomy.path) / "foundational_skills/arithmetic/addition"
    alone = run.rename(tmp_path / "alone")
    shutil.rmtree(run.parents[1])
    recipe = json.loads((alone / "recipe.json").read_text())
    journal = tmp_path / "gone" / "journal.sqlite"
    (alone / "recipe.json").write_text(json.dumps(recipe | {"journal": str(journal)}))
    learning = learning_recipe(alone, leaf, [], SILENT)
    assert learning.journal == str(tmp_path / ".feldspar" / "journal.sqlite")


@pytest.mark.slow
def test_a_leaf_is_added_with_replay_and_nothing_is_paid_twice(run: Path, tiny: Path) -> None:
    recipe = read_recipe_of(run)
    # The copy's own journal, not the one of the place where it was made.
    assert Path(recipe.journal) == run.parents[1] / ".feldspar" / "journal.sqlite"
    leaf = Path(recipe.taxonomy.path) / "foundational_skills" / "arithmetic" / "addition"
    new = learn_leaf(run, leaf, ["learn.replay_share=0.25", "learn.num_epochs=1"], SILENT)
    assert new == run.with_name("tiny+addition")
    [phase] = open_step(new, "phases") or ()
    own, *replayed, base_replay = phase.sources
    assert own.name == "learn"
    assert sum(source.share for source in replayed) == pytest.approx(0.25)
    assert base_replay.name == "base replay"
    assert {s.leaf for s in open_step(new, "samples") or ()} == {
        "foundational_skills/arithmetic/addition"
    }
    learned = read_recipe_of(new)
    assert learned.student.base == str(result_of(run).path)
    exams = {s.exam for s in open_step(new, "scores") or ()}
    assert {"earlier knowledge", "earlier compositional"} <= exams
    assert any(is_new(exam, learned) for exam in exams)

    journal = Path(recipe.journal)
    num_paid, samples = num_answers(journal), tiny_run.sample_bytes(new)
    shutil.rmtree(new / "steps")
    again = learning_recipe(run, leaf, [], SILENT)
    assert again.learn.replay_share == 0.5
    run_recipe(learned, run.parent, new, SILENT, until="samples")
    assert tiny_run.sample_bytes(new) == samples
    assert num_answers(journal) == num_paid, "the teacher was asked again"


@pytest.mark.slow
def test_a_leaf_learned_in_a_folder_that_is_moved_is_not_learned_again(
    run: Path, tmp_path: Path
) -> None:
    leaf = Path(read_recipe_of(run).taxonomy.path) / "foundational_skills/arithmetic/addition"
    settings = ["learn.num_epochs=1"]
    new = learn_leaf(run, leaf, settings, SILENT)
    before = json.loads((new / "current.json").read_text())
    moved = run.parents[1].rename(tmp_path / "elsewhere") / "runs"
    again = learn_leaf(moved / "tiny", leaf, settings, SILENT)
    assert json.loads((again / "current.json").read_text()) == before
    for step, key in before.items():
        assert [p.name for p in (again / "steps" / step).iterdir()] == [key[:8]], step


@pytest.mark.slow
def test_a_second_leaf_leaves_the_run_before_and_the_users_exams_alone(
    run: Path, tmp_path: Path
) -> None:
    skills = Path(read_recipe_of(run).taxonomy.path) / "foundational_skills/arithmetic"
    quiz = tmp_path / "quiz.jsonl"
    quiz.write_text('{"question": "What is 1 + 1?", "answer": "2"}\n')
    settings = [
        "learn.num_epochs=1",
        f'evaluate.exam=[{{name = "earlier quiz", path = "{quiz}", retention = true}}]',
    ]
    first = learn_leaf(run, skills / "addition", settings, SILENT)
    before = {path.name: path.read_bytes() for path in (first / "exams").iterdir()}
    second = learn_leaf(first, skills / "subtraction", ["learn.num_epochs=1"], SILENT)
    assert {path.name: path.read_bytes() for path in (first / "exams").iterdir()} == before
    assert quiz.read_text().startswith('{"question": "What is 1 + 1?"')
    third = learning_recipe(second, skills / "addition", [], SILENT)
    names = [exam.name for exam in third.evaluate.exam]
    assert {"earlier quiz", "earlier knowledge", "earlier foundational"} <= set(names)
    assert names[-1] == "earlier foundational of tiny+addition+subtraction"
    other = tmp_path / "other" / "foundational_skills" / "addition"
    shutil.copytree(skills / "addition", other)
    with pytest.raises(RunError, match="another folder of that name"):
        learn_leaf(run, other, [], SILENT)
