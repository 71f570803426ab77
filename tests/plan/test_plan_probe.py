"""A probe asks a few of the run's own calls, once: the run and later plans find them again."""

from pathlib import Path

import pytest
from tiny_run import RECIPE, num_served, serving_teacher, write_recipe

from feldspar.config import Recipe, read_recipe
from feldspar.flow import run_recipe
from feldspar.plan import Plan
from feldspar.planning import plan_recipe
from feldspar.progress import SILENT


def planned(recipe: Recipe, folder: Path, num_probes: int) -> Plan:
    return plan_recipe(recipe, folder, SILENT, num_probes=num_probes)


@pytest.mark.slow
@pytest.mark.parametrize("sampling", ["leaf", "pooled"])
def test_a_probe_is_paid_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sampling: str
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    path = write_recipe(tmp_path, RECIPE)
    with serving_teacher(path) as url:
        settings = [f"teacher.endpoint={url}", "generate.exam_items=0"]
        # The least that a server may have in flight.
        settings += [f"generate.sampling={sampling}", "teacher.max_concurrency=1"]
        if sampling == "pooled":
            settings += ["generate.samples_per_leaf=none", "generate.samples_per_seed=2"]
        recipe = read_recipe(path, settings)
        assert planned(recipe, tmp_path, 0).rate is None
        probed = planned(recipe, tmp_path, 20)
        num_probed = num_served(url)
        assert 0 < num_probed <= 20
        assert probed.rate is not None
        assert probed.rate.known_by.startswith(f"{num_probed} calls in ")
        written = sum(call.completion_tokens for call in probed.calls)
        assert probed.teacher_hours == pytest.approx(written / probed.rate.tokens_per_second / 3600)

        # All of it is in the journal, and the speed beside it; a few more calls say less.
        assert planned(recipe, tmp_path, 20).rate == probed.rate
        assert planned(recipe, tmp_path, 5).rate == probed.rate
        assert num_served(url) == num_probed
        assert planned(recipe, tmp_path, num_probed + 1).rate == probed.rate
        num_probed = num_served(url)
        assert planned(recipe, tmp_path, 0).rate == probed.rate
        assert num_served(url) == num_probed

        plan_of_all = sum(call.calls for call in probed.calls)
        run_recipe(recipe, tmp_path, tmp_path / "run", SILENT, until="samples")
        assert num_served(url) <= plan_of_all


@pytest.mark.slow
def test_a_stated_speed_needs_no_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(tmp_path / "cache"))
    path = write_recipe(tmp_path, RECIPE)
    recipe = read_recipe(path, ["plan.teacher_tokens_per_second=50"])
    plan = planned(recipe, tmp_path, 0)
    assert plan.rate is not None
    assert (plan.rate.tokens_per_second, plan.rate.known_by) == (50, "stated")
