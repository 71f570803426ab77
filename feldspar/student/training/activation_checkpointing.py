"""Whether activations must be computed again for the backward pass: one process tries the largest
micro-batch; of several none may run out of memory alone, so they count."""

from __future__ import annotations

import logging

import numpy as np
import torch

from feldspar.student.model_sizes import read_architecture
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.forward import ForwardPass
from feldspar.student.training.memory import USABLE_SHARE, Method, fits
from feldspar.student.training.optimizer import BYTES_PER_WEIGHT, OptimizerStates

log = logging.getLogger(__name__)


def memory_of(device: torch.device) -> int | None:
    """Bytes of a GPU; None of a CPU, whose memory pages and is not asked."""
    if device.type != "cuda":
        return None
    return int(torch.cuda.get_device_properties(device).total_memory)


def needs_checkpointing(
    forward: ForwardPass, rows: TokenRows, token_budget: int, states: OptimizerStates
) -> bool:
    """Whether the micro-batch of the longest rows, with the moments to come, is too large.

    On a CPU always False. Gradients are zero afterwards.
    """
    device = forward.student.device
    memory = memory_of(device)
    if memory is None:
        return False
    trained = [p for p in forward.student.model.parameters() if p.requires_grad]
    moments = (BYTES_PER_WEIGHT[states] - 8) * sum(p.numel() for p in trained)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        for weight in trained:
            # As all micro-batches of a step but its first find them.
            weight.grad = torch.zeros_like(weight)
        _try_largest(forward, rows, token_budget)
        needed = torch.cuda.max_memory_allocated(device) + moments
    except torch.OutOfMemoryError:
        needed = memory
    for weight in trained:
        weight.grad = None
    torch.cuda.empty_cache()
    again = bool(needed > USABLE_SHARE * memory)
    log.info(
        "the largest micro-batch takes %.1f of %.1f GiB: activations are %s",
        needed / 2**30,
        memory / 2**30,
        "computed again" if again else "kept",
    )
    return again


def foresees_checkpointing(start: str, method: Method, num_tokens: int, memory: int) -> bool:
    """Whether `num_tokens` at once are too many for GPUs of `memory` bytes, counted from the sizes
    of the model in the folder `start`. Where they are not known, says so."""
    sizes = read_architecture(start)
    if sizes is None:
        log.warning(
            "%s: the memory that training takes cannot be counted for this kind of model, so "
            'activations are kept; set train.recompute = "always" if they do not fit',
            start,
        )
        return False
    return not fits(sizes, method, num_tokens, memory)


def _try_largest(forward: ForwardPass, rows: TokenRows, token_budget: int) -> None:
    lengths = rows.lengths
    longest = np.argsort(-lengths, kind="stable")[: max(1, token_budget)]
    group = forward.cutter(token_budget)(longest, lengths[longest])[0]
    with forward.ready():
        tensors = forward.to_tensors([rows.row(int(i)) for i in group])
        torch.autograd.backward(forward.losses(tensors, 1.0).sum())
