"""What training holds in memory at its peak, from the base's sizes alone. Loads no torch.

Counted from what autograd keeps of a decoder layer with RMS norms, rotary attention and a gated MLP
(Llama, Mistral, Granite, Qwen3); benchmarks/memory.py compares it with what is measured.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

from feldspar.config import ArchitectureConfig, LoraConfig, StudentConfig, TrainConfig
from feldspar.records import MemoryEstimate

_FLOAT = 4
_HALF = 2
_LOGITS_BYTES = 3 * (1 << 24)
"""A chunk of logits and what comes of it: student/lm_head.py takes 16 MB of each."""
_CPU_TOKENS = 4096
"""student/training/forward.py takes no more at once on a CPU."""
USABLE_SHARE = 0.94
"""Of a GPU's memory: the rest is the driver's, kernels' workspaces and holes between tensors."""
_GATHERED_SHARE = 0.6
"""Of a GPU's memory: up to here weights and gradients stay whole through a step."""

PROCESS_BYTES = 420 << 20
"""Python with torch and all that training loads, before there is a model: measured on Linux."""
_COUNTING_ERROR = 0.10
"""benchmarks/memory.py finds less."""

Shard = Literal["step", "layer"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a model is trained, as far as memory goes."""

    compute: Literal["float32", "bfloat16"] = "bfloat16"
    """bfloat16 is on a copy of the float32 weights, or on what is gathered of them."""
    states: Literal["float32", "bfloat16"] = "float32"
    """Of AdamW's two moments."""
    activation_checkpointing: bool = False
    """Keep each layer's input alone and compute the rest again in the backward pass."""
    lora_rank: int = 0
    """0 trains all weights."""
    trains_ends: bool = True
    """Beside adapters, embeddings and head, for a template's own tokens."""
    shard: Shard | Literal[""] = ""
    """How several processes share weights, gradients and moments; empty for one."""
    num_shards: int = 1

    @property
    def width(self) -> int:
        """Bytes of a number that is computed with."""
        return _FLOAT if self.compute == "float32" else _HALF

    @property
    def options(self) -> tuple[str, ...]:
        named = {
            f"LoRA rank {self.lora_rank}": self.lora_rank > 0,
            f"shard {self.shard}": self.num_shards > 1,
            "bf16 states": self.states == "bfloat16",
            "recompute": self.activation_checkpointing,
        }
        return tuple(name for name, is_on in named.items() if is_on)


def estimate_memory(
    sizes: ArchitectureConfig, method: Method, num_tokens: int, num_trained: int | None = None
) -> MemoryEstimate:
    """Peak bytes on one device with `num_tokens` in a micro-batch, of which `num_trained` are
    trained; None: all."""
    ends = _num_ends(sizes)
    held, updated = _num_held_and_updated(sizes, method.lora_rank, method.trains_ends)
    state = 2 * (_FLOAT if method.states == "float32" else _HALF)
    is_whole = method.shard == "step"
    kept, working = _layer_bytes(sizes, method)
    activations = num_tokens * (kept * sizes.num_layers + working + 2 * _FLOAT * sizes.hidden_size)
    trained = num_tokens if num_trained is None else num_trained
    return MemoryEstimate(
        options=method.options,
        weights=_FLOAT * held // method.num_shards
        + is_whole * (method.width * (held - ends) + _FLOAT * ends),
        gradients=_FLOAT * updated // method.num_shards + is_whole * _FLOAT * updated,
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
    if train.recompute == "auto" and memory_bytes is not None:
        own = replace(own, activation_checkpointing=not fits(sizes, own, num_tokens, memory_bytes))
    adapted = student.model_copy(update={"lora": student.lora or LoraConfig()})
    low_rank = replace(_own_way(sizes, train, adapted, num_devices, memory_bytes), states="float32")
    turned = replace(low_rank, activation_checkpointing=not low_rank.activation_checkpointing)
    methods = [*_methods(own), low_rank, turned]
    ways = [estimate_memory(sizes, method, num_tokens) for method in methods]
    if memory_bytes is None:
        ways = [way._replace(process=PROCESS_BYTES) for way in ways]
    return list({way.options: way for way in ways}.values())


def fits(sizes: ArchitectureConfig, method: Method, num_tokens: int, memory_bytes: int) -> bool:
    """Whether a GPU of so much memory is sure to hold it. One process tries what this says, of
    several none may fail: for them it must hold what was counted and the error of counting."""
    needed = estimate_memory(sizes, method, num_tokens).total
    error = _COUNTING_ERROR if method.num_shards > 1 else 0.0
    return (1 + error) * needed <= USABLE_SHARE * memory_bytes


def shard_that_fits(
    num_held: int, num_updated: int, num: int, width: int, memory_bytes: int
) -> Shard:
    """`step` where whole weights and gradients fit along with a part of everything.

    `num_updated` of all `num_held` parameters are trained; `width`: bytes of a number that is
    computed with.
    """
    held = (width + _FLOAT / num) * num_held
    needed = held + (_FLOAT + 3 * _FLOAT / num) * num_updated
    return "step" if needed < _GATHERED_SHARE * memory_bytes else "layer"


def _own_way(
    sizes: ArchitectureConfig,
    train: TrainConfig,
    student: StudentConfig,
    num_devices: int,
    memory_bytes: int | None,
) -> Method:
    is_half = student.dtype == "bfloat16"
    is_half |= student.dtype == "auto" and memory_bytes is not None
    rank, trains_ends = student.lora.rank if student.lora else 0, student.template != "own"
    shard: Shard = "step" if train.shard == "auto" else train.shard
    if train.shard == "auto" and memory_bytes is not None:
        width = _HALF if is_half else _FLOAT
        counted = _num_held_and_updated(sizes, rank, trains_ends)
        shard = shard_that_fits(*counted, num_devices, width, memory_bytes)
    return Method(
        compute="bfloat16" if is_half else "float32",
        states=train.optimizer_states,
        activation_checkpointing=train.recompute == "always",
        lora_rank=rank,
        trains_ends=trains_ends,
        shard=shard if num_devices > 1 else "",
        num_shards=num_devices,
    )


def _methods(own: Method) -> Iterator[Method]:
    yield own
    for is_on in (False, True):
        yield replace(own, activation_checkpointing=is_on)
    for shard in ("step", "layer") if own.num_shards > 1 else (own.shard,):
        for states in ("float32", "bfloat16"):
            for is_on in (False, True):
                yield replace(own, shard=shard, states=states, activation_checkpointing=is_on)


def _layer_bytes(sizes: ArchitectureConfig, method: Method) -> tuple[int, int]:
    """Bytes per token: what each layer keeps for the backward pass, what one layer works with."""
    hidden, query, key = sizes.hidden_size, sizes.query_size, sizes.key_size
    width = method.width
    # Queries, keys, values and what attention gives; the MLP's gate, its activation, up, product.
    layer = width * (2 * query + 2 * key + 4 * sizes.intermediate_size)
    # Twice: a norm's input in float32, what it divides to, and what it scales to.
    layer += 2 * (_FLOAT + 2 * width) * hidden
    layer += (_FLOAT + width) * (query + key) if sizes.qk_norm else 0
    layer += _FLOAT * sizes.num_heads
    return (width * hidden, layer) if method.activation_checkpointing else (layer, 0)


def _copied_bytes(sizes: ArchitectureConfig, method: Method) -> int:
    """The weights in bf16, and what is gathered of them to be computed."""
    embeddings = sizes.vocabulary * sizes.hidden_size
    if method.shard == "layer":
        # Embeddings and head through a micro-batch, with their gradients; of layers the one that is
        # computed and the next.
        ends = 2 * _FLOAT * _num_ends(sizes)
        return ends + (2 * method.width + _FLOAT) * sizes.layer_matrices
    if method.compute == "float32":
        return 0
    if method.shard == "step":
        return _HALF * embeddings
    return _HALF * (sizes.num_parameters - (0 if sizes.tied else embeddings))


def _head_bytes(sizes: ArchitectureConfig, method: Method, num_trained: int) -> int:
    """The head's gradient and a chunk of logits, before they reach the layers."""
    logits = min(_LOGITS_BYTES, 3 * _FLOAT * num_trained * sizes.vocabulary)
    hidden = 2 * _FLOAT * num_trained * sizes.hidden_size
    gradient = _FLOAT + (0 if method.compute == "float32" else _HALF)
    return gradient * sizes.vocabulary * sizes.hidden_size + logits + hidden


def _num_ends(sizes: ArchitectureConfig) -> int:
    """Parameters of embeddings and head."""
    return sizes.vocabulary * sizes.hidden_size * (1 if sizes.tied else 2)


def num_trained(sizes: ArchitectureConfig, student: StudentConfig) -> int:
    """Parameters that are trained."""
    rank = student.lora.rank if student.lora else 0
    return _num_held_and_updated(sizes, rank, student.template != "own")[1]


def _num_held_and_updated(
    sizes: ArchitectureConfig, lora_rank: int, trains_ends: bool
) -> tuple[int, int]:
    """All parameters, and those that are trained."""
    adapters = _adapter_parameters(sizes, lora_rank)
    held = sizes.num_parameters + adapters
    return held, adapters + trains_ends * _num_ends(sizes) if adapters else held


def _adapter_parameters(sizes: ArchitectureConfig, rank: int) -> int:
    hidden, inner = sizes.hidden_size, sizes.intermediate_size
    attention = 2 * (hidden + sizes.query_size) + 2 * (hidden + sizes.key_size)
    return rank * sizes.num_layers * (attention + 3 * (hidden + inner))
