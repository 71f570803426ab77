"""Decoder layers one by one: compiled, which fuses what stands between their matrix products, or
computed again for the backward pass.

Outside a block the model is as it was. Attention to packed rows is called and not traced: its loops
over rows would be unrolled, and compiled anew for every batch.
"""

from __future__ import annotations

import logging
import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from typing import Any

import torch
from torch.utils.checkpoint import checkpoint
from transformers import AttentionInterface
from transformers.modeling_layers import GradientCheckpointingLayer

from feldspar.errors import TrainingError

log = logging.getLogger(__name__)


def layers_of(model: Any) -> list[Any]:
    """Its decoder layers; none where transformers does not mark them."""
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]


@contextmanager
def layers_run(model: Any, *, compiled: bool = False, checkpointed: bool = False) -> Iterator[None]:
    """Within it, the model's layers run compiled, for any number of tokens; or `checkpointed`: of
    what they compute only their input is kept, and the rest computed again for the backward pass.

    Raises TrainingError where they are to be checkpointed and there are none.
    """
    layers = layers_of(model) if compiled or checkpointed else []
    if checkpointed and not layers:
        raise TrainingError(
            f"{type(model).__name__} has no layers that can be computed again one by one; "
            'set train.recompute = "never"'
        )
    for layer in layers:
        # Of the class: what is kept of a layer would keep every model ever trained. And not the
        # whole call: its hooks, which gather what lies in parts, stay around it and as they are.
        forward = type(layer).forward
        forward = partial(_compiled_function(forward) if compiled else forward, layer)
        layer.forward = partial(_checkpointed, forward) if checkpointed else forward
    try:
        yield
    finally:
        for layer in layers:
            del layer.forward


def _checkpointed(forward: Callable[..., Any], *inputs: Any, **model_inputs: Any) -> Any:
    return checkpoint(forward, *inputs, use_reentrant=False, **model_inputs)


@cache
def _compiled_function(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compile(function, dynamic=True)


@cache
def untraced(attention: str) -> str:
    """Another name of an attention function, by which compiled layers call it as it is."""
    name = f"{attention}_untraced"
    function = AttentionInterface()[attention]
    AttentionInterface.register(name, torch.compiler.disable(function))  # type: ignore[no-untyped-call]
    return name


@cache
def can_compile() -> bool:
    """Whether there is what compiling needs. Says so once where not."""
    if has_compiler():
        return True
    log.warning(
        "student.compile: layers run as they are, for there is no C++ compiler %s; install one, or "
        "name it in the environment variable CXX",
        _compiler(),
    )
    return False


def has_compiler() -> bool:
    """Whether there is the C++ compiler that compiling layers for a CPU takes."""
    return shutil.which(_compiler()) is not None


def _compiler() -> str:
    return os.environ.get("CXX", "g++")
