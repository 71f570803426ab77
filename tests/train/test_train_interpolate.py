"""Weights between two checkpoints."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from tiny_base import save_base
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.config import StudentConfig
from feldspar.errors import TrainingError
from feldspar.records import Checkpoint
from feldspar.student.interpolate import interpolate
from feldspar.student.model import base_checkpoint, load_student, save_checkpoint

STUDENT = StudentConfig(base="tiny", device="cpu", max_length=60)
EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


@pytest.fixture
def base(tmp_path: Path) -> Checkpoint:
    return save_base(tmp_path / "base")


@pytest.fixture
def end(base: Checkpoint, tmp_path: Path) -> Checkpoint:
    """The base with the lab template's tokens, every weight 1 higher."""
    student = load_student(base.path, STUDENT)
    with torch.no_grad():
        for tensor in student.model.parameters():
            tensor += 1
    return save_checkpoint(student, tmp_path / "end", phase="skills", step=7)


def weights(checkpoint: Checkpoint) -> dict[str, torch.Tensor]:
    return load_file(f"{checkpoint.path}/model.safetensors")


def test_every_weight_is_part_of_the_way_and_new_tokens_are_the_ends(base, end, tmp_path):
    merged = interpolate(base, end, 0.25, tmp_path / "merged")
    before, between, after = weights(base), weights(merged), weights(end)
    assert between.keys() == after.keys()
    for name, tensor in between.items():
        rows = len(before[name])
        torch.testing.assert_close(tensor[:rows], before[name] + 0.25)
        assert tensor.shape == after[name].shape
    assert len(between[EMBEDDING]) > len(before[EMBEDDING])
    for name in (EMBEDDING, HEAD):
        rows = len(before[name])
        assert torch.equal(between[name][rows:], after[name][rows:])
    assert (merged.phase, merged.step) == ("skills", 7)
    assert len({merged.digest, base.digest, end.digest}) == 3


def test_a_merged_checkpoint_loads_as_any_other_and_is_the_same_twice(base, end, tmp_path):
    first = interpolate(base, end, 0.5, tmp_path / "a")
    assert interpolate(base, end, 0.5, tmp_path / "b").digest == first.digest
    loaded = load_student(first.path, STUDENT)
    assert loaded.template.stop_id == load_student(end.path, STUDENT).template.stop_id
    for name in ("tokenizer.json", "config.json", "generation_config.json"):
        assert (tmp_path / "a" / name).read_bytes() == (tmp_path / "end" / name).read_bytes()


def test_rows_that_only_padded_the_base_are_the_ends(base, end, tmp_path):
    model = AutoModelForCausalLM.from_pretrained(base.path)
    model.resize_token_embeddings(len(weights(end)[EMBEDDING]), mean_resizing=False)
    model.save_pretrained(tmp_path / "padded")
    AutoTokenizer.from_pretrained(base.path).save_pretrained(tmp_path / "padded")
    padded = base_checkpoint(str(tmp_path / "padded"))
    assert len(weights(padded)[EMBEDDING]) == len(weights(end)[EMBEDDING])
    merged = weights(interpolate(padded, end, 0.25, tmp_path / "merged"))
    rows = len(weights(base)[EMBEDDING])
    assert torch.equal(merged[EMBEDDING][rows:], weights(end)[EMBEDDING][rows:])
    torch.testing.assert_close(merged[EMBEDDING][:rows], weights(base)[EMBEDDING] + 0.25)


def test_a_start_in_bfloat16_is_computed_in_float32(base, end, tmp_path):
    low = {name: tensor.to(torch.bfloat16) for name, tensor in weights(base).items()}
    save_file(low, f"{base.path}/model.safetensors", metadata={"format": "pt"})
    merged = weights(interpolate(base, end, 0.5, tmp_path / "merged"))
    name = "model.norm.weight"
    assert merged[name].dtype == torch.float32
    torch.testing.assert_close(merged[name], (low[name].float() + weights(end)[name]) / 2)


def test_a_start_that_names_its_tensors_otherwise_is_read_as_transformers_reads_it(
    base, end, tmp_path
):
    whole = weights(interpolate(base, end, 0.5, tmp_path / "merged"))
    old = {name.replace("model.", "", 1): tensor for name, tensor in weights(base).items()}
    # Of the bare model, as its own class saves it; the head is tied to its embedding.
    named = {**old, HEAD: weights(base)[HEAD]}
    save_file(named, f"{base.path}/model.safetensors", metadata={"format": "pt"})
    again = weights(interpolate(base, end, 0.5, tmp_path / "again"))
    assert all(torch.equal(again[name], tensor) for name, tensor in whole.items())
    assert not list(tmp_path.glob("tmp*"))


def test_another_model_is_refused_by_its_tensor(base, end, tmp_path):
    tensors = weights(base)
    tensors["model.norm.weight"] = torch.ones(16)
    save_file(tensors, f"{base.path}/model.safetensors", metadata={"format": "pt"})
    with pytest.raises(TrainingError, match=r"model\.norm\.weight is \[16\] in the start"):
        interpolate(base, end, 0.5, tmp_path / "merged")
    assert not (tmp_path / "merged").exists()


def test_other_numbers_of_tokens_are_refused(base, end, tmp_path):
    other = AutoTokenizer.from_pretrained(end.path)
    other.add_tokens(["xyzzy"])
    other.save_pretrained(tmp_path / "other")
    for file in Path(base.path).glob("*.safetensors"):
        (tmp_path / "other" / file.name).write_bytes(file.read_bytes())
    (tmp_path / "other" / "config.json").write_bytes((Path(base.path) / "config.json").read_bytes())
    start = replace(base, path=str(tmp_path / "other"))
    with pytest.raises(TrainingError, match="number their tokens differently"):
        interpolate(start, end, 0.5, tmp_path / "merged")
