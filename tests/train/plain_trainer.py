"""Another trainer behind the phases' door: plain PyTorch, one row at a time. It shares nothing with
the package's loop but which rows a step sees."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

import numpy as np
import torch

from feldspar.records import Checkpoint
from feldspar.student.training.phase_trainer import OnCheckpoint, PhaseSteps, StepRows


class PlainTrainer:
    """A `PhaseTrainer` that keeps nothing to go on with."""

    def __init__(self) -> None:
        self.forgotten: list[Path] = []

    def train(self, phase: PhaseSteps, on_checkpoint: OnCheckpoint) -> None:
        model, settings = phase.student.model, phase.settings
        optimizer = torch.optim.AdamW(
            model.parameters(), betas=settings.betas, weight_decay=settings.weight_decay
        )
        with (phase.folder / "metrics.jsonl").open("a") as file:
            for number, step in enumerate(phase.steps(), start=1):
                optimizer.zero_grad()
                loss = backward(model, step)
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), settings.max_grad_norm)
                optimizer.param_groups[0]["lr"] = step.learning_rate
                optimizer.step()
                line = {"phase": phase.schedule.phase, "step": number}
                file.write(json.dumps(line | {"loss": loss, "grad_norm": norm.item()}) + "\n")
                file.flush()
                if number in settings.checkpoint_steps:
                    on_checkpoint(number, partial(save, phase, number))

    def forget(self, folder: Path) -> None:
        self.forgotten.append(folder)


def backward(model: torch.nn.Module, step: StepRows) -> float:
    """The gradient of the step's mean cross-entropy, and its value."""
    total = 0.0
    for ids, mask in step.rows:
        tokens = torch.from_numpy(ids.astype(np.int64))
        logits = model(tokens[None]).logits[0, :-1]
        trained = torch.from_numpy(mask[1:].copy())
        losses = torch.nn.functional.cross_entropy(logits, tokens[1:], reduction="none")[trained]
        (losses.sum() / step.num_trained).backward()
        total += losses.sum().item()
    return total / step.num_trained


def save(phase: PhaseSteps, step: int, path: Path) -> Checkpoint:
    """As another framework writes it: not by the package's own hand."""
    phase.student.model.save_pretrained(path)
    phase.student.tokenizer.save_pretrained(path)
    return Checkpoint(path=str(path), digest=f"step {step}", phase=phase.schedule.phase, step=step)
