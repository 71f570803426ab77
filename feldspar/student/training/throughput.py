"""Where a step's time goes, and how it compares with the matmul peak of the device."""

from __future__ import annotations

import time
from functools import lru_cache
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from feldspar.student.model import Student
from feldspar.student.training.forward import MicroBatchTensors

_PEAK_SIZE = {"cpu": 768, "cuda": 8192, "mps": 2048}


class StepTimer:
    """Seconds between marks, by name; on a GPU read once, after the step."""

    def __init__(self, device: torch.device) -> None:
        self._is_cuda = device.type == "cuda"
        self._marks: list[tuple[str, Any]] = []
        self.mark("start")

    def mark(self, name: str) -> None:
        """Say what ended now."""
        now: Any = time.perf_counter()
        if self._is_cuda:
            now = torch.cuda.Event(enable_timing=True)  # type: ignore[no-untyped-call]
            now.record()
        self._marks.append((name, now))

    def seconds(self) -> dict[str, float]:
        """Sums by name since the last call. Waits for a GPU to come to the last mark."""
        if self._is_cuda:
            self._marks[-1][1].synchronize()
        sums: dict[str, float] = {}
        for (_, before), (name, after) in pairwise(self._marks):
            took = before.elapsed_time(after) / 1e3 if self._is_cuda else after - before
            sums[name] = sums.get(name, 0.0) + took
        del self._marks[:-1]
        return sums


class ModelFlops:
    """Floating-point operations that steps of a model need, whatever is computed beyond them.

    Six per weight and token (forward two, backward four) in the layers; the head at trained tokens
    only; causal attention 6 * layers * width * length^2. Frozen weights take four.
    """

    def __init__(self, model: Any) -> None:
        config = model.config.get_text_config()
        ends = (model.get_input_embeddings(), model.get_output_embeddings())
        counted = {id(layer.weight) for layer in ends}
        matrices = [p for p in model.parameters() if p.ndim >= 2 and id(p) not in counted]
        self._per_token = sum((6 if p.requires_grad else 4) * p.numel() for p in matrices)
        head = ends[1].weight
        self._per_trained = (6 if head.requires_grad else 4) * head.numel()
        heads = getattr(config, "num_attention_heads", 0)
        head_size = getattr(config, "head_dim", None) or config.hidden_size // max(heads, 1)
        self._per_square = 6 * getattr(config, "num_hidden_layers", 0) * heads * head_size

    def flops(self, lengths: NDArray[np.int64], num_trained: int, num_saved: int = 0) -> float:
        """Of rows of these lengths, `num_saved` of whose tokens were computed for another row."""
        squares = float((lengths.astype(np.float64) ** 2).sum())
        layers = self._per_token * float(lengths.sum() - num_saved)
        return float(layers + self._per_trained * num_trained + self._per_square * squares)


LEAST_COMPILED_FLOPS = 5e13
"""Of a phase on a CPU that pays for compiling its layers: some five minutes of two cores with AMX
in bfloat16, of which compiled layers save a sixth to a third. Compiling takes 40 to 80 s once and
10 to 16 s for a phase that finds them compiled (benchmarks/LOG.md)."""


def pays_to_compile(
    student: Student, lengths: NDArray[np.int64], trained: NDArray[np.int32], num_epochs: float
) -> bool:
    """Whether `compile = "auto"` compiles the layers for so many epochs over rows of these lengths,
    `trained` of whose tokens are trained. Told by the operations and not by a clock, so that a
    training that goes on does so by the same code."""
    if student.device.type != "cpu":
        return False
    needed = ModelFlops(student.model).flops(lengths, int(trained.sum()))
    return num_epochs * needed >= LEAST_COMPILED_FLOPS


class Throughput:
    """The speed of each step of a training, in figures."""

    def __init__(self, student: Student, num_processes: int) -> None:
        self.timer = StepTimer(student.device)
        self._student, self._num_processes = student, num_processes
        self._flops = ModelFlops(student.model)
        self._num_needed = self._num_computed = 0

    def count(self, tensors: MicroBatchTensors, weight: float) -> None:
        """A micro-batch was computed; one of no weight was needed by no one."""
        self._num_computed += tensors.ids_BT.numel()
        self._num_needed += tensors.num_tokens if weight else 0

    def figures(
        self, lengths: NDArray[np.int64], num_trained: int, parts: dict[str, float], seconds: float
    ) -> dict[str, float]:
        """Of the step that ended, whose rows have these lengths. `parts` are seconds by the timer's
        marks; those of the optimizer are of the step before."""
        student = self._student
        peak = matmul_peak(student.device, student.dtype, torch.get_num_threads())
        needed, computed = self._num_needed, self._num_computed
        # More needed than computed: rows share what they begin with.
        num_saved = max(0, needed - computed) * self._num_processes
        flops = self._flops.flops(lengths, num_trained, num_saved)
        self._num_needed = self._num_computed = 0
        names = ("data", "forward", "backward", "optimizer")
        return {
            "total_tokens": int(lengths.sum()),
            "tokens_per_second": round(int(lengths.sum()) / seconds, 1),
            "seconds": round(seconds, 4),
            **{f"{name}_seconds": round(parts.get(name, 0.0), 5) for name in names},
            "packing_efficiency": round(needed / computed, 4),
            "mfu": round(flops / seconds / (peak * self._num_processes), 4),
        }


@lru_cache(maxsize=8)
def matmul_peak(device: torch.device, dtype: torch.dtype, num_threads: int) -> float:
    """FLOP/s of the best of a few square products, at the threads that are set."""
    assert num_threads > 0, num_threads
    size = _PEAK_SIZE[device.type]
    # Its own numbers: the global generator is the caller's.
    drawn = torch.Generator(device).manual_seed(0)
    a, b = (torch.randn(size, size, device=device, generator=drawn).to(dtype) for _ in range(2))
    timer = StepTimer(device)
    best = 0.0
    for _ in range(4):
        timer.mark("between")
        functional.linear(a, b)
        timer.mark("matmul")
        best = max(best, 2 * size**3 / max(timer.seconds()["matmul"], 1e-5))
    return best
