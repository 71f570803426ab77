"""The state of a training run: weights and moments in float32, and the step.

One process writes `state.safetensors`. Several write a part each, `state-STEP-1-of-2.safetensors`
with the rows (first dimension) that it holds, and `state.json` last, which names the parts. Either
is resumed by any number of processes (docs/decisions/006-state-in-parts.md).
"""

from __future__ import annotations

import json
import math
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from feldspar.errors import DiskError
from feldspar.files import whole_file
from feldspar.stored import reading
from feldspar.student.training.process_group import SINGLE_PROCESS, ProcessGroup

_WHOLE = "state.safetensors"
_LIST = "state.json"
_MOMENTS = ("exp_avg", "exp_avg_sq")
_FAULTS = (SafetensorError,)
_CURE = "delete the files `state*` in that folder and run again: this phase starts over"


def save_state(
    folder: Path,
    model: Any,
    optimizer: torch.optim.AdamW,
    *,
    step: int,
    key: str,
    group: ProcessGroup = SINGLE_PROCESS,
) -> None:
    """Write the state after `step` steps, whole or not at all. `key` names the run it is of."""
    names = [_WHOLE]
    if group.size > 1:
        names = [f"state-{step}-{r + 1}-of-{group.size}.safetensors" for r in range(group.size)]
    path = folder / names[group.rank]
    tensors: dict[str, Tensor] = {}
    starts: dict[str, int] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        kinds = {"weight": parameter.detach()}
        if parameter in optimizer.state:
            kinds |= {moment: optimizer.state[parameter][moment] for moment in _MOMENTS}
        starts[name] = held_rows(parameter).start
        tensors |= {f"{kind}.{name}": local_part(t).contiguous() for kind, t in kinds.items()}
    about = {"step": str(step), "key": key, "starts": json.dumps(starts)}
    try:
        with whole_file(path) as temporary:
            save_file(tensors, temporary, metadata=about)
    except (OSError, SafetensorError) as error:
        raise DiskError(f"{path}: the training state cannot be written: {error}") from error
    group.meet()
    if group.rank == 0:
        if group.size > 1:
            with whole_file(folder / _LIST) as temporary:
                listed = {"step": step, "key": key, "parts": names}
                temporary.write_text(json.dumps(listed) + "\n", encoding="utf-8")
        _forget_all_but(folder, {*names, *([_LIST] if group.size > 1 else [])})


def load_state(
    folder: Path,
    model: Any,
    optimizer: torch.optim.AdamW,
    *,
    key: str,
    group: ProcessGroup = SINGLE_PROCESS,
) -> int:
    """Put a saved state back and give its step; 0 and no change where none is of this run.

    Raises RunError where it is damaged.
    """
    found = _find(folder, key)
    if found is None:
        return 0
    with reading(found.paths[0], _CURE, also=_FAULTS), ExitStack() as stack, torch.no_grad():
        state = _Parts([stack.enter_context(safe_open(p, framework="pt")) for p in found.paths])
        for name, parameter in model.named_parameters():
            if not parameter.requires_grad:
                continue
            held = held_rows(parameter)
            state.read(f"weight.{name}", held, local_part(parameter))
            if f"{_MOMENTS[0]}.{name}" not in state.names:
                continue
            step = torch.tensor(float(found.step), device=parameter.device)
            moments: dict[str, Tensor] = {"step": step}
            for moment in _MOMENTS:
                moments[moment] = torch.zeros_like(parameter)
                state.read(f"{moment}.{name}", held, local_part(moments[moment]))
            optimizer.state[parameter] = moments
    # None may write the next state while another still reads this one.
    group.meet()
    return found.step


def forget_state(folder: Path) -> None:
    """Delete what is saved: the outcome is safe."""
    _forget_all_but(folder, set())


def state_bytes(folder: Path) -> int:
    """What the saved state takes on disk."""
    return sum(path.stat().st_size for path in _state_files(folder))


class _FoundState(NamedTuple):
    step: int
    paths: list[Path]


class HeldRows(NamedTuple):
    start: int
    num: int


class _Parts:
    """Tensors that lie in parts, in one file or more."""

    def __init__(self, files: list[Any]) -> None:
        self.files = files
        self.names = {name for file in files for name in file.keys()}  # noqa: SIM118
        self.starts = [json.loads(file.metadata().get("starts", "{}")) for file in files]

    def read(self, name: str, wanted: HeldRows, into: Tensor) -> None:
        """Fill `into` with the wanted rows of a tensor."""
        if into.ndim == 0:
            into.copy_(self.files[0].get_tensor(name))
            return
        end = wanted.start + wanted.num
        for file, starts in zip(self.files, self.starts, strict=True):
            rows = file.get_slice(name)
            start = starts.get(name.split(".", 1)[1], 0)
            low = max(wanted.start, start)
            high = min(end, start + rows.get_shape()[0])
            if low < high:
                into[low - wanted.start : high - wanted.start].copy_(
                    rows[low - start : high - start]
                )


def _find(folder: Path, key: str) -> _FoundState | None:
    """The latest state of this run."""
    found = []
    whole, listed = folder / _WHOLE, folder / _LIST
    if whole.is_file():
        with reading(whole, _CURE, also=_FAULTS):
            with safe_open(whole, framework="pt") as file:
                about = file.metadata()
            if about["key"] == key:
                found.append(_FoundState(int(about["step"]), [whole]))
    if listed.is_file():
        with reading(listed, _CURE):
            about = json.loads(listed.read_bytes())
            if about["key"] == key:
                paths = [folder / name for name in about["parts"]]
                found.append(_FoundState(about["step"], paths))
    return max(found, default=None)


def held_rows(parameter: Tensor) -> HeldRows:
    """The rows of a parameter that this process holds: all, or its chunk (FSDP2's `Shard(0)`)."""
    num = parameter.shape[0] if parameter.ndim else 1
    mesh: Any = getattr(parameter, "device_mesh", None)
    if mesh is None:
        return HeldRows(0, num)
    chunk = math.ceil(num / mesh.size())
    start = min(mesh.get_local_rank() * chunk, num)
    return HeldRows(start, min(chunk, num - start))


def local_part(tensor: Tensor) -> Tensor:
    """This process's part of a tensor; the same memory."""
    local: Tensor = tensor.to_local() if hasattr(tensor, "to_local") else tensor
    return local


def _state_files(folder: Path) -> list[Path]:
    # With their ".part" files: what a killed run left is no use to anyone.
    return [
        *folder.glob("state.safetensors*"),
        *folder.glob("state.json*"),
        *folder.glob("state-*-of-*"),
    ]


def _forget_all_but(folder: Path, kept: set[str]) -> None:
    for path in _state_files(folder):
        if path.name not in kept:
            path.unlink(missing_ok=True)
