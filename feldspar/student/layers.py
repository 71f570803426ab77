"""Decoder layers compiled one by one, which fuses what stands between their matrix products.

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

log = logging.getLogger(__name__)


def layers_of(model: Any) -> list[Any]:
    """Its decoder layers; none where transformers does not mark them."""
    return [m for m in model.modules() if isinstance(m, GradientCheckpointingLayer)]


@contextmanager
def compiled(model: Any) -> Iterator[None]:
    """Within it, the model's layers run compiled, for any number of tokens."""
    layers = layers_of(model)
    for layer in layers:
        # Compiled for the class: what is kept of a layer would keep every model ever trained.
        layer._compiled_call_impl = partial(_compiled_function(type(layer)._call_impl), layer)
    try:
        yield
    finally:
        for layer in layers:
            layer._compiled_call_impl = None


def computed_again(run: Callable[..., Any], *inputs: Any) -> Any:
    """A layer whose activations are computed again for the backward pass."""
    return checkpoint(run, *inputs, use_reentrant=False)


def compiled_and_computed_again(run: partial[Any], *inputs: Any) -> Any:
    """The same with the layer compiled: around the checkpoint a compiler would give up."""
    layer = partial(_compiled_function(run.func), *run.args, **run.keywords)
    return checkpoint(layer, *inputs, use_reentrant=False)


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
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is not None:
        return True
    log.warning(
        "student.compile: layers run as they are, for there is no C++ compiler %s; install one, or "
        "name it in the environment variable CXX",
        compiler,
    )
    return False
