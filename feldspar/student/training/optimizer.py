"""Fused AdamW, with moments in float32 or in bfloat16."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, Literal

import torch
from torch import Tensor

OptimizerStates = Literal["float32", "bfloat16"]

BYTES_PER_WEIGHT = {"float32": 16, "bfloat16": 12}
"""Of a trained weight: itself and its gradient in float32, and two moments."""

_MOMENTS = ("exp_avg", "exp_avg_sq")


def make_adamw(
    weights: Iterable[Tensor],
    *,
    learning_rate: float,
    betas: tuple[float, float],
    weight_decay: float,
    states: OptimizerStates,
    never_decayed: Iterable[Tensor] = (),
) -> torch.optim.AdamW:
    """AdamW over weights; `weight_decay` is of matrices, biases and norms have none."""
    spared = {id(w) for w in never_decayed}
    decayed: list[Tensor] = []
    others: list[Tensor] = []
    for weight in weights:
        is_matrix = weight.ndim >= 2 and id(weight) not in spared
        (decayed if is_matrix else others).append(weight)
    groups: list[dict[str, Any]] = [
        {"params": decayed, "weight_decay": weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    kind = torch.optim.AdamW if states == "float32" else _LowAdamW
    return kind([g for g in groups if g["params"]], lr=learning_rate, betas=betas, fused=True)


class _LowAdamW(torch.optim.AdamW):
    """AdamW (Loshchilov and Hutter 2019, algorithm 2) that keeps its moments in bfloat16.

    They are computed in float32. Eight bits tell an average from the one before it as long as a
    step moves it by .4 %, which is why the recipe allows no second beta above .99.
    """

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        assert closure is None
        for group in self.param_groups:
            for weight in group["params"]:
                if weight.grad is not None:
                    self._update(weight, group)

    def _update(self, weight: Tensor, group: dict[str, Any]) -> None:
        state = self.state[weight]
        if not state:
            state["step"] = torch.tensor(0.0)
            for name in _MOMENTS:
                state[name] = torch.zeros_like(weight, dtype=torch.bfloat16)
        # Where a saved state was read, on the device: counting must not wait for it every step.
        state["step"] = state["step"].cpu() + 1
        step, (beta1, beta2) = float(state["step"]), group["betas"]
        mean = state["exp_avg"].float().lerp_(weight.grad, 1 - beta1)
        square = state["exp_avg_sq"].float().mul_(beta2)
        square.addcmul_(weight.grad, weight.grad, value=1 - beta2)
        state["exp_avg"], state["exp_avg_sq"] = mean.bfloat16(), square.bfloat16()
        weight.mul_(1 - group["lr"] * group["weight_decay"])
        spread = square.div_(1 - beta2**step).sqrt_().add_(group["eps"])
        weight.addcdiv_(mean, spread, value=-group["lr"] / (1 - beta1**step))
