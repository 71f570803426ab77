"""Which model a GGUF file holds: its config.json, and where each tensor goes. No torch.

What llama.cpp's converter does to a model is undone here, family by family. All that a file says of
its architecture must be understood, and every tensor must have its place: a model that was read in
part would be another model.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

from feldspar.errors import TrainingError
from feldspar.student.bases.gguf_header import GgufHeader, MetaValue

_TAKE_FOLDER = "take the model's Hugging Face folder instead"
_FEW = 3


class TensorTarget(NamedTuple):
    """Where a tensor goes, and what the converter did to it."""

    name: str
    num_heads: int = 0
    """Not 0: rows of so many heads stand in pairs, as llama.cpp's rotation wants them."""
    added: float = 0.0
    """What the converter added to each value."""


class GgufModel(NamedTuple):
    """A model as transformers has it."""

    config: dict[str, object]
    """For config.json, without `dtype`."""
    targets: dict[str, TensorTarget]
    """By the names of the file's tensors."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Family:
    """How a family differs from Llama."""

    model_type: str
    kind: str
    """transformers' class."""
    numbers: Mapping[str, str] = field(default_factory=dict)
    """Further keys of the metadata, and their names in config.json."""
    of_layer: Mapping[str, str] = field(default_factory=dict)
    """Further tensors of a layer, or such that stand elsewhere than Llama's."""
    has_paired_rows: bool = False
    norms_add: float = 0.0


_LAYER = {
    "attn_norm.weight": "input_layernorm.weight",
    "attn_q.weight": "self_attn.q_proj.weight",
    "attn_k.weight": "self_attn.k_proj.weight",
    "attn_v.weight": "self_attn.v_proj.weight",
    "attn_output.weight": "self_attn.o_proj.weight",
    "ffn_norm.weight": "post_attention_layernorm.weight",
    "ffn_gate.weight": "mlp.gate_proj.weight",
    "ffn_up.weight": "mlp.up_proj.weight",
    "ffn_down.weight": "mlp.down_proj.weight",
}
_HEAD_NORMS = {
    "attn_q_norm.weight": "self_attn.q_norm.weight",
    "attn_k_norm.weight": "self_attn.k_norm.weight",
}
_NUMBERS = {
    "context_length": "max_position_embeddings",
    "block_count": "num_hidden_layers",
    "embedding_length": "hidden_size",
    "feed_forward_length": "intermediate_size",
    "attention.head_count": "num_attention_heads",
    "attention.layer_norm_rms_epsilon": "rms_norm_eps",
}
_COUNTS = {*_NUMBERS, "attention.sliding_window"} - {"attention.layer_norm_rms_epsilon"}
_FAMILIES = {
    "llama": _Family(model_type="llama", kind="LlamaForCausalLM", has_paired_rows=True),
    "granite": _Family(
        model_type="granite",
        kind="GraniteForCausalLM",
        has_paired_rows=True,
        numbers={
            "attention.scale": "attention_multiplier",
            "embedding_scale": "embedding_multiplier",
            "residual_scale": "residual_multiplier",
            "logit_scale": "logits_scaling",
        },
    ),
    "qwen2": _Family(
        model_type="qwen2",
        kind="Qwen2ForCausalLM",
        of_layer={f"attn_{x}.bias": f"self_attn.{x}_proj.bias" for x in "qkv"},
    ),
    "qwen3": _Family(model_type="qwen3", kind="Qwen3ForCausalLM", of_layer=_HEAD_NORMS),
    "gemma3": _Family(
        model_type="gemma3_text",
        kind="Gemma3ForCausalLM",
        numbers={"attention.sliding_window": "sliding_window"},
        of_layer={
            **_HEAD_NORMS,
            "post_attention_norm.weight": "post_attention_layernorm.weight",
            "ffn_norm.weight": "pre_feedforward_layernorm.weight",
            "post_ffw_norm.weight": "post_feedforward_layernorm.weight",
        },
        norms_add=1.0,
    ),
}
_READ_APART = {
    "attention.head_count_kv",
    "attention.key_length",
    "attention.value_length",
    "rope.dimension_count",
    "rope.freq_base",
    "rope.freq_base_swa",
    "rope.scaling.type",
    "vocab_size",
}
_GEMMA_FULL_EVERY = 6
"""Of Gemma 3's layers, the last of so many sees all; the others see a window."""
_GEMMA_WINDOW_THETA = 10_000.0
_GEMMA_MOST_LAYERS = 48
"""Its 27B has a scale of attention of its own, which no metadata holds."""


def model_of(header: GgufHeader) -> GgufModel:
    """The model that a file holds. Raises TrainingError with the cure where it is of a family that
    cannot be read, or says what is not understood."""
    family = _FAMILIES.get(header.architecture)
    if family is None:
        raise TrainingError(
            f"{header.path}: its architecture is {header.architecture!r}; GGUF files are read of "
            f"{', '.join(sorted(_FAMILIES))}, so {_TAKE_FOLDER}"
        )
    prefix = f"{header.architecture}."
    said = {
        key.removeprefix(prefix): value
        for key, value in header.metadata.items()
        if key.startswith(prefix)
    }
    numbers = _NUMBERS | dict(family.numbers)
    _check_understood(header, said, {*numbers, *_READ_APART})
    config: dict[str, object] = {
        "architectures": [family.kind],
        "model_type": family.model_type,
        **{name: _positive(header, said, key) for key, name in numbers.items()},
    }
    names = {tensor.name: tensor for tensor in header.tensors}
    config["vocab_size"] = names["token_embd.weight"].shape[0] if names else 0
    config["tie_word_embeddings"] = "output.weight" not in names
    config |= _heads(header, said, config)
    config |= _rope(family, said, config)
    config |= _special_ids(header)
    targets = _targets(family, config)
    _check_tensors(header, targets)
    return GgufModel(config, targets)


