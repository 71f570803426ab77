"""What a recipe may say about the model to be taught."""

from __future__ import annotations

from typing import Literal

from feldspar.config.base import Count, Part, PathText, Positive
from feldspar.keys import Rounding


class LoraConfig(Part):
    """Low-rank adaptation through peft: `pip install 'feldspar[lora]'`. Checkpoints are merged."""

    rank: Count = 16
    alpha: Positive = 32.0
    """What is added to a weight is scaled by alpha / rank."""
    target_modules: tuple[str, ...] = ()
    """Names of the linear layers that get low-rank weights. Empty: all but the head."""


class StudentConfig(Part):
    """The model to be taught."""

    base: PathText
    """A model directory in Hugging Face format, a hub id, or the folder of an earlier run, whose
    result is gone on from."""
    system_prompt: str = ""
    """Put before every conversation when not empty."""
    template: Literal["lab", "own"] = "lab"
    """`lab`: the cards' <|system|>, <|user|>, <|assistant|>; `own`: the base's chat template."""
    max_length: Count = 2048
    """Longest training row in tokens; longer ones are dropped and counted."""
    device: Rounding[Literal["auto", "cpu", "cuda", "mps"]] = "auto"
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Of the computation; weights are kept in float32. auto: bfloat16 on cuda, else float32."""
    compile: Rounding[bool] = False
    """Compile decoder layers for training and for scoring answers: a minute at the start, then
    faster; needs a C++ compiler."""
    lora: LoraConfig | None = None
    """Train low-rank weights, and the rows of the lab template's tokens, instead of all weights."""
