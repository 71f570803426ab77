"""Whether activations must be computed again, decided by trying the largest micro-batch."""

from __future__ import annotations

import logging

import numpy as np
import torch

from feldspar.student.batch import TokenRows
from feldspar.student.compute import Compute
from feldspar.student.optimizer import BYTES_PER_WEIGHT, OptimizerStates

log = logging.getLogger(__name__)

_USABLE_SHARE = 0.94
"""Of a GPU's memory: the rest goes to fragments."""


def needs_recompute(
    compute: Compute, rows: TokenRows, token_budget: int, states: OptimizerStates
) -> bool:
    """Whether the micro-batch of the longest rows, with the moments to come, is too large.

    On a CPU, whose memory pages and is not asked, always False. Gradients are zero afterwards.
    """
    device = compute.student.device
    if device.type != "cuda":
        return False
    memory = torch.cuda.get_device_properties(device).total_memory
    trained = [p for p in compute.student.model.parameters() if p.requires_grad]
    moments = (BYTES_PER_WEIGHT[states] - 8) * sum(p.numel() for p in trained)
    torch.cuda.reset_peak_memory_stats(device)
    try:
        _try_largest(compute, rows, token_budget)
        needed = torch.cuda.max_memory_allocated(device) + moments
    except torch.OutOfMemoryError:
        needed = memory
    for weight in trained:
        weight.grad = None
    torch.cuda.empty_cache()
    again = bool(needed > _USABLE_SHARE * memory)
    log.info(
        "the largest micro-batch takes %.1f of %.1f GiB: activations are %s",
        needed / 2**30,
        memory / 2**30,
        "computed again" if again else "kept",
    )
    return again


def _try_largest(compute: Compute, rows: TokenRows, token_budget: int) -> None:
    lengths = rows.lengths
    longest = np.argsort(-lengths, kind="stable")[: max(1, token_budget)]
    group = compute.cutter(token_budget)(longest, lengths[longest])[0]
    with compute.ready():
        laid = compute.lay([rows.row(int(i)) for i in group])
        torch.autograd.backward(compute.losses(laid, 1.0).sum())
