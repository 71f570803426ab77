"""Fine-tuning on picked answers: a phase over one source, through the phases' own door."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from feldspar.errors import TrainingError
from feldspar.prefer.candidates import RoundContext
from feldspar.records import Checkpoint, Conversation
from feldspar.runs import write_json
from feldspar.student.fit import LoopTrainer
from feldspar.student.model import Student
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training.lora import load_to_train
from feldspar.student.training.phase_trainer import PhaseSteps, PhaseTrainer, SaveCheckpoint
from feldspar.student.training.process_group import LaunchSettings
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings


class Preferred(NamedTuple):
    """A conversation to tune on; where a method compares, also the one it is preferred to."""

    chosen: Conversation
    rejected: Conversation | None = None


def tune(
    start: Checkpoint, rows: Iterable[Preferred], folder: Path, context: RoundContext
) -> Checkpoint:
    """Fine-tune `start` on `rows`; the phase is called as `folder` is. Found again when it is done.

    Raises TrainingError when no row fits into `student.max_length`.
    """
    done = folder / "checkpoint.json"
    if done.exists():
        made = Checkpoint(**json.loads(done.read_text(encoding="utf-8")))
        # The run may have been moved since.
        return replace(made, path=str(folder / "checkpoint"))
    steps = _steps(start, rows, folder, context)

    def save(step: int, save_to: SaveCheckpoint) -> None:
        write_json(done, asdict(save_to(folder / "checkpoint")))

    trainer = context.trainer or _own_trainer(context)
    trainer.train(steps, save)
    trainer.forget(folder)
    return Checkpoint(**json.loads(done.read_text(encoding="utf-8")))


def _own_trainer(context: RoundContext) -> PhaseTrainer:
    launch = LaunchSettings(
        num_processes=context.num_processes,
        config=context.student,
        shard=context.train.shard,
        seed=context.seed,
    )
    return LoopTrainer(launch=launch, progress=context.progress)


def _steps(
    start: Checkpoint, rows: Iterable[Preferred], folder: Path, context: RoundContext
) -> PhaseSteps:
    max_length = context.student.max_length
    student = load_to_train(start.path, context.student, seed=context.seed)
    given = list(rows)
    fitting = [row for row in given if _fits(student, row, max_length)]
    if not fitting:
        raise TrainingError(
            f"{folder.name}: all {len(given)} rows are longer than student.max_length = "
            f"{max_length} tokens; raise it, or lower prefer.max_new_tokens"
        )
    rejected = [row.rejected for row in fitting if row.rejected is not None]
    chosen, rejected_tokens = (
        _tokens(student, conversations, folder.name, max_length)
        for conversations in ([row.chosen for row in fitting], rejected)
    )
    schedule = _schedule(len(chosen), folder.name, context)
    return PhaseSteps(
        student=student,
        start=start.path,
        rows=chosen,
        schedule=schedule,
        settings=_settings(schedule.num_steps, context),
        folder=folder,
        objective=context.method.objective(chosen, rejected_tokens),
    )


def _fits(student: Student, row: Preferred, max_length: int) -> bool:
    given = [conversation for conversation in row if conversation is not None]
    return all(len(r.ids) <= max_length for r in student.template.render_all(given))


def _tokens(
    student: Student, conversations: Sequence[Conversation], phase: str, max_length: int
) -> TokenRows:
    return tokenise(student.template, [(phase, conversations)], max_length)


def _schedule(num_rows: int, phase: str, context: RoundContext) -> Schedule:
    return Schedule(
        sources=(SourceRows(name=phase, num_rows=num_rows),),
        batch_samples=context.config.batch_samples or context.train.batch_samples,
        num_epochs=context.config.num_epochs,
        phase=phase,
        seed=context.seed,
    )


def _settings(num_steps: int, context: RoundContext) -> FitSettings:
    train = context.train
    return FitSettings(
        learning_rate=context.config.learning_rate or train.learning_rate,
        # A warm-up that runs on across phases is over when the phases are.
        warmup_steps=train.warmup_steps if train.warmup == "per-phase" else 0,
        betas=train.betas,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        tokens_per_micro_batch=train.tokens_per_micro_batch,
        packing=train.packing,
        optimizer_states=train.optimizer_states,
        activation_checkpointing=train.recompute,
        checkpoint_steps=(num_steps,),
    )
