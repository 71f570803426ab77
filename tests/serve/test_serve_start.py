"""A run serves its result, or a checkpoint by the name that its scores have for it."""

from pathlib import Path

import pytest
from by_hand import do_step

from feldspar.config import Recipe
from feldspar.errors import RunError
from feldspar.records import Checkpoint
from feldspar.runs import Run
from feldspar.serve.start import run_to_serve

RECIPE = Recipe.model_validate({"name": "r", "taxonomy": {"path": "t"}, "student": {"base": "b"}})


@pytest.fixture
def run(tmp_path: Path) -> Path:
    made = [Checkpoint(path=f"/{p}", digest=p * 4, phase=p) for p in ("knowledge", "skills")]
    with Run(tmp_path / "r", RECIPE) as run:
        do_step(run, "trained", lambda: made)
        do_step(run, "merged", lambda: [Checkpoint(path="/merged", digest="m", phase="merged")])
    return run.path


def test_the_result_is_served_unless_another_is_named(run: Path) -> None:
    assert run_to_serve(run).card.id == "r"
    assert run_to_serve(run).path == "/skills"
    for name in ("knowledge", "merged"):
        named = run_to_serve(run, name)
        assert (named.card.id, named.path) == (f"r:{name}", f"/{name}")


def test_a_checkpoint_that_is_not_there_is_told_with_those_that_are(run: Path) -> None:
    with pytest.raises(RunError, match="there are: base, knowledge, skills, merged"):
        run_to_serve(run, "round-1")
