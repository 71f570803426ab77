"""The state of a training run in one file: weights and moments in float32, and the step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from feldspar.errors import DiskError
from feldspar.student.whole import whole_file

_MOMENTS = ("exp_avg", "exp_avg_sq")


def save_state(
    path: Path, model: Any, optimizer: torch.optim.AdamW, *, step: int, key: str
) -> None:
    """Write the state after `step` steps, whole or not at all. `key` names the run it is of."""
    tensors: dict[str, Tensor] = {}
    for name, parameter in model.named_parameters():
        tensors[f"weight.{name}"] = parameter.detach().contiguous()
        for moment in _MOMENTS:
            if parameter in optimizer.state:
                tensors[f"{moment}.{name}"] = optimizer.state[parameter][moment].contiguous()
    try:
        with whole_file(path) as beside:
            save_file(tensors, beside, metadata={"step": str(step), "key": key})
    except (OSError, SafetensorError) as error:
        raise DiskError(f"{path}: the training state cannot be written: {error}") from error


def load_state(path: Path, model: Any, optimizer: torch.optim.AdamW, *, key: str) -> int:
    """Put a saved state back and give its step; 0 and no change where none is of this run."""
    if not path.is_file():
        return 0
    with safe_open(path, framework="pt") as file:
        about = file.metadata()
        if about["key"] != key:
            return 0
        step = int(about["step"])
        names = set(file.keys())
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                parameter.copy_(file.get_tensor(f"weight.{name}"))
                if f"{_MOMENTS[0]}.{name}" not in names:
                    continue
                device = parameter.device
                state: dict[str, Tensor] = {"step": torch.tensor(float(step), device=device)}
                for moment in _MOMENTS:
                    state[moment] = file.get_tensor(f"{moment}.{name}").to(device)
                optimizer.state[parameter] = state
    return step
