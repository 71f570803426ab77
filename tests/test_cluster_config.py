"""Where commands are started is a place: it redoes no step, and what makes no sense is said."""

from __future__ import annotations

import pytest

from feldspar.config import PreferConfig, Recipe
from feldspar.errors import RecipeError
from feldspar.flow import run_recipe
from feldspar.keys import content_key
from feldspar.models.opening import unserved_model
from feldspar.models.server import Start
from feldspar.progress import SILENT

COMMAND = {"command": "vllm serve {model} --host {host} --port {port}", "model": "m"}
RAY = {"cluster": {"engine": "ray"}}


def recipe_of(**tables: object) -> Recipe:
    return Recipe.model_validate(
        {"taxonomy": {"path": "t"}, "student": {"base": "b"}, "teacher": COMMAND, **tables}
    )


def test_the_clusters_engine_is_that_of_every_command_that_names_none() -> None:
    prefer = {"aligned": "a", "base": "b", "policy_server": COMMAND, "aligned_server": COMMAND}
    mt_bench = {"judge": COMMAND}
    recipe = recipe_of(
        **RAY,
        judge={"endpoint": "http://a/v1"},
        prefer=prefer | {"base_server": COMMAND | {"engine": "local"}},
        evaluate={"server": COMMAND, "mt_bench": mt_bench},
    )
    engines = {name: config.engine for name, config in recipe.asked_models().items()}
    assert engines == {
        "teacher": "ray",
        "judge": None,
        "evaluate.server": "ray",
        "evaluate.mt_bench.judge": "ray",
        "prefer.aligned_server": "ray",
        "prefer.base_server": "local",
        "prefer.policy_server": "ray",
    }
    assert recipe_of().teacher.engine is None


def test_a_start_is_told_where_and_on_how_much(tmp_path) -> None:
    recipe = recipe_of(**RAY, teacher=COMMAND | {"gpus_each": 2, "replicas": 3})
    model = unserved_model(recipe.teacher, tmp_path, "teacher")
    start = model._start
    assert isinstance(start, Start)
    assert (start.engine, start.gpus_each, start.num_replicas) == ("ray", 2, 3)


def test_where_a_command_starts_is_no_part_of_a_result() -> None:
    here = recipe_of()
    there = recipe_of(**RAY, teacher=COMMAND | {"gpus_each": 4, "nodes_each": 1})
    assert content_key(here) == content_key(there)
    server = {"aligned": "a", "base": "b"}
    one = PreferConfig(**server, policy_server={"command": "a {model} {port}"})
    other = PreferConfig(
        **server, policy_server={"command": "a {model} {port}", "engine": "ray", "gpus_each": 1}
    )
    assert content_key(one) == content_key(other)


def test_where_is_trained_is_no_part_of_a_result_and_said_in_one_place(tmp_path) -> None:
    here, there = recipe_of(), recipe_of(**RAY, train={"workers": {"num": 8}})
    assert content_key(here) == content_key(there)
    assert there.train.of_optimizer().workers == there.train.workers
    with pytest.raises(
        RecipeError, match=r"2 processes are to train together, and \[train.workers"
    ):
        run_recipe(there, tmp_path, tmp_path / "run", SILENT, num_processes=2)


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"teacher": COMMAND | {"gpus_each": 1}}, "teacher.gpus_each needs the engine ray"),
        ({"cluster": {"engine": "slurm"}}, "Input should be 'local' or 'ray'"),
        ({"train": {"workers": {"num": 2}}}, "train.workers are placed by a cluster: write"),
        (RAY | {"train": {"workers": {"num": 2, "gpus_each": 2}}}, "less than or equal to 1"),
        (RAY | {"teacher": {"gpus_each": 1}}, "`gpus_each` says where a `command` is started"),
        (RAY | {"teacher": COMMAND | {"nodes_each": 2}}, "no {node} to tell them apart"),
        (
            RAY | {"teacher": COMMAND | {"engine": "local", "gpus_each": 1}},
            "teacher.gpus_each needs the engine ray",
        ),
    ],
)
def test_what_makes_no_sense_is_said(tables: dict, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        recipe_of(**tables)
