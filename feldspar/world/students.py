"""The world's own models: the base student, and the reward pair. Made once, kept by content.

    python -m feldspar.world.students --world '{"seed": 1}' --part student --folder F

makes one part in a process of its own, so that two are made at a time, one core each. The process
ends when its standard input closes, which also happens when its parent is killed; what it had
trained is found again.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import sys
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from feldspar.config import StudentConfig, WorldConfig
from feldspar.progress import Progress, Task
from feldspar.records import Conversation, Message
from feldspar.student.fit import LoopTrainer
from feldspar.student.model import Student, load_student, make_student
from feldspar.student.template.tokens import LAB
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training.phase_trainer import PhaseSteps
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings
from feldspar.world.corpus import (
    Row,
    base_rows,
    reward_aligned_rows,
    reward_base_rows,
    tokenizer_texts,
)
from feldspar.world.serve import world_of

Part = Literal["student", "reward-pair"]

SPECIAL_TOKENS = (LAB.stop, LAB.pad, *LAB.roles)
MAX_LENGTH = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """Of a model, and how long it is trained."""

    hidden: int
    layers: int
    steps: int
    learning_rate: float
    batch_samples: int = 64


STUDENT = Size(hidden=128, layers=2, steps=2000, learning_rate=3e-3)
REWARD_BASE = Size(hidden=192, layers=2, steps=1000, learning_rate=2e-3)
ALIGNED = Size(hidden=192, layers=2, steps=250, learning_rate=1e-3)


def make_part(part: Part, config: WorldConfig, folder: Path, progress: Progress) -> None:
    """Train one part into `folder`; what is there already is left as it is."""
    world = world_of(config)
    assert world is not None
    if part == "student":
        rows = base_rows(world, _num_rows(STUDENT, config), random.Random(f"{config.seed} base"))
        _make(
            new_student(STUDENT, config.seed), rows, STUDENT, config, folder / "student", progress
        )
        return
    base_path, aligned_path = folder / "reward-base", folder / "aligned"
    rng = random.Random(f"{config.seed} reward base")
    rows = reward_base_rows(world, _num_rows(REWARD_BASE, config), rng)
    student = new_student(REWARD_BASE, config.seed + 1)
    _make(student, rows, REWARD_BASE, config, base_path, progress)
    rng = random.Random(f"{config.seed} aligned")
    rows = reward_aligned_rows(world, _num_rows(ALIGNED, config), rng)
    aligned = load_student(str(base_path), StudentConfig(base=str(base_path), device="cpu"))
    _make(aligned, rows, ALIGNED, config, aligned_path, progress)


def new_student(size: Size, seed: int) -> Student:
    """A Llama of the world's size with new weights."""
    tokenizer = train_tokenizer()
    torch.manual_seed(seed)
    model = LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=size.hidden,
            intermediate_size=3 * size.hidden,
            num_hidden_layers=size.layers,
            num_attention_heads=4,
            num_key_value_heads=4,
            tie_word_embeddings=True,
            max_position_embeddings=512,
            bos_token_id=None,
            eos_token_id=0,
            pad_token_id=1,
        )
    )
    return make_student(model, tokenizer, StudentConfig(base="", device="cpu"))


def train_tokenizer() -> PreTrainedTokenizerFast:
    """A byte-level BPE in which every word and number of the world is about one token."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=1200,
        special_tokens=[AddedToken(t, special=True, normalized=False) for t in SPECIAL_TOKENS],
        min_frequency=4,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(tokenizer_texts(), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token=LAB.stop,
        pad_token=LAB.pad,
        clean_up_tokenization_spaces=False,
    )


def _num_rows(size: Size, config: WorldConfig) -> int:
    return size.batch_samples * _steps(size, config)


def _steps(size: Size, config: WorldConfig) -> int:
    return max(1, round(size.steps * config.training))


def _make(
    student: Student,
    rows: Iterable[Row],
    size: Size,
    config: WorldConfig,
    path: Path,
    progress: Progress,
) -> None:
    """Train `student` on each row once and save it at `path`."""
    if path.exists():
        return
    tokens = _tokens(student, rows)
    steps = len(tokens) // size.batch_samples
    schedule = Schedule(
        sources=(SourceRows(name="world", num_rows=len(tokens)),),
        batch_samples=size.batch_samples,
        num_epochs=1,
        phase=path.name,
        seed=config.seed,
    )
    settings = FitSettings(
        learning_rate=size.learning_rate,
        warmup_steps=min(100, steps // 10),
        decay_steps=round(0.3 * steps),
        checkpoint_steps=(schedule.num_steps,),
    )
    phase = PhaseSteps(
        student=student,
        rows=tokens,
        schedule=schedule,
        settings=settings,
        folder=path.with_name(f"{path.name}.training"),
    )
    LoopTrainer(progress=progress).train(phase, lambda step, save: save(path))


def _tokens(student: Student, rows: Iterable[Row]) -> TokenRows:
    conversations = (_conversation(str(i), row) for i, row in enumerate(rows))
    return tokenise(student.template, [("world", conversations)], MAX_LENGTH)


def _conversation(row_id: str, row: Row) -> Conversation:
    answer = Message(role="assistant", content=row.answer)
    if not row.question:
        return Conversation(id=row_id, source="world", messages=(answer,), train_on="everything")
    question = Message(role="user", content=row.question)
    return Conversation(id=row_id, source="world", messages=(question, answer))


class _Lines:
    """Progress as lines of JSON on standard output, for the process that shows it."""

    @contextmanager
    def task(self, name: str, total: float | None, unit: str, done: float = 0) -> Iterator[Task]:
        _say({"task": name, "total": total, "unit": unit, "done": done})
        yield _LineTask()


class _LineTask:
    def advance(self, by: float = 1, **figures: float | str) -> None:
        _say({"by": by, "figures": figures})


def _say(line: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def _end_with_parent() -> None:
    """Leave at once when standard input closes: whoever wanted the model is gone."""
    # Not through sys.stdin: a daemon thread that holds its lock breaks the interpreter's end.
    while os.read(0, 1024):
        pass
    os._exit(1)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--world", required=True)
    parser.add_argument("--part", choices=("student", "reward-pair"), required=True)
    parser.add_argument("--folder", type=Path, required=True)
    arguments = parser.parse_args()
    threading.Thread(target=_end_with_parent, daemon=True).start()
    torch.set_num_threads(1)
    config = WorldConfig.model_validate_json(arguments.world)
    make_part(arguments.part, config, arguments.folder, _Lines())


if __name__ == "__main__":
    main()
