"""Weights with their low-rank weights added, written as plain transformers names them."""

from __future__ import annotations

from typing import Any

from torch import Tensor

_INNER = ".base_layer"


def merged_weights(model: Any) -> dict[str, Tensor] | None:
    """Weights as plain transformers names them, with what was added; None where nothing was."""
    adapted = {name: m for name, m in model.named_modules() if is_adapted(m)}
    if not adapted:
        return None
    weights = {}
    for name, tensor in model.state_dict().items():
        owner, found, rest = name.partition(_INNER)
        if found and owner in adapted:
            delta = adapted[owner].get_delta_weight("default") if rest == ".weight" else 0
            weights[owner + rest] = (tensor + delta).detach()
        elif not any(name.startswith(f"{layer}.") for layer in adapted):
            weights[name] = tensor
    return weights


def is_adapted(module: Any) -> bool:
    return hasattr(module, "base_layer") and hasattr(module, "get_delta_weight")
