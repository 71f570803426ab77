"""What training holds in memory at its peak, from the base's sizes alone. No torch here.

Counted from what autograd keeps of a decoder layer with RMS norms, rotary attention and a gated MLP
(Llama, Mistral, Granite, Qwen3); benchmarks/memory.py sets it beside what is measured.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from feldspar.config import ArchitectureConfig, StudentConfig, TrainConfig
from feldspar.records import MemoryEstimate

_FLOAT = 4
_HALF = 2
_LOGITS_BYTES = 3 * (1 << 24)
"""A chunk of logits and what comes of it: student/head.py takes 16 MB of each."""
_CPU_TOKENS = 4096
"""student/compute.py takes no more at once on a CPU."""
_USABLE_SHARE, _GATHERED_SHARE = 0.94, 0.6
"""Of a GPU: where `recompute = "auto"` and `shard = "auto"` change their way (student/)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a model is trained, as far as memory goes."""

    compute: Literal["float32", "bfloat16"] = "bfloat16"
    """bfloat16 is on a copy of the float32 weights."""
    states: Literal["float32", "bfloat16"] = "float32"
    """Of AdamW's two moments."""
    recompute: bool = False
    """Keep each layer's input alone and compute the rest again in the backward pass."""
    lora_rank: int = 0
    """0 trains all weights."""
    shard: Literal["", "step", "layer"] = ""
    """How several processes share weights, gradients and moments; empty for one."""
    num_shards: int = 1

    @property
    def options(self) -> tuple[str, ...]:
        named = {
            f"LoRA rank {self.lora_rank}": self.lora_rank > 0,
            f"shard {self.shard}": self.num_shards > 1,
            "bf16 states": self.states == "bfloat16",
            "recompute": self.recompute,
        }
        return tuple(name for name, is_on in named.items() if is_on)


def estimate_memory(
    sizes: ArchitectureConfig, method: Method, num_tokens: int, num_trained: int | None = None
) -> MemoryEstimate:
    """Peak bytes on one device with `num_tokens` in a micro-batch, of which `num_trained` are
    trained; None: all."""
    ends = sizes.vocabulary * sizes.hidden_size * (1 if sizes.tied else 2)
    adapters = _adapter_parameters(sizes, method.lora_rank)
    held = sizes.num_parameters + adapters
    # Beside adapters, embeddings and head are trained for the template's own tokens.
    updated = adapters + ends if adapters else held
    state = 2 * (_FLOAT if method.states == "float32" else _HALF)
    whole = _FLOAT if method.shard == "step" else 0
    kept, working = _layer_bytes(sizes, method)
    activations = num_tokens * (kept * sizes.num_layers + working + 2 * _FLOAT * sizes.hidden_size)
    trained = num_tokens if num_trained is None else num_trained
    return MemoryEstimate(
        options=method.options,
        weights=_FLOAT * held // method.num_shards + whole * held,
        gradients=_FLOAT * updated // method.num_shards + whole * updated,
        optimizer=state * updated // method.num_shards,
        activations=activations
        + _copied_bytes(sizes, method)
        + _head_bytes(sizes, method, trained),
    )


def memory_ways(
    sizes: ArchitectureConfig,
    train: TrainConfig,
    student: StudentConfig,
    num_devices: int,
    memory_bytes: int | None,
) -> list[MemoryEstimate]:
    """The recipe's own way first, then others from the least change to the most, on one of
    `num_devices` GPUs with `memory_bytes`; None: on a CPU."""
    num_tokens = max(train.tokens_per_micro_batch, student.max_length)
    if memory_bytes is None:
        num_tokens = min(num_tokens, max(_CPU_TOKENS, student.max_length))
    own = _own_way(sizes, train, student, num_devices, memory_bytes)
    if train.recompute == "auto" and memory_bytes is not None and num_devices == 1:
        needed = estimate_memory(sizes, own, num_tokens).total
        own = replace(own, recompute=needed > _USABLE_SHARE * memory_bytes)
    ways = [estimate_memory(sizes, method, num_tokens) for method in _methods(own)]
    return list({way.options: way for way in ways}.values())


def _own_way(
    sizes: ArchitectureConfig,
    train: TrainConfig,
    student: StudentConfig,
    num_devices: int,
    memory_bytes: int | None,
) -> Method:
    is_half = student.dtype == "bfloat16"
    is_half |= student.dtype == "auto" and memory_bytes is not None
    shard = train.shard
    if shard == "auto":
        gathered = (8 + 16 / num_devices) * sizes.num_parameters
        shard = "step" if gathered < _GATHERED_SHARE * (memory_bytes or math.inf) else "layer"
    return Method(
        compute="bfloat16" if is_half else "float32",
        states=train.optimizer_states,
        recompute=train.recompute == "always",
        lora_rank=student.lora.rank if student.lora else 0,
        # Adapters are trained in one process.
        shard=shard if num_devices > 1 and not student.lora else "",
        num_shards=1 if student.lora else num_devices,
    )


def _methods(own: Method) -> Iterator[Method]:
    yield own
    for recompute in (False, True):
        yield replace(own, recompute=recompute)
    for shard in ("step", "layer") if own.num_shards > 1 else (own.shard,):
        for states in ("float32", "bfloat16"):
            for recompute in (False, True):
                yield replace(own, shard=shard, states=states, recompute=recompute)
    for recompute in (False, True):
        yield Method(compute=own.compute, lora_rank=own.lora_rank or 16, recompute=recompute)


def _layer_bytes(sizes: ArchitectureConfig, method: Method) -> tuple[int, int]:
    """Bytes per token: what each layer keeps for the backward pass, what one layer works with."""
    hidden, query, key = sizes.hidden_size, sizes.query_size, sizes.key_size
    width = _FLOAT if method.compute == "float32" else _HALF
    # Queries, keys, values and what attention gives; the MLP's gate, its activation, up, product.
    layer = width * (2 * query + 2 * key + 4 * sizes.intermediate_size)
    # Twice: a norm's input in float32, what it divides to, and what it scales to.
    layer += 2 * (_FLOAT + 2 * width) * hidden
    layer += (_FLOAT + width) * (query + key) if sizes.qk_norm else 0
    layer += _FLOAT * sizes.num_heads
    return (width * hidden, layer) if method.recompute else (layer, 0)


def _copied_bytes(sizes: ArchitectureConfig, method: Method) -> int:
    """The weights in bf16, and layers that are gathered to be computed."""
    if method.shard == "layer":
        largest = max(sizes.layer_matrices, sizes.vocabulary * sizes.hidden_size)
        return 2 * _FLOAT * largest
    if method.compute == "float32":
        return 0
    embeddings = 0 if sizes.tied else sizes.vocabulary * sizes.hidden_size
    return _HALF * (sizes.num_parameters - embeddings)


def _head_bytes(sizes: ArchitectureConfig, method: Method, num_trained: int) -> int:
    """The head's gradient and a chunk of logits, before they reach the layers."""
    logits = min(_LOGITS_BYTES, 3 * _FLOAT * num_trained * sizes.vocabulary)
    hidden = 2 * _FLOAT * num_trained * sizes.hidden_size
    gradient = _FLOAT + (0 if method.compute == "float32" else _HALF)
    return gradient * sizes.vocabulary * sizes.hidden_size + logits + hidden


def _adapter_parameters(sizes: ArchitectureConfig, rank: int) -> int:
    hidden, inner = sizes.hidden_size, sizes.intermediate_size
    attention = 2 * (hidden + sizes.query_size) + 2 * (hidden + sizes.key_size)
    return rank * sizes.num_layers * (attention + 3 * (hidden + inner))
