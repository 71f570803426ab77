"""The un-merged adapter: found again in merged weights, and the result when peft loads it."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from by_hand import do_step
from gguf_files import chat_tokenizer, tiny_of
from transformers import AutoModelForCausalLM

from feldspar.config import LoraConfig, Recipe
from feldspar.errors import RunError
from feldspar.publish.adapter import low_rank
from feldspar.publish.directory import publish_run
from feldspar.records import Checkpoint
from feldspar.runs import Run
from feldspar.steps import Workspace
from feldspar.student.model import save_checkpoint
from feldspar.student.training.lora import load_to_train

peft = pytest.importorskip("peft", reason="needs feldspar[lora]")


def make_run(folder: Path, *, lora: bool = True, **publish: str) -> Path:
    """Two phases of rank 2 on a tiny base with its own template, merged one after the other."""
    base = folder / "base"
    tiny_of("llama").save_pretrained(base)
    chat_tokenizer().save_pretrained(base)
    student = {"base": str(base), "template": "own", "dtype": "float32"}
    if lora:
        student["lora"] = LoraConfig(rank=2, alpha=2.0)
    recipe = Recipe(taxonomy={"path": "t"}, student=student, publish=publish)

    def train(workspace: Workspace) -> Iterator[Checkpoint]:
        path = str(base)
        for number in (1, 2):
            made = load_to_train(path, recipe.student, seed=number)
            with torch.no_grad():
                for name, weight in made.model.named_parameters():
                    if "lora_B" in name:
                        weight.add_(torch.randn_like(weight) * 0.1)
            path = str(workspace.folder / f"model-{number}")
            yield save_checkpoint(made, Path(path), phase=f"phase-{number}", step=number)

    with Run(folder / "run", recipe) as opened:
        do_step(opened, "trained", train)
    return opened.path


# peft asks transformers for a property by a name that it gives up.
@pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
def test_base_and_adapter_together_are_the_result(tmp_path: Path) -> None:
    run = make_run(tmp_path, base_model="owner/base@" + "a" * 40)
    publish_run(run, tmp_path / "out", adapter=True)
    folder = tmp_path / "out" / "adapter"
    config = json.loads((folder / "adapter_config.json").read_text())
    assert (config["base_model_name_or_path"], config["revision"]) == ("owner/base", "a" * 40)
    assert config["r"] == config["lora_alpha"] == 4
    card = (tmp_path / "out" / "README.md").read_text()
    assert "base_model: owner/base\n" in card
    assert 'subfolder="adapter"' in card
    assert "adapter/adapter_model.safetensors" in (tmp_path / "out/CHECKSUMS.sha256").read_text()
    base = AutoModelForCausalLM.from_pretrained(tmp_path / "base", dtype=torch.float32)
    adapted = peft.PeftModel.from_pretrained(base, tmp_path / "out", subfolder="adapter")
    result = AutoModelForCausalLM.from_pretrained(tmp_path / "out", dtype=torch.float32)
    ids = torch.arange(20)[None]
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, result(ids).logits, rtol=1e-3, atol=1e-3)


@pytest.mark.slow
def test_what_is_no_adapter_is_told_and_nothing_is_published(tmp_path: Path) -> None:
    whole = make_run(tmp_path / "whole", lora=False, base_model="owner/base")
    with pytest.raises(RunError, match=r"no \[student.lora\]"):
        publish_run(whole, tmp_path / "out", adapter=True)
    unknown = make_run(tmp_path / "unknown")
    with pytest.raises(RunError, match=r"set publish.base_model = .OWNER/NAME@COMMIT"):
        publish_run(unknown, tmp_path / "out", adapter=True)
    assert not (tmp_path / "out").exists()


def test_a_change_of_full_rank_is_no_adapter() -> None:
    torch.manual_seed(0)
    with pytest.raises(RunError, match="of no low rank"):
        low_rank(torch.randn(12, 8), "layer")
    down, up = torch.randn(3, 8), torch.randn(12, 3)
    found = low_rank(up @ down, "layer")
    assert found.down.shape == (3, 8)
    torch.testing.assert_close(found.up @ found.down, up @ down)
