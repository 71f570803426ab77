"""Machines with GPUs of one kind that a run is planned for, and who of it runs where. No torch."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from feldspar.errors import RecipeError
from feldspar.plan.machine import GPUS, Gpu, Machine
from feldspar.student.training.memory import USABLE_SHARE

BYTES_PER_PARAMETER = 2
"""Of served models: bfloat16."""
WEIGHTS_SHARE = 0.7
"""Most that weights take of the memory of a server's GPUs; the rest holds keys and values of calls
in flight."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Cluster:
    """GPUs are numbered through: those of the first node, then those of the second."""

    gpu: Gpu
    gpus_per_node: int
    num_nodes: int = 1

    @property
    def num_gpus(self) -> int:
        return self.gpus_per_node * self.num_nodes

    @property
    def machine(self) -> Machine:
        """All of it, as training sees it."""
        return Machine(gpu=self.gpu, num_gpus=self.num_gpus)

    def gpus_for(self, num_parameters: float) -> int:
        """GPUs that one copy of a served model needs: a power of two within a node, else nodes."""
        needed = BYTES_PER_PARAMETER * num_parameters
        each = WEIGHTS_SHARE * USABLE_SHARE * self.gpu.memory_bytes
        num: int = 2 ** math.ceil(math.log2(max(1.0, needed / each)))
        if num <= self.gpus_per_node:
            return num
        return self.gpus_per_node * math.ceil(needed / (each * self.gpus_per_node))

    def __str__(self) -> str:
        nodes = f"{self.num_nodes} node{'s' if self.num_nodes > 1 else ''}"
        return (
            f"{nodes} of {self.gpus_per_node} x {self.gpu.name}, {self.gpu.memory_gib:.0f} GiB each"
        )


def named_cluster(text: str) -> Cluster:
    """`h100x8x10`: ten nodes of eight. Raises RecipeError with the names there are."""
    match = re.fullmatch(r"(.+?)x([1-9][0-9]{0,3})x([1-9][0-9]{0,3})", text.strip().lower())
    if match is None or match[1] not in GPUS:
        raise RecipeError(
            f"no cluster {text!r} is known; write GPU x GPUS PER NODE x NODES, such as h100x8x10, "
            f"both numbers below 10,000, with one of {', '.join(sorted(GPUS))}"
        )
    return Cluster(gpu=GPUS[match[1]], gpus_per_node=int(match[2]), num_nodes=int(match[3]))
