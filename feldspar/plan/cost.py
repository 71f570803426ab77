"""What a run will cost before it is paid: calls, tokens, optimizer steps, disk. No torch."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from feldspar.config import TrainConfig
from feldspar.records import Estimate

FLOAT_BYTES = 4
STATE_COPIES = 3
"""Weights and two moments, in float32."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhasePlan:
    """How long one phase is, if every sample asked for is kept."""

    name: str
    rows_per_epoch: int
    """Its own rows and what it replays."""
    batch_samples: int
    num_epochs: int

    @property
    def steps_per_epoch(self) -> int:
        """The last batch of an epoch may be partial."""
        return math.ceil(self.rows_per_epoch / self.batch_samples)

    @property
    def num_steps(self) -> int:
        return self.steps_per_epoch * self.num_epochs


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """The bill, and what looks wrong about it."""

    estimates: tuple[Estimate, ...]
    phases: tuple[PhasePlan, ...]
    disk_bytes: int
    free_bytes: int
    warnings: tuple[str, ...]


def make_plan(
    estimates: Sequence[Estimate],
    rows_per_epoch: Mapping[str, int],
    config: TrainConfig,
    *,
    weight_bytes: int,
    free_bytes: int,
    warnings: Sequence[str] = (),
) -> Plan:
    """Put the rooms' estimates together: rows by phase, and bytes of the base's weights."""
    phases = tuple(
        PhasePlan(
            name=phase.name,
            rows_per_epoch=rows_per_epoch[phase.name],
            batch_samples=phase.batch_samples or config.batch_samples,
            num_epochs=phase.num_epochs,
        )
        for phase in config.phase
    )
    disk = sum(e.disk_bytes for e in estimates) + _training_bytes(phases, config, weight_bytes)
    found = [*warnings, *_warm_up_warnings(phases, config)]
    if disk > free_bytes:
        found.append(
            f"the run needs {disk / 1e9:.1f} GB of disk and {free_bytes / 1e9:.1f} GB are free; "
            "make room, or lower train.keep_best"
        )
    return Plan(
        estimates=tuple(estimates),
        phases=phases,
        disk_bytes=disk,
        free_bytes=free_bytes,
        warnings=tuple(found),
    )


def _training_bytes(phases: Sequence[PhasePlan], config: TrainConfig, weight_bytes: int) -> int:
    """The checkpoints kept, one being written, and the optimizer's state twice."""
    kept = sum(
        min(config.keep_best + 1, p.num_epochs * config.checkpoints_per_epoch) for p in phases
    )
    return (kept + 1 + 2 * STATE_COPIES) * weight_bytes


def _warm_up_warnings(phases: Sequence[PhasePlan], config: TrainConfig) -> list[str]:
    """Name the phases that end while the learning rate still rises."""
    found = []
    done = 0
    for phase in phases:
        done = phase.num_steps + (done if config.warmup == "global" else 0)
        if done < config.warmup_steps:
            found.append(
                f"phase {phase.name} ends at step {done}, inside the warm-up of "
                f"{config.warmup_steps} steps: it never sees the full learning rate"
            )
    return found
