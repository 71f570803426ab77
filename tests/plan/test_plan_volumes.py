"""The plan adds up with what is there: no taxonomy, no GPU, a base of any known family."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tiny import LEAF, save_model
from transformers import Gemma2Config, Gemma3TextConfig, Gemma3TextModel, GemmaConfig

from feldspar.config import Recipe, read_recipe
from feldspar.errors import TaxonomyError
from feldspar.plan import Plan
from feldspar.planning import plan_recipe
from feldspar.progress import SILENT
from feldspar.student.model_sizes import read_architecture
from feldspar.student.training.memory import PROCESS_BYTES

RECIPES = Path(__file__).parents[2] / "recipes"
CARDS = ("granite-7b-lab", "labradorite-13b", "merlinite-7b", "merlinite-7b-pt")


def planned(recipe: Recipe, folder: Path, **options: object) -> Plan:
    return plan_recipe(recipe, folder, SILENT, **options)


@pytest.mark.parametrize("name", CARDS)
def test_recipes_as_shipped_are_planned_at_the_papers_volumes(name: str) -> None:
    recipe = read_recipe(RECIPES / f"{name}.toml")
    assert not (RECIPES / "taxonomy").exists()
    plan = planned(recipe, RECIPES, gpu="h100x8")
    rows = {phase.name: phase.rows_per_epoch for phase in plan.phases}
    short, long = 308_500, 308_500
    assert rows["knowledge-short"] == short
    assert rows["knowledge-long"] == short + long
    assert rows["skills"] == 588_000 + short + long
    answers = [c for c in plan.calls if c.step == "samples" and not c.is_judge]
    # As many samples are written as are trained on: none is left out of the bill.
    assert sum(c.calls for c in answers) > 200_000
    written = sum(c.completion_tokens for c in answers)
    assert 1_205_000 * 50 < written < 1_205_000 * 300
    assert plan.training_hours is not None
    assert any("1,205,000 samples of plan.samples" in warning for warning in plan.warnings)
    left_out = " ".join(plan.not_included)
    assert "exams of leaves" in left_out
    assert "benchmarks: mmlu, arc_challenge" in left_out
    assert "MT-Bench" in left_out
    assert ("preferences: " in left_out) == (name == "merlinite-7b-pt")
    assert (plan.preference_hours is not None) == (name == "merlinite-7b-pt")
    assert any(call.step == "mt-bench" for call in plan.calls)


def write_project(folder: Path) -> Path:
    leaf = folder / "taxonomy" / "compositional_skills" / "rhymes"
    leaf.mkdir(parents=True)
    (leaf / "qna.yaml").write_text(LEAF)
    (folder / "recipe.toml").write_text(
        '[taxonomy]\npath = "taxonomy"\n[student]\nbase = "base"\ndevice = "cpu"\n'
        "[generate]\nsamples_per_leaf = 40\n"
        '[[train.phase]]\nname = "p"\nbranches = ["compositional"]\nnum_epochs = 3\n'
    )
    save_model(folder / "base")
    return folder / "recipe.toml"


def test_without_leaves_and_without_volumes_there_is_nothing_to_plan(tmp_path: Path) -> None:
    recipe = read_recipe(write_project(tmp_path), ["taxonomy.path=gone"])
    with pytest.raises(TaxonomyError, match="gone"):
        planned(recipe, tmp_path)


def test_a_reward_prompt_of_no_leaf_is_warned_of(tmp_path: Path) -> None:
    domains = '{path="compositional_skills/rhymes"}, {path="compositional_skills/rimes"}'
    prefer = f'prefer={{aligned="a", base="b", reward_prompts={{domain=[{domains}]}}}}'
    plan = planned(read_recipe(write_project(tmp_path), [prefer]), tmp_path)
    [warning] = [w for w in plan.warnings if "prefer.reward_prompts" in w]
    assert "'compositional_skills/rimes', which no leaf lies in" in warning
    assert plan.preference is not None
    assert plan.preference.domain_tokens > 20


def test_a_probe_times_training_on_a_cpu_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    monkeypatch.setattr("feldspar.planning.CPU_PROBE_SECONDS", 0.2)
    # The world's own teacher is never asked: there is no room in the budget for a call.
    recipe = read_recipe(write_project(tmp_path), ["plan.teacher_tokens_per_second=50"])
    assert planned(recipe, tmp_path).training_hours is None
    plan = planned(recipe, tmp_path, num_probes=1)
    assert plan.training_rate is not None
    assert plan.training_rate.tokens_per_second > 0
    tokens = 40 * 3 * plan.row_tokens
    hours = tokens / plan.training_rate.tokens_per_second / 3600
    assert plan.training_hours == pytest.approx(hours)
    assert "tokens trained in" in plan.training_rate.known_by
    assert planned(recipe, tmp_path).training_hours == pytest.approx(hours)


def test_memory_on_a_cpu_is_the_whole_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    recipe = read_recipe(write_project(tmp_path))
    [here, *_] = planned(recipe, tmp_path).memory
    assert here.process == PROCESS_BYTES
    assert here.total == (
        here.weights + here.gradients + here.optimizer + here.activations + PROCESS_BYTES
    )
    [there, *_] = planned(recipe, tmp_path, gpu="h100").memory
    assert there.process == 0


SMALL = {
    "vocab_size": 256,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 1,
    "head_dim": 16,
}


@pytest.mark.parametrize("kind", [GemmaConfig, Gemma2Config, Gemma3TextConfig])
def test_gemmas_sizes_are_known(kind: type, tmp_path: Path) -> None:
    kind(**SMALL).save_pretrained(tmp_path)
    sizes = read_architecture(str(tmp_path))
    assert sizes is not None
    assert sizes.tied
    assert sizes.query_size == 64
    assert sizes.qk_norm == (kind is Gemma3TextConfig)
    held = sum(p.numel() for p in Gemma3TextModel(Gemma3TextConfig(**SMALL)).parameters())
    # Norms within heads, and the second pair of norms of a layer, are left out of the count.
    assert sizes.num_parameters == pytest.approx(held, abs=3 * (2 * 16 + 2 * 32))


def test_gemma_within_a_model_of_pictures_is_found(tmp_path: Path) -> None:
    text = Gemma3TextConfig(**SMALL).to_dict()
    (tmp_path / "config.json").write_text(
        json.dumps({"model_type": "gemma3", "text_config": text}, default=str)
    )
    assert read_architecture(str(tmp_path)) is not None
