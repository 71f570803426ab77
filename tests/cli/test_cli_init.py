"""`feldspar init` and what else writes files for people: names as odd as they come."""

from __future__ import annotations

import logging
import os
import shlex
import tomllib
from pathlib import Path

import pytest

from feldspar.cli.init import init
from feldspar.cli.main import _PrintableFormatter
from feldspar.config import read_recipe
from feldspar.errors import RecipeError, RunError, TaxonomyError
from feldspar.runs import claim_run
from feldspar.taxonomy import diff_taxonomy


@pytest.mark.parametrize("base", ["C:\\models\\new", 'a "b"', "a\nb\x7f\x00", "a/b", "ä 😀"])
def test_a_base_of_any_name_is_what_the_recipe_says(tmp_path: Path, base: str) -> None:
    init(tmp_path / "p", base)
    told = tomllib.loads((tmp_path / "p" / "recipe.toml").read_text(encoding="utf-8"))
    assert told["student"]["base"] == base


def test_names_that_are_no_text_are_refused_by_name(tmp_path: Path) -> None:
    odd = tmp_path / os.fsdecode(b"odd\xff")
    with pytest.raises(RecipeError, match="--base"):
        init(tmp_path / "p", os.fsdecode(b"\xff"))
    with pytest.raises(RecipeError, match="name another folder"):
        init(odd)
    odd.mkdir()
    (odd / "recipe.toml").write_text("")
    with pytest.raises(RecipeError, match="not UTF-8; rename"):
        read_recipe(odd / "recipe.toml")
    (tmp_path / "recipe.toml").write_text('name = "r"\n')
    with pytest.raises(RecipeError, match=r"--set .*not UTF-8"):
        read_recipe(tmp_path / "recipe.toml", [os.fsdecode(b"name=\xff")])
    with pytest.raises(RunError, match="keep the run elsewhere with --runs"):
        claim_run(odd / "r", tmp_path)


def test_what_could_not_be_written_whole_can_be_repeated(tmp_path: Path) -> None:
    blocked = tmp_path / "taxonomy" / "compositional_skills"
    blocked.parent.mkdir()
    blocked.touch()
    with pytest.raises(NotADirectoryError):
        init(tmp_path)
    blocked.unlink()
    init(tmp_path)
    assert (tmp_path / "recipe.toml").is_file()


def test_commands_to_be_typed_are_quoted_and_on_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    init(tmp_path / "my project")
    last = capsys.readouterr().out.splitlines()[-1]
    assert shlex.split(last) == ["feldspar", "plan", str(tmp_path / "my project" / "recipe.toml")]
    init(tmp_path / "two\nlines")
    assert len(capsys.readouterr().out.splitlines()) == 9


def test_a_line_end_in_a_name_does_not_end_a_message(tmp_path: Path) -> None:
    record = logging.makeLogRecord({"msg": "cannot read a\nb\x1b[2J", "levelname": "WARNING"})
    assert _PrintableFormatter("%(message)s").format(record) == r"cannot read a\nb\x1b[2J"
    with pytest.raises(TaxonomyError) as told:
        diff_taxonomy(tmp_path, "a\nb")
    assert "\n" not in str(told.value)
