"""Recipes that come with Feldspar: copies to start from, and those that one command runs."""

import json
import os
from pathlib import Path

import pytest
from tiny_run import ROOT, from_a_shell

from feldspar.cli import quickstart
from feldspar.cli.shipped import copy_recipe, shipped_folder, shipped_names
from feldspar.config import read_recipe
from feldspar.errors import RecipeError

SMALL = (
    *("world.num_old=12", "world.num_new=10", "world.training=0.002", "prefer=none"),
    *("generate.samples_per_leaf=6", "generate.calls_per_chunk=1", "generate.exam_items=4"),
    *("generate.pairs_per_call=2", "train.batch_samples=32", "train.warmup_steps=1"),
    *("evaluate.max_new_tokens=8", "evaluate.num_resamples=50", 'student.device="cpu"'),
)


@pytest.mark.parametrize("name", shipped_names())
def test_a_copy_of_a_recipe_says_what_the_recipe_says(name: str, tmp_path: Path) -> None:
    copied = copy_recipe(name, tmp_path)
    ours = read_recipe(tmp_path / f"{name}.toml")
    assert ours == read_recipe(shipped_folder() / f"{name}.toml")
    assert all(path.is_file() for path in copied.written)
    assert not copied.kept


def test_what_a_recipe_extends_and_reads_comes_with_it(tmp_path: Path) -> None:
    written = copy_recipe("merlinite-7b-pt", tmp_path).written
    assert [p.name for p in written] == ["merlinite-7b-pt.toml", "merlinite-7b.toml"]
    text = written[0].read_text(encoding="utf-8")
    assert "feldspar plan merlinite-7b-pt.toml" in text
    assert "recipes/" not in text
    copy_recipe("demo", tmp_path)
    theirs = {p.relative_to(ROOT / "recipes") for p in (ROOT / "recipes/demo").rglob("*")}
    ours = {p.relative_to(tmp_path) for p in (tmp_path / "demo").rglob("*")}
    assert ours == theirs


def test_init_writes_a_recipe_and_overwrites_none(tmp_path: Path) -> None:
    done = from_a_shell("init", "--recipe", "merlinite-7b-pt", "--json", cwd=tmp_path)
    files = ["merlinite-7b-pt.toml", "merlinite-7b.toml"]
    assert json.loads(done.stdout) == {"files": files}
    assert sorted(os.listdir(tmp_path)) == files
    again = from_a_shell("init", "--recipe", "merlinite-7b", cwd=tmp_path)
    assert again.returncode == 2
    assert again.stderr == "feldspar: merlinite-7b.toml is there already; name another folder\n"


def test_an_unknown_recipe_is_answered_with_those_there_are(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"no such recipe; there are: across, coverage, "):
        copy_recipe("merlinite", tmp_path)
    with pytest.raises(RecipeError, match="no such recipe"):
        copy_recipe("../pyproject", tmp_path)
    assert not list(tmp_path.iterdir())


def test_what_was_changed_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    quickstart._written("demo", as_json=True)
    island = Path("demo/taxonomy/knowledge/places/orvelin/documents/island.md")
    island.write_text("Orvelin has nine hills.\n", encoding="utf-8")
    Path("demo/taxonomy/knowledge/people/orvelin/qna.yaml").unlink()
    copied = copy_recipe("demo", Path(), keeps_files=True)
    assert [str(p) for p in copied.written] == ["demo/taxonomy/knowledge/people/orvelin/qna.yaml"]
    assert island.read_text(encoding="utf-8") == "Orvelin has nine hills.\n"


@pytest.mark.slow
def test_the_quickstart_runs_in_an_empty_folder_and_goes_on(tmp_path: Path) -> None:
    settings = [word for setting in SMALL for word in ("--set", setting)]
    done = from_a_shell("quickstart", *settings, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "quickstart.toml: written" in done.stdout
    assert "Right answers" in done.stdout
    assert "report: runs/quickstart/report.html" in done.stdout
    assert sorted(os.listdir(tmp_path)) == [".feldspar", "quickstart.toml", "runs"]
    again = from_a_shell("quickstart", "--json", *settings, cwd=tmp_path)
    told = json.loads(again.stdout)
    assert told["run"] == "runs/quickstart"
    assert told["scores"]


@pytest.mark.parametrize(
    ("shell", "typed", "found"),
    [
        ("bash", "feldspar quick", ["quickstart"]),
        ("zsh", "feldspar taxonomy ch", ["check"]),
        ("fish", "feldspar taxonomy check --js", ["--json"]),
    ],
)
def test_a_shell_completes_commands(
    shell: str, typed: str, found: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("_FELDSPAR_COMPLETE", f"complete_{shell}")
    monkeypatch.setenv("_TYPER_COMPLETE_ARGS", typed)
    monkeypatch.setenv("_TYPER_COMPLETE_FISH_ACTION", "get-args")
    monkeypatch.setenv("COMP_WORDS", typed)
    monkeypatch.setenv("COMP_CWORD", str(len(typed.split()) - 1))
    done = from_a_shell(cwd=tmp_path)
    assert all(name in done.stdout for name in found), done.stderr
