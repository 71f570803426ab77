"""Fine-tuning on picked answers: a phase over one source, through the phases' own door."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from feldspar.errors import TrainingError
from feldspar.files import write_json
from feldspar.models.ray_workers import places_of
from feldspar.prefer.candidates import RoundContext
from feldspar.prefer.methods.method import TuningRow
from feldspar.records import Candidate, Checkpoint, Conversation, Message, Prompt
from feldspar.stored import read_stored
from feldspar.student.fit import LoopTrainer
from feldspar.student.model import Student
from feldspar.student.token_rows import tokenise
from feldspar.student.training.lora import load_to_train
from feldspar.student.training.phase_trainer import PhaseSteps, PhaseTrainer, SaveCheckpoint
from feldspar.student.training.process_group import LaunchSettings
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings, settings_of


def tune(
    start: Checkpoint,
    rows: Sequence[TuningRow],
    prompts: Mapping[str, Prompt],
    folder: Path,
    context: RoundContext,
) -> Checkpoint:
    """Fine-tune `start` on `rows`, answers to `prompts` (by id); the phase is called as `folder`
    is. Found again when it is done.

    Raises TrainingError when no row fits into `student.max_length`.
    """
    done = folder / "checkpoint.json"
    if done.exists():
        made = read_stored(done, Checkpoint)
        # The run may have been moved since.
        return replace(made, path=str(folder / "checkpoint"))
    steps = _steps(start, rows, prompts, folder, context)

    def save(step: int, save_to: SaveCheckpoint) -> None:
        write_json(done, asdict(save_to(folder / "checkpoint")))

    trainer = _trainer(context)
    trainer.train(steps, save)
    trainer.forget(folder)
    return read_stored(done, Checkpoint)


def _trainer(context: RoundContext) -> PhaseTrainer:
    launch = LaunchSettings(
        num_processes=context.num_processes,
        config=context.student,
        shard=context.train.shard,
        seed=context.seed,
        places=places_of(context.train.workers),
    )
    return LoopTrainer(launch=launch, progress=context.progress)


def _steps(
    start: Checkpoint,
    rows: Sequence[TuningRow],
    prompts: Mapping[str, Prompt],
    folder: Path,
    context: RoundContext,
) -> PhaseSteps:
    max_length = context.student.max_length
    student = load_to_train(start.path, context.student, seed=context.seed)
    given = [_Given(row, *_conversations(row, prompts)) for row in rows]
    fitting = [one for one in given if _fits(student, one, max_length)]
    if not fitting:
        raise TrainingError(
            f"{folder.name}: all {len(given)} rows are longer than student.max_length = "
            f"{max_length} tokens; raise it, or lower prefer.max_new_tokens"
        )
    chosen, rejected = (
        tokenise(student.template, [(folder.name, conversations)], max_length)
        for conversations in (
            [one.chosen for one in fitting],
            [one.rejected for one in fitting if one.rejected is not None],
        )
    )
    schedule = _schedule(len(chosen), folder.name, context)
    return PhaseSteps(
        student=student,
        start=start.path,
        rows=chosen,
        schedule=schedule,
        settings=_settings(schedule.num_steps, context),
        folder=folder,
        objective=context.method.objective([one.row for one in fitting], chosen, rejected),
    )


class _Given(NamedTuple):
    """A row with its answers as conversations."""

    row: TuningRow
    chosen: Conversation
    rejected: Conversation | None


def _conversations(
    row: TuningRow, prompts: Mapping[str, Prompt]
) -> tuple[Conversation, Conversation | None]:
    rejected = None if row.rejected is None else _conversation(row.rejected, prompts)
    return _conversation(row.chosen, prompts), rejected


def _conversation(picked: Candidate, prompts: Mapping[str, Prompt]) -> Conversation:
    prompt = prompts[picked.prompt]
    answer = Message(role="assistant", content=picked.text)
    return Conversation(
        id=f"{prompt.id}/{picked.draw}", source=prompt.source, messages=(*prompt.messages, answer)
    )


def _fits(student: Student, given: _Given, max_length: int) -> bool:
    both = [one for one in (given.chosen, given.rejected) if one is not None]
    return all(len(r.ids) <= max_length for r in student.template.render_all(both))


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
    return settings_of(
        train,
        learning_rate=context.config.learning_rate or train.learning_rate,
        # A warm-up that runs on across phases is over when the phases are.
        warmup_steps=train.warmup_steps if train.warmup == "per-phase" else 0,
        checkpoint_steps=(num_steps,),
    )
