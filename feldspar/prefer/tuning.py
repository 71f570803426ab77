"""Fine-tuning on picked answers: the same loop as a phase's, over one source."""

import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import NamedTuple

from feldspar.errors import TrainingError
from feldspar.prefer.candidates import Workshop
from feldspar.prefer.dpo import PreferencePairs
from feldspar.records import Checkpoint, Conversation
from feldspar.runs import write_json
from feldspar.student.fit import FitSettings, fit
from feldspar.student.model import Student, save_checkpoint
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training.forward import Compute
from feldspar.student.training.lora import load_to_train
from feldspar.student.training.process_group import Ranks
from feldspar.student.training.resume_state import forget_state
from feldspar.student.training.schedule import Schedule, SourceRows


class Preferred(NamedTuple):
    """A conversation to tune on, and for DPO the same with the answer that it is preferred to."""

    chosen: Conversation
    rejected: Conversation | None = None


def tune(start: Checkpoint, rows: Iterable[Preferred], here: Path, shop: Workshop) -> Checkpoint:
    """Fine-tune `start` on `rows`; the phase is called as `here` is. Found again when it is done.

    Raises TrainingError when no row fits into `student.max_length`.
    """
    done = here / "checkpoint.json"
    if done.exists():
        made = Checkpoint(**json.loads(done.read_text(encoding="utf-8")))
        # The run may have been moved since.
        return replace(made, path=str(here / "checkpoint"))
    student = load_to_train(start.path, shop.student, seed=shop.seed)
    given = list(rows)
    fitting = [row for row in given if _fits(student, row, shop.student.max_length)]
    if not fitting:
        raise TrainingError(
            f"{here.name}: all {len(given)} rows are longer than student.max_length = "
            f"{shop.student.max_length} tokens; raise it, or lower prefer.max_new_tokens"
        )
    tokens = _tokens(student, [row.chosen for row in fitting], here.name, shop)
    rejected = [row.rejected for row in fitting if row.rejected is not None]
    objective = None
    if shop.config.method == "dpo":
        objective = PreferencePairs(
            tokens, _tokens(student, rejected, here.name, shop), shop.config.dpo_beta
        )
        objective.find_reference(
            Compute(student, packing=shop.train.packing),
            here / "reference.json",
            shop.train.tokens_per_micro_batch,
        )
    schedule = _schedule(tokens, here.name, shop)
    ranks = Ranks(
        num=shop.num_processes,
        start=start.path,
        config=shop.student,
        shard=shop.train.shard,
        seed=shop.seed,
    )
    settings = _settings(shop)
    fit(
        student, tokens, schedule, settings,
        here=here, progress=shop.progress, ranks=ranks, objective=objective,
    )  # fmt: skip
    phase, step = here.name, schedule.num_steps
    checkpoint = save_checkpoint(student, here / "checkpoint", phase=phase, step=step)
    write_json(done, asdict(checkpoint))
    forget_state(here)
    return checkpoint


def _fits(student: Student, row: Preferred, max_length: int) -> bool:
    given = [conversation for conversation in row if conversation is not None]
    return all(len(r.ids) <= max_length for r in student.template.render_all(given))


def _tokens(
    student: Student, conversations: Sequence[Conversation], phase: str, shop: Workshop
) -> TokenRows:
    return tokenise(student.template, [(phase, conversations)], shop.student.max_length)


def _schedule(tokens: TokenRows, phase: str, shop: Workshop) -> Schedule:
    return Schedule(
        sources=(SourceRows(name=phase, num_rows=len(tokens)),),
        batch_samples=shop.config.batch_samples or shop.train.batch_samples,
        num_epochs=shop.config.num_epochs,
        phase=phase,
        seed=shop.seed,
    )


def _settings(shop: Workshop) -> FitSettings:
    train = shop.train
    return FitSettings(
        learning_rate=shop.config.learning_rate or train.learning_rate,
        # A warm-up that runs on across phases is over when the phases are.
        warmup_steps=train.warmup_steps if train.warmup == "per-phase" else 0,
        betas=train.betas,
        weight_decay=train.weight_decay,
        max_grad_norm=train.max_grad_norm,
        tokens_per_micro_batch=train.tokens_per_micro_batch,
        packing=train.packing,
        optimizer_states=train.optimizer_states,
        recompute=train.recompute,
    )
