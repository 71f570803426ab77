"""Several processes that share each optimizer step: torch.distributed and FSDP2.

Weights, gradients and moments lie in parts, one in each process. `step`: weights are gathered once
a step and gradients summed once, in the last micro-batch, so that processes may run different
numbers of them. `layer`: each layer is gathered when it is computed, for models that do not fit
otherwise; then all run equally many. Layers are gathered in the dtype of the computation, and their
gradients added up and summed in float32. Messages between hosts go through gloo, so that nobody
waits on the device; tensors on CUDA go through nccl.
"""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import timedelta
from typing import Any, Literal, TypeVar, cast

import numpy as np
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch._C._distributed_c10d import Store
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy, fully_shard
from torch.distributed.tensor import DTensor

from feldspar.errors import TrainingError
from feldspar.student.model import Student
from feldspar.student.training.memory import Shard, shard_that_fits
from feldspar.student.training.process_group import Cutter, MicroBatch
from feldspar.student.training.schedule import Indices, share_out
from feldspar.student.training.signals import Stopped, Stops

T = TypeVar("T")

JOIN_TIMEOUT = timedelta(minutes=10)
"""For all processes to be there."""
LONG_WAIT = timedelta(days=30)
"""For the first process, which may score a checkpoint, or have samples written, meanwhile. A death
is noticed without it: connections close."""


def join_group(store: Store, rank: int, size: int) -> None:
    """Become one of `size` processes. Raises TrainingError where they do not come."""
    backend = "gloo"
    if torch.cuda.is_available() and dist.is_nccl_available():
        backend = "cpu:gloo,cuda:nccl"
        torch.cuda.set_device(local_rank() % torch.cuda.device_count())
    try:
        dist.init_process_group(backend, store=store, rank=rank, world_size=size, timeout=LONG_WAIT)
    except (RuntimeError, ValueError) as error:
        raise TrainingError(
            f"process {rank + 1} of {size} does not find the others: {first_line(error)}"
        ) from error


def local_rank() -> int:
    """Which of its machine's processes this is."""
    return int(os.environ.get("LOCAL_RANK", "0"))


def first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).split("\n")[0]


def tell_why(store: Store, rank: int, error: BaseException) -> None:
    """Put what ends this process where the first one reads it, if that is there."""
    with suppress(RuntimeError):
        store.set(f"why-{rank}", first_line(error))


def is_cut_off(error: RuntimeError) -> bool:
    """Whether a message failed because the process at its other end is gone."""
    text = str(error).lower()
    return isinstance(error, dist.DistError) or any(w in text for w in ("by peer", "gloo", "nccl"))


def send_text(text: str) -> None:
    """From the first process to all others, which `receive_text`."""
    _broadcast(torch.tensor(list(text.encode()), dtype=torch.uint8))


def receive_text() -> str:
    return bytes(_broadcast(None).tolist()).decode()


def _broadcast(payload: Tensor | None) -> Tensor:
    size = torch.tensor([0 if payload is None else len(payload)])
    dist.broadcast(size, src=0)
    if payload is None:
        payload = torch.empty(int(size), dtype=torch.uint8)
    if len(payload):
        dist.broadcast(payload, src=0)
    return payload


def choose_shard(
    student: Student, num: int, wanted: Literal["auto", "step", "layer"], memory: int | None
) -> Shard:
    """`step` where a whole copy of weights and gradients fits along with a part of everything into
    GPUs of `memory` bytes; None: on CPUs."""
    if wanted != "auto":
        return wanted
    if memory is None:
        return "step"
    num_updated = sum(p.numel() for p in student.model.parameters() if p.requires_grad)
    return shard_that_fits(student.num_parameters, num_updated, num, student.dtype.itemsize, memory)


