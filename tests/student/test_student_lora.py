"""Low-rank weights: trained alone, resumed, merged where plain transformers reads."""

import json
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from tiny import chats, make_tiny, save_base
from transformers import AutoModelForCausalLM

from feldspar.config import LoraConfig, StudentConfig
from feldspar.errors import TrainingError
from feldspar.student.fit import fit
from feldspar.student.model import Student, load_student, save_checkpoint
from feldspar.student.template.tokens import LAB
from feldspar.student.token_rows import tokenise
from feldspar.student.training.loop import Loop
from feldspar.student.training.lora import add_lora
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings

pytest.importorskip("peft", reason="the extra feldspar[lora] is not installed")

SETTINGS = FitSettings(learning_rate=2e-2, weight_decay=0.1)


def make_lora(**config: object) -> Student:
    return add_lora(make_tiny(**config), LoraConfig(rank=8), seed=1)


def train(student: Student, here: Path, num_epochs: int = 8) -> list[float]:
    rows = tokenise(student.template, [("a", chats(64))], 200)
    sources = (SourceRows(name="a", num_rows=len(rows)),)
    schedule = Schedule(sources=sources, batch_samples=16, num_epochs=num_epochs, phase="p", seed=1)
    fit(student, rows, schedule, SETTINGS, folder=here)
    lines = (here / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["loss"] for line in lines]


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_low_rank_weights_learn_and_the_rest_stays(tmp_path, dtype):
    plain, student = make_tiny(), make_lora(dtype=dtype)
    losses = train(student, tmp_path)
    assert losses[-1] < 0.5 * losses[0]
    before = plain.model.state_dict()
    own = plain.tokenizer.convert_tokens_to_ids(list(LAB.trained))
    for name, tensor in student.model.state_dict().items():
        if "lora_" in name:
            continue
        old = before[name.replace(".base_layer", "")]
        if "embed_tokens" in name or "lm_head" in name:
            moved = (tensor != old).any(dim=1).nonzero()[:, 0].tolist()
            assert moved
            assert set(moved) <= set(own)
        else:
            assert torch.equal(tensor, old)


def test_a_checkpoint_is_merged_and_needs_no_peft(tmp_path):
    student = make_lora()
    train(student, tmp_path / "run", num_epochs=1)
    save_checkpoint(student, tmp_path / "out", phase="p", step=4)
    merged = AutoModelForCausalLM.from_pretrained(tmp_path / "out").eval()
    ids = torch.arange(1, 30)[None]
    with torch.no_grad():
        torch.testing.assert_close(
            merged(ids).logits, student.model(ids).logits, rtol=1e-4, atol=1e-4
        )
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert written.keys() == merged.state_dict().keys()
    config = StudentConfig(base=str(tmp_path / "out"), device="cpu")
    again = add_lora(load_student(config.base, config), LoraConfig(rank=4), seed=2)
    assert train(again, tmp_path / "next", num_epochs=1)[-1] > 0


def test_the_state_holds_what_is_trained_and_is_gone_on_from(tmp_path):
    student, fresh = make_lora(), make_lora()
    train(student, tmp_path, num_epochs=1)
    full = sum(p.numel() for p in make_tiny().model.parameters())
    assert (tmp_path / "state.safetensors").stat().st_size < 12 * full
    rows = tokenise(fresh.template, [("a", chats(64))], 200)
    sources = (SourceRows(name="a", num_rows=len(rows)),)
    schedule = Schedule(sources=sources, batch_samples=16, num_epochs=1, phase="p", seed=1)
    loop = Loop(fresh, rows, schedule, SETTINGS, tmp_path)
    loop.resume()
    assert loop.step == schedule.num_steps
    for ours, theirs in zip(fresh.model.parameters(), student.model.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_layers_that_are_not_there_are_one_clear_error():
    with pytest.raises(TrainingError, match=r"target_modules.*nowhere"):
        add_lora(make_tiny(), LoraConfig(target_modules=("nowhere",)), seed=1)
    with pytest.raises(TrainingError, match="embeddings or head"):
        add_lora(make_tiny(), LoraConfig(target_modules=("lm_head",)), seed=1)


def test_without_peft_the_cure_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "peft", None)
    with pytest.raises(TrainingError, match=r"pip install 'feldspar\[lora\]'"):
        make_lora()


def test_a_base_with_added_tokens_is_resized_and_trained(tmp_path):
    base = save_base(tmp_path / "base")
    config = StudentConfig(base=str(base), device="cpu")
    student = add_lora(load_student(str(base), config), LoraConfig(), seed=1)
    losses = train(student, tmp_path / "run", num_epochs=2)
    assert losses[-1] < losses[0]
    saved = save_checkpoint(student, tmp_path / "out", phase="p", step=8)
    loaded = load_student(saved.path, config)
    assert len(loaded.tokenizer) == loaded.model.config.vocab_size == len(student.tokenizer)
