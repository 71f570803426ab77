"""How a phase is stepped through, and the key that a saved state must agree in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Literal

import torch

from feldspar.config import TrainConfig
from feldspar.keys import Rounding, content_key
from feldspar.student.model import Student
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.optimizer import OptimizerStates, make_adamw
from feldspar.student.training.schedule import Schedule


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How to step. `earlier_steps` counts into the warm-up what earlier phases did."""

    learning_rate: float
    warmup_steps: int = 0
    earlier_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    """Of matrices; biases and norms have none."""
    max_grad_norm: float = 1.0
    tokens_per_micro_batch: Rounding[int] = 16384
    packing: Rounding[bool] = True
    """Rows end to end with attention inside each; false: side by side, padded."""
    optimizer_states: OptimizerStates = "float32"
    activation_checkpointing: Rounding[Literal["auto", "always", "never"]] = "never"
    decay_steps: int = 0
    """Last steps over which the learning rate falls to nothing: for new models. A phase that ends
    so makes the next one worse (docs/phases.md)."""
    checkpoint_steps: tuple[int, ...] = ()
    """`on_checkpoint` is called when so many steps are done."""

    def learning_rate_at(self, step: int, num_steps: int) -> float:
        """Linear warm-up, constant, and linear decay if any. `step` is counted from 0."""
        done = self.earlier_steps + step + 1
        rise = done / max(self.warmup_steps, 1)
        fall = (num_steps - step) / (self.decay_steps + 1)
        return self.learning_rate * min(1.0, rise, fall)


def settings_of(
    config: TrainConfig,
    *,
    learning_rate: float,
    warmup_steps: int,
    earlier_steps: int = 0,
    checkpoint_steps: tuple[int, ...],
) -> FitSettings:
    """What a recipe's `[train]` says of every phase and round, with what each has of its own."""
    return FitSettings(
        learning_rate=learning_rate,
        warmup_steps=warmup_steps,
        earlier_steps=earlier_steps,
        betas=config.betas,
        weight_decay=config.weight_decay,
        max_grad_norm=config.max_grad_norm,
        tokens_per_micro_batch=config.tokens_per_micro_batch,
        packing=config.packing,
        optimizer_states=config.optimizer_states,
        activation_checkpointing=config.recompute,
        checkpoint_steps=checkpoint_steps,
    )


def make_optimizer(student: Student, settings: FitSettings) -> torch.optim.AdamW:
    """Over what is trained. Where embeddings are trained in part, the rest must not decay."""
    model = student.model
    ends = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    return make_adamw(
        [p for p in model.parameters() if p.requires_grad],
        learning_rate=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        states=settings.optimizer_states,
        never_decayed=[] if student.trained_rows is None else ends,
    )


def key_of_fit(student: Student, rows: TokenRows, schedule: Schedule, settings: FitSettings) -> str:
    """What a saved state must agree in to be resumed: data, order, settings, first weights."""
    decides = content_key(schedule, settings, str(student.dtype), rows)
    digest = hashlib.sha256(decides.encode())
    for _, parameter in student.model.named_parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
