"""The weights of a model that only answers: held as its matrix products read them.

A model that is trained holds float32 weights, and autocast makes them anew for each computation.
One that only answers holds them in the dtype of the computation. On a CPU in bfloat16 its linear
layers keep a second copy in the blocked layout of oneDNN, which is otherwise made for each product:
few rows spend half their time on that. Products of either layout are the same to the bit.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

_ROWS = 256
"""That the layout is chosen for. It is as good for fewer, and for the thousands of a prompt."""


def hold_to_answer(model: Any, dtype: torch.dtype) -> None:
    """Hold a model's weights in `dtype`, for good; buffers (rotary frequencies) stay."""
    if dtype == torch.float32:
        return
    with torch.no_grad():
        for weight in model.parameters():
            weight.data = weight.data.to(dtype)
            weight.requires_grad_(False)
        for layer in model.modules():
            if _can_block(layer):
                layer.forward = partial(_linear, _blocked(layer.weight), layer.bias)


def blocked_product(layer: Any) -> Callable[[Tensor], Tensor] | None:
    """How a linear layer multiplies where it holds its weights blocked; None where it does not."""
    found = vars(layer).get("forward")
    return found if isinstance(found, partial) and found.func is _linear else None


def _can_block(layer: Any) -> bool:
    # Those of peft and of others do more than a product.
    return (
        type(layer) is nn.Linear
        and layer.weight.device.type == "cpu"
        and layer.weight.dtype == torch.bfloat16
        and torch.backends.mkldnn.is_available()  # type: ignore[no-untyped-call]
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def _blocked(weight_OI: Tensor) -> Tensor:
    return torch.ops.mkldnn._reorder_linear_weight(weight_OI.detach(), _ROWS)  # type: ignore[no-any-return]


def _linear(blocked: Tensor, bias: Tensor | None, inputs: Tensor) -> Tensor:
    """As `functional.linear` does under autocast."""
    inputs = inputs.to(torch.bfloat16)
    return torch.ops.mkldnn._linear_pointwise(inputs, blocked, bias, "none", [], "")  # type: ignore[no-any-return]
