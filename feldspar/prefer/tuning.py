"""Fine-tuning on picked answers: the same loop as a phase's, over one source."""

import json
from collections.abc import Iterable
from dataclasses import asdict, replace
from pathlib import Path

from feldspar.errors import TrainingError
from feldspar.prefer.candidates import Workshop
from feldspar.records import Checkpoint, Conversation
from feldspar.runs import write_json
from feldspar.student.batch import tokenise
from feldspar.student.fit import FitSettings, fit
from feldspar.student.lora import load_to_train
from feldspar.student.model import save_checkpoint
from feldspar.student.peers import Ranks
from feldspar.student.schedule import Schedule, SourceRows
from feldspar.student.state import forget_state


def tune(start: Checkpoint, rows: Iterable[Conversation], here: Path, shop: Workshop) -> Checkpoint:
    """Fine-tune `start` on `rows`; the phase is called as `here` is. Found again when it is done.

    Raises TrainingError when no row fits into `student.max_length`.
    """
    done = here / "checkpoint.json"
    if done.exists():
        made = Checkpoint(**json.loads(done.read_text(encoding="utf-8")))
        # The run may have been moved since.
        return replace(made, path=str(here / "checkpoint"))
    phase = here.name
    student = load_to_train(start.path, shop.student, seed=shop.seed)
    tokens = tokenise(student.template, [(phase, rows)], shop.student.max_length)
    if not len(tokens):
        raise TrainingError(
            f"{phase}: all {sum(tokens.num_dropped)} rows are longer than student.max_length = "
            f"{shop.student.max_length} tokens; raise it, or lower prefer.max_new_tokens"
        )
    schedule = Schedule(
        sources=(SourceRows(name=phase, num_rows=len(tokens)),),
        batch_samples=shop.config.batch_samples or shop.train.batch_samples,
        num_epochs=shop.config.num_epochs,
        phase=phase,
        seed=shop.seed,
    )
    ranks = Ranks(
        num=shop.num_processes, start=start.path, config=shop.student, shard=shop.train.shard
    )
    fit(student, tokens, schedule, _settings(shop), here=here, progress=shop.progress, ranks=ranks)
    checkpoint = save_checkpoint(student, here / "checkpoint", phase=phase, step=schedule.num_steps)
    write_json(done, asdict(checkpoint))
    forget_state(here)
    return checkpoint


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
        compile=train.compile,
    )
