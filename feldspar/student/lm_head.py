"""The output head at chosen positions only, with its cross-entropy in float32, in chunks.

Logits are by far the largest tensors of a small model: 4,096 positions of a vocabulary of 128,000
take 2 GB in float32, and their gradient as much again. So they never exist whole. Training goes by
rows, forming the gradient of a chunk as soon as its logits are there (`cross_entropy`); scoring on
a CPU goes by parts of the vocabulary, with a running maximum and sum (`score_targets`).

Shapes: N chosen positions, H hidden size, V vocabulary, B rows, T tokens.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from feldspar.errors import TrainingError
from feldspar.student.answering_weights import blocked_product

_CHUNK_ELEMENTS = 1 << 24
"""Logits held at once: 64 MB in float32."""
_SLOPE_ELEMENTS = 1 << 23
"""The same where a gradient is formed: each is read three times."""
_SCORED_ELEMENTS = 1 << 25
"""Logits held at once where no gradient is wanted; few rows make the matrix product slower."""
_SCORED_ROWS, _SCORED_TOKENS = 1 << 12, 1 << 10
"""The same on a CPU, where a narrow product runs twice as fast as one over a whole vocabulary."""
_MATMUL_ROWS = 256
_CACHED_ELEMENTS = 1 << 18
"""Logits reduced at once on a CPU: 1 MB in float32."""


class Head(NamedTuple):
    """What a causal model does to its last hidden states."""

    weight_VH: Tensor
    bias_V: Tensor | None
    scale: float
    softcap: float | None
    product: Callable[[Tensor], Tensor] | None = None
    """The matrix product with its bias where the layer has one of its own."""
    trained_VH: Tensor | None = None
    """The float32 weights that `weight_VH` is a low copy of, if their gradient is to be added to
    at once: handed on through autograd, that of a vocabulary would be rounded and copied twice."""

    def logits(self, hidden_NH: Tensor) -> Tensor:
        """Logits [N, V] in float32."""
        multiply = self.product or partial(
            functional.linear, weight=self.weight_VH, bias=self.bias_V
        )
        logits_NV = multiply(hidden_NH).float()
        if self.scale != 1.0:
            logits_NV = logits_NV * self.scale
        if self.softcap is None:
            return logits_NV
        return self.softcap * torch.tanh(logits_NV / self.softcap)

    def finish_(self, logits_NV: Tensor, tokens: slice) -> Tensor:
        """What stands between the matrix product and the logits of `tokens`, in place."""
        if self.bias_V is not None:
            logits_NV.add_(self.bias_V[tokens])
        if self.scale != 1.0:
            logits_NV.mul_(self.scale)
        if self.softcap is not None:
            logits_NV.div_(self.softcap).tanh_().mul_(self.softcap)
        return logits_NV

    @property
    def chunk_rows(self) -> int:
        return max(1, _CHUNK_ELEMENTS // self.weight_VH.shape[0])


def head_of(model: Any) -> Head:
    """The head of a transformers causal language model."""
    layer = model.get_output_embeddings()
    config = model.config.get_text_config()
    scale = 1.0 / float(getattr(config, "logits_scaling", None) or 1.0)
    scale *= float(getattr(config, "logit_scale", None) or 1.0)
    softcap = getattr(config, "final_logit_softcapping", None)
    return Head(layer.weight, layer.bias, scale, softcap, blocked_product(layer))


def check_head(model: Any) -> None:
    """Raise TrainingError where `head_of` is not what this model computes."""
    device = model.device
    ids_BT = torch.arange(1, 9, device=device)[None] % model.config.get_text_config().vocab_size
    with torch.no_grad():
        hidden = model.base_model(input_ids=ids_BT, use_cache=False).last_hidden_state
        ours = head_of(model).logits(hidden[0])
        theirs = model(input_ids=ids_BT, use_cache=False).logits[0].float()
    # In half precision the model rounds where this module does not.
    close = 1e-3 if model.dtype == torch.float32 else 5e-2
    if not torch.allclose(ours, theirs, rtol=close, atol=close):
        raise TrainingError(
            f"{type(model).__name__} does something to its logits that feldspar does not know, so "
            "its loss would be wrong; use a model of another family"
        )


def cross_entropy(head: Head, hidden_NH: Tensor, targets_N: Tensor, scale: float) -> Tensor:
    """Losses [N] in nats, without a gradient; `hidden_NH` and the head get that of `scale * sum`.

    Computed in the dtype of `hidden_NH`. The gradient is formed chunk by chunk in the forward pass,
    from logits that are there anyway: `backward` hands it on and multiplies by nothing. So call
    `backward()` on the plain sum of the result, and give a factor as `scale`. With
    `head.trained_VH` the gradient of its weights is added there, in the forward pass.
    """
    losses: Tensor = _CrossEntropy.apply(  # type: ignore[no-untyped-call]
        hidden_NH, head.weight_VH, head.bias_V, targets_N, scale, head
    )
    return losses


class TargetScores(NamedTuple):
    """Of each target: its log-probability in nats, and whether no token was likelier."""

    log_probs_N: Tensor
    is_best_N: Tensor


def score_targets(head: Head, hidden_NH: Tensor, targets_N: Tensor) -> TargetScores:
    """How likely the targets are after their hidden states, in float32."""
    num_rows, num_tokens = len(targets_N), head.weight_VH.shape[0]
    weight_VH, hidden_NH = _computed(head.weight_VH), _computed(hidden_NH)
    log_probs_N = torch.empty(num_rows, dtype=torch.float32, device=hidden_NH.device)
    is_best_N = torch.empty(num_rows, dtype=torch.bool, device=hidden_NH.device)
    is_cpu = hidden_NH.device.type == "cpu"
    at_once = _SCORED_ROWS if is_cpu else max(_MATMUL_ROWS, _SCORED_ELEMENTS // num_tokens)
    with torch.no_grad():
        for start in range(0, num_rows, at_once):
            rows = slice(start, min(start + at_once, num_rows))
            width = num_tokens
            if is_cpu:
                # A block of the weights stays in the cache for all rows; few rows take wider ones.
                width = max(_SCORED_TOKENS, _CACHED_ELEMENTS // (rows.stop - start))
            found = _score_rows(head, hidden_NH[rows], weight_VH, targets_N[rows], width)
            log_probs_N[rows], is_best_N[rows] = found
    return TargetScores(log_probs_N, is_best_N)


def _score_rows(
    head: Head, hidden_NH: Tensor, weight_VH: Tensor, targets_N: Tensor, width: int
) -> TargetScores:
    """The same by `width` tokens of the vocabulary at a time.

    Online softmax (Milakov and Gimelshein 2018): with m the highest logit so far and s the sum of
    exp(logit - m), a higher m' rescales the sum: s' = s * exp(m - m') + new terms. In the end
    log p(target) = logit(target) - m - log s.
    """
    num_rows, num_tokens = len(hidden_NH), len(weight_VH)
    width = min(width, num_tokens)
    reduced = max(1, _CACHED_ELEMENTS // width) if hidden_NH.device.type == "cpu" else num_rows
    raw = hidden_NH.new_empty((num_rows, width))
    buffer = raw.new_empty((min(reduced, num_rows), width), dtype=torch.float32)
    highest_N1 = buffer.new_full((num_rows, 1), float("-inf"))
    sums_N1 = torch.zeros_like(highest_N1)
    chosen_N1 = torch.zeros_like(highest_N1)
    for start in range(0, num_tokens, width):
        tokens = slice(start, min(start + width, num_tokens))
        block = raw[:, : tokens.stop - start]
        torch.mm(hidden_NH, weight_VH[tokens].T, out=block)
        for first in range(0, num_rows, reduced):
            rows = slice(first, first + reduced)
            part = block[rows]
            logits = head.finish_(buffer[: len(part), : part.shape[1]].copy_(part), tokens)
            # A target is in one block alone: elsewhere what is gathered is thrown away.
            within = targets_N[rows, None] - start
            is_inside = (within >= 0) & (within < part.shape[1])
            found = logits.gather(1, within.clamp(0, part.shape[1] - 1))
            chosen_N1[rows] = torch.where(is_inside, found, chosen_N1[rows])
            before = highest_N1[rows]
            highest = torch.maximum(before, logits.amax(dim=-1, keepdim=True))
            sums = logits.sub_(highest).exp_().sum(dim=-1, keepdim=True)
            sums_N1[rows] = sums.addcmul_(sums_N1[rows], (before - highest).exp_())
            highest_N1[rows] = highest
    log_probs_N1 = chosen_N1 - highest_N1 - sums_N1.log()
    return TargetScores(log_probs_N1[:, 0], (chosen_N1 >= highest_N1)[:, 0])


def target_log_probs(head: Head, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
    """Log-probabilities [N] of the targets in nats, for any loss over them: chunks of logits are
    computed again for the gradient."""
    chunks = zip(*(torch.split(x, head.chunk_rows) for x in (hidden_NH, targets_N)), strict=True)
    return torch.cat(
        [checkpoint(_log_probs, head, *chunk, use_reentrant=False) for chunk in chunks]
    )


def _log_probs(head: Head, hidden_NH: Tensor, targets_N: Tensor) -> Tensor:
    return -functional.cross_entropy(head.logits(hidden_NH), targets_N, reduction="none")


def _computed(tensor: Tensor) -> Tensor:
    """In the type that autocast computes in, where it is on: once, and not for every chunk."""
    kind = tensor.device.type
    return tensor.to(torch.get_autocast_dtype(kind)) if torch.is_autocast_enabled(kind) else tensor


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
        weight = weight_VH.to(hidden_NH.dtype)
        bias = None if bias_V is None else bias_V.to(weight.dtype)
        losses = torch.empty(len(targets_N), dtype=torch.float32, device=hidden_NH.device)
        grad_hidden = torch.empty_like(hidden_NH)
        grad_weight = _gradient_of(head.trained_VH, weight_VH) if needs[1] else None
        grad_bias = None
        if bias_V is not None and needs[2]:
            grad_bias = torch.zeros_like(bias_V, dtype=torch.float32)
        at_once = max(_MATMUL_ROWS, _SLOPE_ELEMENTS // len(weight))
        for start in range(0, len(targets_N), at_once):
            chunk = slice(start, start + at_once)
            hidden = hidden_NH[chunk]
            raw = functional.linear(hidden, weight, bias)
            losses[chunk] = _to_slopes(head, raw, targets_N[chunk], scale)
            torch.mm(raw, weight, out=grad_hidden[chunk])
            if grad_weight is not None:
                _add_product(grad_weight, raw, hidden)
            if grad_bias is not None:
                grad_bias += raw.sum(0, dtype=torch.float32)
        if head.trained_VH is not None:
            grad_weight = None
        ends = ((grad_hidden, hidden_NH), (grad_weight, weight_VH), (grad_bias, bias_V))
        ctx.save_for_backward(*(None if g is None or t is None else g.to(t.dtype) for g, t in ends))
        return losses

    @staticmethod
    def backward(ctx: Any, *_: Tensor) -> Any:
        grad_hidden, grad_weight, grad_bias = ctx.saved_tensors
        return grad_hidden, grad_weight, grad_bias, None, None, None


def _gradient_of(trained_VH: Tensor | None, weight_VH: Tensor) -> Tensor:
    """What a gradient in float32 is added to: that of the trained weights, or a new one."""
    if trained_VH is None:
        return torch.zeros_like(weight_VH, dtype=torch.float32)
    if trained_VH.grad is None:
        trained_VH.grad = torch.zeros_like(trained_VH)
    return trained_VH.grad


def _to_slopes(head: Head, raw_NV: Tensor, targets_N: Tensor, scale: float) -> Tensor:
    """Losses [N]; the gradient of `scale` times their sum takes the place of the raw logits.

    Of cross-entropy by a logit it is softmax - 1 at the target, softmax elsewhere; `bend` is the
    slope of logits by raw ones where they are soft-capped.
    """
    num_rows, num_tokens = raw_NV.shape
    # On a CPU, rows that stay in its cache.
    reduced = num_rows if raw_NV.is_cuda else max(1, _CACHED_ELEMENTS // num_tokens)
    losses_N = torch.empty(num_rows, dtype=torch.float32, device=raw_NV.device)
    for start in range(0, num_rows, reduced):
        part = slice(start, start + reduced)
        logits, bend = _bent(head, raw_NV[part].float())
        wanted = logits.gather(1, targets_N[part, None])
        highest = logits.amax(dim=1)
        slopes = torch.softmax(logits, dim=1)
        # The likeliest token's probability is never too small for a logarithm.
        losses_N[part] = highest - slopes.amax(dim=1).log() - wanted[:, 0]
        slopes.scatter_add_(1, targets_N[part, None], torch.full_like(wanted, -1.0))
        if bend is not None:
            slopes *= bend
        raw_NV[part] = slopes.mul_(scale * head.scale)
    return losses_N


def _bent(head: Head, raw: Tensor) -> tuple[Tensor, Tensor | None]:
    """Logits, and their slope by the scaled raw ones where that is not one: of c * tanh(x / c) it
    is 1 - tanh(x / c)^2."""
    scaled = raw if head.scale == 1.0 else raw * head.scale
    if head.softcap is None:
        return scaled, None
    share = torch.tanh(scaled / head.softcap)
    return share * head.softcap, 1 - share * share


def _add_product(total_VH: Tensor, slopes: Tensor, hidden: Tensor) -> None:
    """total += slopes^T hidden."""
    if slopes.dtype == torch.float32:
        total_VH.addmm_(slopes.T, hidden)
    else:
        total_VH += slopes.T @ hidden
