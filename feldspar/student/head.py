"""The output head at chosen positions only, with its cross-entropy in float32, in chunks.

Shapes: N chosen positions, H hidden size, V vocabulary, B rows, T tokens.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional

from feldspar.errors import TrainingError

_CHUNK_ELEMENTS = 1 << 22
"""Logits held at once: 16 MB in float32."""


class Head(NamedTuple):
    """What a causal model does to its last hidden states."""

    weight_VH: Tensor
    bias_V: Tensor | None
    scale: float
    softcap: float | None

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Logits [N, V] in float32."""
        return _logits(hidden_NH, self.weight_VH, self.bias_V, self.scale, self.softcap)

    @property
    def chunk_rows(self) -> int:
        return max(1, _CHUNK_ELEMENTS // self.weight_VH.shape[0])


def head_of(model: Any) -> Head:
    """The head of a transformers causal language model."""
    layer = model.get_output_embeddings()
    config = model.config
    scale = 1.0 / float(getattr(config, "logits_scaling", None) or 1.0)
    scale *= float(getattr(config, "logit_scale", None) or 1.0)
    return Head(layer.weight, layer.bias, scale, getattr(config, "final_logit_softcapping", None))


def check_head(model: Any) -> None:
    """Raise TrainingError where `head_of` is not what this model computes."""
    device = model.device
    ids_BT = torch.arange(1, 9, device=device)[None] % model.config.get_text_config().vocab_size
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        ours = head_of(model).logits(hidden[0])
        theirs = model(input_ids=ids_BT, use_cache=False).logits[0].float()
    if not torch.allclose(ours, theirs, rtol=1e-3, atol=1e-3):
        raise TrainingError(
            f"{type(model).__name__} does something to its logits that feldspar does not know, so "
            "its loss would be wrong; use a model of another family"
        )


def cross_entropy(head: Head, hidden_NH: Tensor, targets_N: Tensor, scale: float) -> Tensor:
    """Losses [N] in nats, without a gradient; `hidden_NH` and the head get that of `scale * sum`.

    The gradient is formed chunk by chunk in the forward pass, so that logits [N, V] never exist
    whole. Call `backward()` on the sum of the result.
    """
    losses: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head.weight_VH, head.bias_V, targets_N, scale, head
    )
    return losses


def log_probs(head: Head, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
    """Log-probabilities [N] of the targets, in nats."""
    with torch.no_grad():
        result = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_NH.device)
        for start in range(0, len(targets_N), head.chunk_rows):
            chunk = slice(start, start + head.chunk_rows)
            logits = head.logits(hidden_NH[chunk])
            result[chunk] = -functional.cross_entropy(logits, targets_N[chunk], reduction="none")
    return result


class _CrossEntropy(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        scale: float,
        head: Head,
    ) -> Tensor:
        needs = ctx.needs_input_grad
        losses = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_NH.device)
        grad_hidden = torch.empty_like(hidden_NH)
        grad_weight = torch.zeros_like(weight_VH, dtype=torch.float32) if needs[1] else None
        grad_bias = None
        if bias_V is not None and needs[2]:
            grad_bias = torch.zeros_like(bias_V, dtype=torch.float32)
        for start in range(0, len(targets_N), head.chunk_rows):
            chunk = slice(start, start + head.chunk_rows)
            hidden = hidden_NH[chunk]
            losses[chunk], slopes = _losses_and_slopes(head, hidden, targets_N[chunk])
            slopes = slopes.mul_(scale).to(hidden.dtype)
            torch.mm(slopes, weight_VH, out=grad_hidden[chunk])
            if grad_weight is not None:
                _add_product(grad_weight, slopes, hidden)
            if grad_bias is not None:
                grad_bias += slopes.sum(0, dtype=torch.float32)
        weights = ((grad_weight, weight_VH), (grad_bias, bias_V))
        ctx.save_for_backward(
            grad_hidden, *(None if g is None or w is None else g.to(w.dtype) for g, w in weights)
        )
        return losses

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _losses_and_slopes(head: Head, hidden: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """Losses [n], and their derivative [n, V] by the raw logits, in float32."""
    raw = functional.linear(hidden, head.weight_VH, head.bias_V).float()
    logits, bent = raw, None
    if head.scale != 1.0:
        logits = logits.mul_(head.scale)
    if head.softcap is not None:
        bent = torch.tanh(logits / head.softcap)
        logits = bent * head.softcap
    wanted = logits.gather(1, targets[:, None])
    top = logits.amax(dim=1)
    slopes = torch.softmax(logits, dim=1)
    # The likeliest token's probability is never too small for a logarithm.
    losses = top - slopes.amax(dim=1).log() - wanted[:, 0]
    slopes.scatter_add_(1, targets[:, None], torch.full_like(wanted, -1.0))
    if bent is not None:
        slopes *= 1 - bent * bent
    if head.scale != 1.0:
        slopes *= head.scale
    return losses, slopes


def _add_product(total_VH: Tensor, slopes: Tensor, hidden: Tensor) -> None:
    """total += slopes^T hidden."""
    if slopes.dtype == torch.float32:
        total_VH.addmm_(slopes.T, hidden)
    else:
        total_VH += slopes.T @ hidden


def _logits(
    hidden: Tensor, weight: Tensor, bias: Tensor | None, scale: float, softcap: float | None
) -> Tensor:
    logits = functional.linear(hidden, weight, bias).float()
    if scale != 1.0:
        logits = logits * scale
    return logits if softcap is None else softcap * torch.tanh(logits / softcap)
