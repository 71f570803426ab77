"""The variants of the quickstart: other orders of phases, one phase, and a run that goes on."""

from pathlib import Path

import pytest
from tiny_run import ROOT

from feldspar.config import Recipe, read_recipe
from feldspar.flow import run_recipe
from feldspar.prepare import Until
from feldspar.progress import SILENT
from feldspar.records import Checkpoint, Phase
from feldspar.runs import Rows, open_step, result_of

RECIPES = ROOT / "recipes"
VARIANTS = ("paper", "stacked", "single-phase", "incremental")
SMALL = (
    *("world.num_old=12", "world.num_new=10", "world.training=0.002", "prefer=none"),
    *("generate.samples_per_leaf=6", "generate.calls_per_chunk=1", "generate.exam_items=4"),
    *("generate.pairs_per_call=2", "train.batch_samples=32", "train.warmup_steps=1"),
    *("evaluate.max_new_tokens=8", "evaluate.num_resamples=50"),
    *("evaluate.min_selection_items=1", 'student.device="cpu"'),
)
FEW_LEAVES = (
    '["knowledge/people/register_1", "foundational_skills/choosing", '
    '"compositional_skills/people/older"]'
)
MORE_REGISTERS = "world.num_new=24"
"""Enough people for the leaves that `incremental` adds."""
OLD_LEAVES = '["knowledge/people/register_1", "foundational_skills/choosing"]'


def variant(name: str, *settings: str) -> Recipe:
    return read_recipe(RECIPES / f"{name}.toml", settings)


def test_the_papers_order_moves_foundational_skills_to_the_second_step() -> None:
    short, long, skills = variant("paper").train.phase
    assert (short.branches, short.length) == (("knowledge",), "short")
    assert (long.branches, long.length) == (("knowledge",), "long")
    assert long.whole_branches == ("foundational",)
    assert skills.branches == ("compositional",)
    assert {r.phase for r in skills.replay} == {"knowledge-short", "knowledge-long"}


def test_the_others_have_one_phase_of_their_own() -> None:
    assert [p.name for p in variant("stacked").train.phase] == ["everything"]
    assert [p.name for p in variant("single-phase").train.phase] == ["knowledge"]
    (phase,) = variant("incremental").train.phase
    assert [(r.data, r.fraction) for r in phase.replay] == [("before", 0.25)]


def test_each_method_has_a_recipe_that_asks_for_it() -> None:
    asked = {
        name: (variant(name).generate.knowledge, variant(name).train.phase)
        for name in ("focal", "reversed", "across", "unanswerable", "coverage")
    }
    for name, (knowledge, _) in asked.items():
        assert (name in knowledge.kinds) is (name != "coverage")
    assert asked["coverage"][0].least_forms > 0
    assert variant("own-voice").own_voice is not None
    assert variant("quickstart").own_voice is None
    # Focal texts are trained on: each phase of knowledge takes as many as questions.
    assert [phase.documents for phase in asked["focal"][1]] == [0.5, 0.5, None]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One world, one journal."""
    return tmp_path_factory.mktemp("variants")


def run(name: str, folder: Path, run_name: str, *settings: str, until: Until = "scores") -> Path:
    small = [s for s in SMALL if s != "prefer=none" or name in ("quickstart", "paper", "stacked")]
    recipe = variant(name, *small, f"journal={folder / 'journal.sqlite'}", *settings)
    run_recipe(recipe, RECIPES, folder / "runs" / run_name, SILENT, until=until)
    return folder / "runs" / run_name


def phases_of(run_path: Path) -> list[Phase]:
    rows: Rows[Phase] | None = open_step(run_path, "phases")
    assert rows is not None
    return list(rows)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["paper", "stacked", "single-phase"])
def test_a_variant_runs(
    name: str, folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(cache))
    done = run(name, folder, name, f"taxonomy.leaves={FEW_LEAVES}")
    phases = phases_of(done)
    assert [p.name for p in phases] == [p.name for p in variant(name).train.phase]
    assert all(s.num_samples for p in phases for s in p.sources)
    assert bool(phases[-1].held_out) == (name == "single-phase")
    assert open_step(done, "scores") is not None


@pytest.mark.slow
def test_a_run_goes_on_from_an_earlier_one_and_replays_it(
    folder: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FELDSPAR_CACHE", str(cache))
    old = (MORE_REGISTERS, f"taxonomy.leaves={OLD_LEAVES}")
    before = run("quickstart", folder, "before", *old, until="trained")
    settings = [MORE_REGISTERS, f"student.base={before}", f"data.0.run={before}"]
    after = run("incremental", folder, "after", *settings, until="trained")
    (phase,) = phases_of(after)
    own, replayed, general = phase.sources
    assert (own.name, replayed.name, replayed.fraction) == ("new-knowledge", "replay/before", 0.25)
    earlier = {s.digest: s.num_samples for p in phases_of(before) for s in p.sources}
    assert replayed.num_samples == sum(earlier.values()) - earlier[general.digest]
    trained: Rows[Checkpoint] | None = open_step(before, "trained")
    assert trained is not None
    assert result_of(before) == trained.last()
    # A third run replays the first through the second.
    settings = [MORE_REGISTERS, f"student.base={after}", f"data.0.run={after}"]
    third = run("incremental", folder, "third", *settings, until="phases")
    assert phases_of(third)[0].sources[1].num_samples == own.num_samples + replayed.num_samples
