"""What a recipe may say about preference tuning and about what is measured."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from feldspar.config.part import Count, Part, PathText, Positive
from feldspar.records import Branch


class PreferConfig(Part):
    """Best-of-N by the log-ratio reward, then fine-tuning on the best, in rounds."""

    aligned: PathText
    """Model directory of the aligned model."""
    base: PathText
    """Model directory of the base it was aligned from."""
    num_prompts: Count = 30_000
    num_answers: Annotated[int, Field(ge=2)] = 16
    """N: answers sampled per prompt."""
    temperature: Positive = 1.0
    max_new_tokens: Count = 300
    num_rounds: Count = 1
    num_epochs: Count = 1
    learning_rate: Positive | None = None
    """None: `train.learning_rate`."""
    batch_samples: Count | None = None
    """None: `train.batch_samples`."""
    normalise: Literal["sum", "mean"] = "sum"
    branches: tuple[Branch, ...] = ("foundational", "compositional")
    """Whose questions are prompts."""
    control: bool = True
    """Also train on a random pick instead of the best, and report it beside."""


class ExamConfig(Part):
    """A user's own exam: a JSONL file of items, scored before and after."""

    name: str
    path: PathText
    """JSONL with `question`, `answer`, and optionally `accepted` and `match`; or a folder of such
    files, each an exam of its own name."""


class EvaluateConfig(Part):
    """What is measured, and how."""

    exam: tuple[ExamConfig, ...] = ()
    """Exams of the user's own, beside the leaves'."""
    max_new_tokens: Count = 64
    min_selection_items: Count = 100
    """Fewer items than this choose no checkpoint: a phase's last is taken, and the run says so."""
    num_resamples: Count = 1000
    """Of the bootstrap behind log-likelihoods' and differences' intervals; shares have Wilson's."""


class ServeConfig(Part):
    """`feldspar serve`: what a request may ask of the server. Address and port are its flags."""

    max_tokens: Count = 1024
    """Longest answer, and how long one may be that states no limit."""
    max_requests: Count = 256
    """Under way and waiting together; more are told to come again."""
    max_body_bytes: Count = 4 * 1024 * 1024
