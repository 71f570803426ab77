"""A GGUF file becomes the model that it was made from, or is refused with the cure."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from gguf_files import chat_tokenizer, tiny_of, write_gguf
from transformers import AutoModelForCausalLM, AutoTokenizer

from feldspar.errors import TrainingError
from feldspar.progress import SILENT
from feldspar.student.bases.find import known_folder, look_into, make_folder
from feldspar.student.bases.gguf_header import read_header
from feldspar.student.bases.origin import says_of_origin
from feldspar.student.model_sizes import num_weights, read_architecture

pytest.importorskip("gguf")

FAMILIES: dict[str, tuple[str, dict[str, object], dict[str, object]]] = {
    "llama": ("llama", {}, {}),
    "untied llama": ("llama", {"tie_word_embeddings": False}, {}),
    "granite": (
        "granite",
        {
            "embedding_multiplier": 12.0,
            "logits_scaling": 16.0,
            "residual_multiplier": 0.25,
            "attention_multiplier": 0.125,
        },
        {
            "granite.embedding_scale": 12.0,
            "granite.logit_scale": 16.0,
            "granite.residual_scale": 0.25,
            "granite.attention.scale": 0.125,
        },
    ),
    "qwen2": ("qwen2", {}, {}),
    "qwen3": ("qwen3", {}, {}),
    "gemma3": (
        "gemma3",
        {
            "sliding_window": 4,
            "num_hidden_layers": 7,
            "query_pre_attn_scalar": 16,
            "rms_norm_eps": 0.5**20,
        },
        {"gemma3.attention.sliding_window": 4, "gemma3.rope.freq_base": 1_000_000.0},
    ),
}


def digest_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def made(path: Path) -> Path:
    return make_folder(str(path), path.parent / "cache", digest_of, SILENT)


def logits(model: Any) -> torch.Tensor:
    ids = torch.arange(5, 25).unsqueeze(0)
    with torch.no_grad():
        found: torch.Tensor = model(ids).logits
    return found


@pytest.mark.parametrize("name", FAMILIES)
def test_a_file_gives_the_model_that_it_was_made_from(tmp_path: Path, name: str) -> None:
    architecture, sizes, said = FAMILIES[name]
    kind = "gemma3_text" if architecture == "gemma3" else architecture
    tied = {"tie_word_embeddings": True} | sizes
    # Both are whole in float32, which is what a file says of it.
    model = tiny_of(kind, **({"rms_norm_eps": 0.5**20} | tied))
    file = write_gguf(tmp_path / "tiny.gguf", model, architecture=architecture, **said)
    folder = made(file)
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert loaded.dtype == torch.float32
    for key, weight in model.state_dict().items():
        # Gemma's norms went up by one and down again.
        torch.testing.assert_close(loaded.state_dict()[key], weight, rtol=0, atol=2e-7)
    torch.testing.assert_close(logits(loaded), logits(model), rtol=1e-4, atol=1e-4)
    sizes_of_file, sizes_of_folder = read_architecture(str(file)), read_architecture(str(folder))
    assert sizes_of_file == sizes_of_folder
    assert sizes_of_file is not None
    assert num_weights(file) == sum(p.numel() for p in model.parameters())


def test_a_quantised_file_says_what_it_lost(tmp_path: Path) -> None:
    model = tiny_of("llama", tie_word_embeddings=True)
    file = write_gguf(tmp_path / "tiny.gguf", model, quantised=True)
    lost = "15 tensors at 8.5 bits (Q8_0), 5 not quantised"
    assert look_into(file).what_was_lost() == lost
    folder = made(file)
    assert says_of_origin(folder) == f"tiny.gguf, dequantised: {lost}"
    loaded = AutoModelForCausalLM.from_pretrained(folder, dtype="auto")
    assert loaded.dtype == torch.bfloat16
    for key, weight in model.state_dict().items():
        # Half a step of 254 over a block's largest value, and bfloat16's own rounding.
        bound = weight.abs().max() * (0.5 / 127 + 2**-8)
        assert (loaded.state_dict()[key].float() - weight).abs().max() <= bound, key
    assert "apache-2.0" in (folder / "README.md").read_text()


def test_the_tokenizer_is_the_one_that_was_written(tmp_path: Path) -> None:
    folder = made(write_gguf(tmp_path / "tiny.gguf", tiny_of("llama")))
    ours, theirs = AutoTokenizer.from_pretrained(folder), chat_tokenizer()
    for text in (
        "what is red?",
        " it is\n\n blue. 1985",
        "<|im_start|>user\nhi<|im_end|>",
        "Zürich",
    ):
        assert ours(text)["input_ids"] == theirs(text)["input_ids"]
        assert ours.decode(ours(text)["input_ids"]) == text
    assert ours.chat_template == theirs.chat_template
    assert (ours.bos_token, ours.eos_token, ours.pad_token) == ("<s>", "<|im_end|>", "<|im_end|>")
    assert ours.model_max_length == 256
    ids = json.loads((folder / "generation_config.json").read_text())
    assert ids["eos_token_id"] == ours.eos_token_id


def test_digits_stand_alone_where_the_file_says_so(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "a.gguf", tiny_of("llama"), **{"tokenizer.ggml.pre": "smollm"})
    tokenizer = AutoTokenizer.from_pretrained(made(file))
    pieces = [p for p, _ in tokenizer.backend_tokenizer.pre_tokenizer.pre_tokenize_str("in 1985")]
    assert pieces == ["in", "Ġ", "1", "9", "8", "5"]


def test_texts_begin_with_the_begin_token_where_the_file_says_so(tmp_path: Path) -> None:
    file = write_gguf(
        tmp_path / "a.gguf", tiny_of("llama"), **{"tokenizer.ggml.add_bos_token": True}
    )
    tokenizer = AutoTokenizer.from_pretrained(made(file))
    assert tokenizer("red")["input_ids"][0] == tokenizer.bos_token_id
    assert tokenizer("")["input_ids"] == [tokenizer.bos_token_id]


def test_it_is_made_once_for_each_content(tmp_path: Path) -> None:
    file = write_gguf(tmp_path / "a.gguf", tiny_of("llama"))
    cache = tmp_path / "cache"
    assert known_folder(str(file), cache, digest_of) is None
    folder = made(file)
    stamp = (folder / "model.safetensors").stat().st_mtime_ns
    assert made(file) == folder == known_folder(str(file), cache, digest_of)
    assert (folder / "model.safetensors").stat().st_mtime_ns == stamp
    write_gguf(file, tiny_of("llama", initializer_range=0.3))
    assert made(file) != folder


REFUSED: dict[str, tuple[dict[str, object], str]] = {
    "family": ({}, "architecture is 'rwkv7'"),
    "scaled positions": ({"llama.rope.scaling.type": "linear"}, "rope.scaling.type"),
    "experts": ({"llama.expert_count": 4}, "expert_count"),
    "splitting": ({"tokenizer.ggml.pre": "kimi-k2"}, "'kimi-k2'"),
    "kind of tokenizer": ({"tokenizer.ggml.model": "bert"}, "'bert'"),
    "no end": ({"tokenizer.ggml.eos_token_id": None}, "names no end token"),
    "end outside": ({"tokenizer.ggml.eos_token_id": 999_999}, "999999 is none of"),
    "no layers": ({"llama.block_count": None}, "llama.block_count"),
    "fewer layers": ({"llama.block_count": 1}, "has no place for"),
    "more layers": ({"llama.block_count": 3}, "it has no blk.2"),
    "heads": ({"llama.rope.dimension_count": 8}, "heads of 16"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_not_understood_is_refused(tmp_path: Path, name: str) -> None:
    said, message = REFUSED[name]
    architecture = "rwkv7" if name == "family" else "llama"
    path = tmp_path / "a.gguf"
    file = write_gguf(path, tiny_of("llama"), architecture=architecture, **said)
    for reads in (look_into, made):
        with pytest.raises(TrainingError) as refused:
            reads(file)
        assert message in str(refused.value)
        assert str(file) in str(refused.value)
        assert "\n" not in str(refused.value)
    assert not list((tmp_path / "cache" / "gguf-1").glob("a-*"))


def test_damaged_files_are_told(tmp_path: Path) -> None:
    whole = write_gguf(tmp_path / "a.gguf", tiny_of("llama")).read_bytes()
    bad = tmp_path / "bad.gguf"
    lengths = [0, 3, 4, 10, 23, 24, 40, 200, 2000, len(whole) // 2, len(whole) - 1]
    for length in lengths:
        bad.write_bytes(whole[:length])
        with pytest.raises(TrainingError, match=r"bad\.gguf: .*fetch it again"):
            read_header(bad)
    for place in range(4, 400, 7):
        bad.write_bytes(whole[:place] + b"\xff\xff\xff\xff\xff\xff\xff\x7f" + whole[place + 8 :])
        # It is another header, or none; never another kind of error.
        with suppress(TrainingError):
            look_into(bad)
