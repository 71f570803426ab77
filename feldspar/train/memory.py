"""What training holds in memory at its peak, from the base's sizes alone. No torch here.

Counted from what autograd keeps of a decoder layer with RMS norms, rotary attention and a gated MLP
(Llama, Mistral, Granite, Qwen3); benchmarks/memory.py sets it beside what is measured.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from feldspar.config import ArchitectureConfig, StudentConfig, TrainConfig
from feldspar.records import MemoryEstimate

_FLOAT = 4
_HALF = 2
_LOGITS_BYTES = 3 * (1 << 26)
"""A chunk of logits, its log-softmax and its gradient: student/head.py takes 64 MB of each."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Method:
    """How a model is trained, as far as memory goes."""

    compute: str = "bfloat16"
    """`float32`, or `bfloat16` with float32 weights (autocast)."""
    state_bytes: int = _FLOAT
    """Of each of AdamW's two moments, per parameter."""
    recompute: bool = False
    """Keep each layer's input alone and compute the rest again in the backward pass."""
    lora_rank: int = 0
    """0 trains all weights."""
    num_shards: int = 1
    """Devices that weights, gradients and optimizer states are spread over."""

    @property
    def options(self) -> tuple[str, ...]:
        named = {
            f"LoRA rank {self.lora_rank}": self.lora_rank > 0,
            f"sharded over {self.num_shards}": self.num_shards > 1,
            "bf16 states": self.state_bytes == _HALF,
            "recompute": self.recompute,
        }
        return tuple(name for name, is_on in named.items() if is_on)


def method_of(train: TrainConfig, student: StudentConfig, has_gpu: bool) -> Method:
    """The recipe's own way."""
    is_half = student.dtype == "bfloat16" or (student.dtype == "auto" and has_gpu)
    return Method(compute="bfloat16" if is_half else "float32")


def methods(recipe: Method, num_devices: int) -> list[Method]:
    """The recipe's own way, then others that take less, from the least change to the most."""
    found = [recipe]
    for shards in (1, num_devices):
        for rank in (0, 16):
            for state in (_FLOAT, _HALF):
                for recompute in (False, True):
                    method = replace(
                        recipe,
                        num_shards=shards,
                        lora_rank=rank,
                        state_bytes=state,
                        recompute=recompute,
                    )
                    # An adapter's optimizer states are nothing, and need no saving.
                    if method not in found and not (rank and (state == _HALF or shards > 1)):
                        found.append(method)
    return found


def estimate_memory(
    sizes: ArchitectureConfig,
    method: Method,
    num_tokens: int,
    num_trained: int | None = None,
) -> MemoryEstimate:
    """Peak bytes on one device with `num_tokens` padded tokens in a micro-batch, of which
    `num_trained` are trained; None: all."""
    num_parameters = sizes.num_parameters
    num_updated = _adapter_parameters(sizes, method.lora_rank) or num_parameters
    held = num_parameters + (num_updated if method.lora_rank else 0)
    kept, working = _layer_bytes(sizes, method)
    copies = 0 if method.compute == "float32" else _HALF * sizes.num_layers * sizes.layer_matrices
    gathered = 0
    if method.num_shards > 1:
        gathered = 2 * _FLOAT * max(sizes.layer_matrices, sizes.vocabulary * sizes.hidden_size)
        copies = copies // sizes.num_layers
    activations = num_tokens * (kept * sizes.num_layers + working + 2 * _FLOAT * sizes.hidden_size)
    trained = num_tokens if num_trained is None else num_trained
    return MemoryEstimate(
        options=method.options,
        weights=_FLOAT * held // method.num_shards,
        gradients=_FLOAT * num_updated // method.num_shards,
        optimizer=2 * method.state_bytes * num_updated // method.num_shards,
        activations=activations + copies + gathered + _head_bytes(sizes, trained),
    )


def _layer_bytes(sizes: ArchitectureConfig, method: Method) -> tuple[int, int]:
    """Bytes per token: what each layer keeps for the backward pass, what one layer works with."""
    hidden, query, key = sizes.hidden_size, sizes.query_size, sizes.key_size
    if method.compute == "float32":
        # Residual, normalised, scaled, twice; queries, keys, values, attention; the MLP's four.
        layer = _FLOAT * (6 * hidden + 2 * query + 2 * key + 4 * sizes.intermediate_size)
        layer += 2 * _FLOAT * (query + key) if sizes.qk_norm else 0
    else:
        # Residuals and norms stay in float32; each linear map keeps a bf16 copy of its own input.
        layer = 4 * _FLOAT * hidden + 5 * _HALF * hidden
        layer += _HALF * (2 * query + 2 * key + 4 * sizes.intermediate_size)
        layer += (_FLOAT + _HALF) * (query + key) if sizes.qk_norm else 0
    layer += _FLOAT * sizes.num_heads
    return (_FLOAT * hidden, layer) if method.recompute else (layer, 0)


def _head_bytes(sizes: ArchitectureConfig, num_trained: int) -> int:
    """The head's gradient and a chunk of logits, before they reach the layers."""
    logits = min(_LOGITS_BYTES, 3 * _FLOAT * num_trained * sizes.vocabulary)
    hidden = 2 * _FLOAT * num_trained * sizes.hidden_size
    return _FLOAT * sizes.vocabulary * sizes.hidden_size + logits + hidden


def _adapter_parameters(sizes: ArchitectureConfig, rank: int) -> int:
    hidden, inner = sizes.hidden_size, sizes.intermediate_size
    attention = 2 * (hidden + sizes.query_size) + 2 * (hidden + sizes.key_size)
    return rank * sizes.num_layers * (attention + 3 * (hidden + inner))
