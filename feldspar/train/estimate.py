"""What training will cost, before it is done. No torch here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from feldspar.config import TrainConfig
from feldspar.records import Estimate, Phase, PhaseTraining
from feldspar.student.training.schedule import Schedule, SourceRows, checkpoint_steps

_FLOAT_BYTES = 4


def estimate(
    rows_per_epoch: Mapping[str, int],
    config: TrainConfig,
    num_parameters: int,
    num_trained: int | None = None,
) -> Estimate:
    """Optimizer steps and disk of all phases, by the rows that an epoch of each draws.

    Steps are exact where no row is dropped for its length.
    """
    schedules = [
        Schedule(
            sources=(SourceRows(name=phase.name, num_rows=rows_per_epoch[phase.name]),),
            batch_samples=phase.batch_samples,
            num_epochs=phase.num_epochs,
            phase=phase.name,
            seed=0,
        )
        for phase in config.of_phases()
    ]
    return Estimate(
        step="trained",
        optimizer_steps=sum(schedule.num_steps for schedule in schedules),
        disk_bytes=disk_bytes(schedules, config, num_parameters, num_trained),
        note="checkpoints kept, one being written, and the optimizer's state twice",
    )


def estimate_merge(config: TrainConfig, num_parameters: int) -> Estimate:
    """Disk of merged weights: those that are chosen, and those that are tried just now."""
    num_kept = len(config.phase) if config.merges_each_phase else 1
    return Estimate(
        step="merged",
        disk_bytes=(num_kept + 1) * _FLOAT_BYTES * num_parameters,
        note="the weights chosen, and those that are tried at the time",
    )


def schedule_of(
    phase: Phase, training: PhaseTraining, num_rows: Iterable[int], seed: int
) -> Schedule:
    """The phase's schedule; `num_rows` are the rows that each source really has."""
    return Schedule(
        sources=tuple(
            SourceRows(name=s.name, num_rows=n, fraction=s.fraction, share=s.share)
            for s, n in zip(phase.sources, num_rows, strict=True)
        ),
        batch_samples=training.batch_samples,
        num_epochs=training.num_epochs,
        phase=phase.name,
        seed=seed,
    )


def disk_bytes(
    schedules: Iterable[Schedule],
    config: TrainConfig,
    num_parameters: int,
    num_trained: int | None = None,
) -> int:
    """Most that is on disk at once: checkpoints kept, one being written, and the state twice.

    `num_trained`: of the parameters, where not all are; the state holds these and their moments.
    """
    checkpoint = _FLOAT_BYTES * num_parameters
    kept = 0
    for schedule in schedules:
        steps = checkpoint_steps(
            schedule.steps_per_epoch, schedule.num_epochs, config.checkpoints_per_epoch
        )
        kept += min(config.keep_best + 1, len(steps))
    moment = _FLOAT_BYTES if config.optimizer_states == "float32" else _FLOAT_BYTES // 2
    state = (_FLOAT_BYTES + 2 * moment) * (num_parameters if num_trained is None else num_trained)
    return (kept + 1) * checkpoint + 2 * state
