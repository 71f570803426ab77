"""How fast a student trains on this machine: a few micro-batches, timed. Nothing is changed."""

from __future__ import annotations

import time
from typing import NamedTuple

import numpy as np
import torch

from feldspar.config import StudentConfig
from feldspar.student.model import load_student
from feldspar.student.training.forward import ForwardPass
from feldspar.tokens.arrays import TokenRow

LEAST_MICRO_BATCHES = 2


class TrainingSpeed(NamedTuple):
    """Tokens that went forward and backward in a time."""

    tokens: float
    seconds: float


def measure_speed(
    base: str, config: StudentConfig, row_tokens: int, *, micro_batch_tokens: int, seconds: float
) -> TrainingSpeed:
    """Compute gradients of rows of `row_tokens` tokens that mean nothing, for about `seconds`.

    The optimizer's own time, a few in a hundred, is not in it. Raises TrainingError where the base
    cannot be loaded.
    """
    student = load_student(base, config)
    forward = ForwardPass(student)
    num_rows = max(1, micro_batch_tokens // max(2, row_tokens))
    ids = np.arange(max(2, row_tokens), dtype=np.int32) % student.head.weight_VH.shape[0]
    row = TokenRow(ids, np.ones(len(ids), dtype=np.bool_))
    num_done, started, spent = 0, 0.0, 0.0
    with student.computing():
        while num_done <= LEAST_MICRO_BATCHES or spent < seconds:
            # The first one warms up.
            started = time.monotonic() if num_done == 0 else started
            with forward.ready():
                tensors = forward.to_tensors([row] * num_rows)
                torch.autograd.backward(forward.losses(tensors, 1.0).sum())
            num_done += 1
            if num_done == 1:
                started = time.monotonic()
            spent = time.monotonic() - started
            for weight in student.model.parameters():
                weight.grad = None
    return TrainingSpeed(float((num_done - 1) * num_rows * len(ids)), spent)