def _check_understood(header: GgufHeader, said: Mapping[str, MetaValue], known: set[str]) -> None:
    unknown = sorted(said.keys() - known)
    if said.get("rope.scaling.type", "none") != "none":
        unknown.append("rope.scaling.type")
    if unknown:
        raise TrainingError(
            f"{header.path}: its metadata says {', '.join(unknown[:_FEW])} of a "
            f"{header.architecture}, which is not understood and may change the model; "
            f"{_TAKE_FOLDER}"
        )
    if "token_embd.weight" not in {tensor.name for tensor in header.tensors}:
        raise TrainingError(f"{header.path}: it has no token_embd.weight; fetch it again")


def _positive(header: GgufHeader, said: Mapping[str, MetaValue], key: str) -> int | float:
    value = said.get(key)
    is_whole = isinstance(value, int) or key not in _COUNTS
    if isinstance(value, int | float) and not isinstance(value, bool) and value > 0 and is_whole:
        return value
    raise TrainingError(
        f"{header.path}: {header.architecture}.{key} must be a number above 0, got {value!r}; "
        f"{_TAKE_FOLDER}"
    )


def _heads(
    header: GgufHeader, said: Mapping[str, MetaValue], config: Mapping[str, object]
) -> dict[str, object]:
    hidden_size, num_heads = config["hidden_size"], config["num_attention_heads"]
    assert isinstance(hidden_size, int), hidden_size
    assert isinstance(num_heads, int), num_heads
    size = said.get("attention.key_length", said.get("rope.dimension_count"))
    size = size or hidden_size // num_heads
    for key in ("attention.value_length", "rope.dimension_count"):
        if said.get(key, size) != size:
            raise TrainingError(
                f"{header.path}: {header.architecture}.{key} is {said[key]}, and heads of {size} "
                f"are expected; {_TAKE_FOLDER}"
            )
    num_kv_heads = num_heads
    if "attention.head_count_kv" in said:
        num_kv_heads = int(_positive(header, said, "attention.head_count_kv"))
    return {"head_dim": size, "num_key_value_heads": num_kv_heads}


def _rope(
    family: _Family, said: Mapping[str, MetaValue], config: Mapping[str, object]
) -> dict[str, object]:
    """How positions are written into keys and queries."""
    full = {"rope_type": "default", "rope_theta": said.get("rope.freq_base", 10_000.0)}
    if family.model_type != "gemma3_text":
        return {"rope_parameters": full}
    theta = said.get("rope.freq_base_swa", _GEMMA_WINDOW_THETA)
    num_layers = config["num_hidden_layers"]
    assert isinstance(num_layers, int), num_layers
    if num_layers > _GEMMA_MOST_LAYERS:
        raise TrainingError(f"a Gemma 3 of {num_layers} layers is not read; {_TAKE_FOLDER}")
    return {
        "rope_parameters": {
            "full_attention": full,
            "sliding_attention": {"rope_type": "default", "rope_theta": theta},
        },
        "layer_types": [
            "sliding_attention" if (i + 1) % _GEMMA_FULL_EVERY else "full_attention"
            for i in range(num_layers)
        ],
        "query_pre_attn_scalar": config["head_dim"],
    }


def _special_ids(header: GgufHeader) -> dict[str, object]:
    ids = {
        "bos_token_id": header.number("tokenizer.ggml.bos_token_id"),
        "eos_token_id": header.number("tokenizer.ggml.eos_token_id"),
        "pad_token_id": header.number("tokenizer.ggml.padding_token_id"),
    }
    return {name: number for name, number in ids.items() if number is not None}


def _targets(family: _Family, config: Mapping[str, object]) -> dict[str, TensorTarget]:
    num_layers = config["num_hidden_layers"]
    assert isinstance(num_layers, int), num_layers
    heads = {"attn_q.weight": "num_attention_heads", "attn_k.weight": "num_key_value_heads"}
    found = {
        "token_embd.weight": TensorTarget("model.embed_tokens.weight"),
        "output_norm.weight": TensorTarget("model.norm.weight", added=family.norms_add),
    }
    if not config["tie_word_embeddings"]:
        found["output.weight"] = TensorTarget("lm_head.weight")
    for layer in range(num_layers):
        for ours, theirs in (_LAYER | dict(family.of_layer)).items():
            count = config[heads[ours]] if family.has_paired_rows and ours in heads else 0
            assert isinstance(count, int), count
            added = family.norms_add if ours.endswith("norm.weight") else 0.0
            target = TensorTarget(f"model.layers.{layer}.{theirs}", count, added)
            found[f"blk.{layer}.{ours}"] = target
    return found


def _check_tensors(header: GgufHeader, targets: Mapping[str, TensorTarget]) -> None:
    there = {tensor.name for tensor in header.tensors}
    if missing := sorted(targets.keys() - there):
        raise TrainingError(
            f"{header.path}: it has no {missing[0]}, which a {header.architecture} needs "
            f"({len(missing)} are missing); fetch it again"
        )
    if more := sorted(there - targets.keys()):
        raise TrainingError(
            f"{header.path}: it has {', '.join(more[:_FEW])}, which a {header.architecture} has no "
            f"place for here, so it would be another model; {_TAKE_FOLDER}"
        )