class FSDPGroup:
    """This process among those that train together: a `ProcessGroup` over torch.distributed."""

    def __init__(self, shard: Shard) -> None:
        self.rank, self.size, self.shard = dist.get_rank(), dist.get_world_size(), shard
        self._root: nn.Module | None = None
        self._square_length = 1.0

    def place(self, student: Student) -> Student:
        """A student of which this process holds a part. The one that is given stays whole."""
        self._check_device(student.device)
        # Layer by layer onto the device: the model as a whole need not fit there.
        student.model.to("cpu")
        model = copy.deepcopy(student.model) if self.rank == 0 else student.model
        hidden_size = model.config.get_text_config().hidden_size
        # In a layer 24 H^2 operations a token, and 2 H L for attention under a causal mask.
        self._square_length = 12.0 * hidden_size
        root = _Root(model)
        mesh = init_device_mesh(student.device.type, (self.size,))
        low = MixedPrecisionPolicy(param_dtype=student.dtype, reduce_dtype=torch.float32)
        parts = [*((layer, low) for layer in _layers(model)), (root, MixedPrecisionPolicy())]
        for module, policy in parts:
            sharded = fully_shard(
                module, mesh=mesh, mp_policy=policy, reshard_after_forward=self.shard == "layer"
            )
            # The loss is divided by the step's tokens already: gradients are summed, not averaged.
            sharded.set_gradient_divide_factor(1.0)
            sharded.set_force_sum_reduction_for_comms(True)
        model.to(student.device)
        self._root = root
        return replace(student, model=model)

    def micro_batches(self, rows: Indices, lengths: Indices, cut: Cutter) -> list[MicroBatch]:
        length_of = dict(zip(rows.tolist(), lengths.tolist(), strict=True))
        shares = share_out(rows, lengths, self.size, self._square_length)
        parts = []
        for share in shares:
            of_share = np.array([length_of[row] for row in share.tolist()], dtype=np.int64)
            parts.append(cut(share, of_share))
        mine = [MicroBatch(group) for group in parts[self.rank]]
        num = max(map(len, parts)) if self.shard == "layer" else 1
        filler = MicroBatch(rows[lengths.argmin()][None], weight=0.0)
        mine += [filler] * (num - len(mine))
        return [*mine[:-1], mine[-1]._replace(is_last=True)]

    def compute(self, micro: MicroBatch, function: Callable[[], T]) -> T:
        assert self._root is not None
        if self.shard == "step":
            root = cast(FSDPModule, self._root)
            root.set_requires_gradient_sync(micro.is_last)
            root.set_reshard_after_backward(micro.is_last)
        result: T = self._root(function)
        return result

    def release(self) -> None:
        assert self._root is not None
        for module in self._root.modules():
            if isinstance(module, FSDPModule):
                module.reshard()

    def total(self, sums: Tensor) -> Tensor:
        dist.all_reduce(sums)
        return sums

    def whole(self, value: Tensor) -> Tensor:
        return value.full_tensor() if isinstance(value, DTensor) else value

    def within_step(self, held: Stops) -> Stops:
        return Stops()

    def agree_to_save(self, wish: bool, held: Stops) -> bool:
        wishes = torch.tensor([int(held.number is not None), int(wish)])
        dist.all_reduce(wishes, op=dist.ReduceOp.MAX)
        if wishes[0]:
            # Whoever was not asked ends as if it had been; the first process as it was asked.
            if self.rank or held.number is None:
                held.number = signal.SIGINT
            raise Stopped
        return bool(wishes[1])

    def check_same(self, step: int) -> None:
        steps = torch.tensor([step, -step])
        dist.all_reduce(steps, op=dist.ReduceOp.MAX)
        if steps[0] != -steps[1]:
            raise TrainingError(
                f"process {self.rank + 1} of {self.size} finds the state of step {step}, others "
                "another; the run directory must lie on one disk that all see"
            )

    def meet(self) -> None:
        dist.all_reduce(torch.zeros(1))

    def gather(self, placed: Student, whole: Student | None) -> None:
        """Put the weights that are trained into the `whole` student of the first process."""
        wholes = dict(whole.model.named_parameters()) if whole else {}
        with torch.no_grad():
            for name, parameter in placed.model.named_parameters():
                if parameter.requires_grad:
                    full = self.whole(parameter)
                    if wholes:
                        wholes[name].copy_(full)

    def _check_device(self, device: torch.device) -> None:
        if device.type == "mps":
            raise TrainingError('several processes cannot share "mps"; train with one')
        there = torch.cuda.device_count()
        if device.type == "cuda" and local_rank() >= there:
            raise TrainingError(
                f"process {local_rank() + 1} of this machine, which has {there} GPUs"
            )


class _Root(nn.Module):
    """Where a computation finds the model's own weights whole: FSDP2 gathers them at its call."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, function: Callable[[], T]) -> T:
        return function()


def _layers(model: Any) -> list[nn.Module]:
    """The decoder's layers: the list of modules of one kind with the most weights."""
    lists = [list(m) for m in model.modules() if isinstance(m, nn.ModuleList)]
    alike = [layers for layers in lists if len({type(layer) for layer in layers}) == 1]
    return max(alike, key=_num_weights, default=[])


def _num_weights(layers: list[nn.Module]) -> int:
    return sum(p.numel() for layer in layers for p in layer.parameters())
