"""`feldspar journal forget`: verdicts that were the server's fault are asked for again."""

import asyncio
from pathlib import Path

import pytest
from tiny_run import from_a_shell, write_recipe

from feldspar.teacher import Journal
from feldspar.teacher.journal import Stored

RECIPE = """
journal = "j.sqlite"
[taxonomy]
path = "taxonomy"
[student]
base = "model"
"""


@pytest.mark.slow
def test_refusals_are_forgotten_and_answers_stay(tmp_path: Path) -> None:
    write_recipe(tmp_path, RECIPE)
    with Journal(tmp_path / "j.sqlite") as journal:
        for key, reason in ((b"a", "stop"), (b"b", "refused")):
            stored = Stored("422 no seed", reason, 0, 0)
            asyncio.run(journal.put(key, stored, model="m", stage="s"))
    none = from_a_shell("journal", "forget", "recipe.toml", cwd=tmp_path)
    assert none.returncode == 2
    assert "--refusals" in none.stderr
    done = from_a_shell("journal", "forget", "recipe.toml", "--refusals", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert "1 refusals forgotten" in done.stdout
    with Journal(tmp_path / "j.sqlite") as journal:
        assert [entry.key for entry in journal.answers()] == [b"a".hex()]
