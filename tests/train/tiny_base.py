"""A base model of two layers and phases to train it on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from feldspar.config import StudentConfig, TrainConfig
from feldspar.records import Checkpoint, Conversation, Message, Phase, PhaseTraining, Source
from feldspar.runs import write_rows
from feldspar.student.model import base_checkpoint

torch.set_num_threads(1)

STUDENT = StudentConfig(base="tiny", device="cpu", max_length=60)
CONFIG = TrainConfig(checkpoints_per_epoch=2, keep_best=1)


def save_base(path: Path) -> Checkpoint:
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=260, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(["number"], trainer)
    torch.manual_seed(0)
    config = LlamaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
    )
    LlamaForCausalLM(config).save_pretrained(path)
    PreTrainedTokenizerFast(tokenizer_object=tokenizer).save_pretrained(path)
    return base_checkpoint(str(path))


def source(folder: Path, name: str, num_rows: int, *, extra: str = "", **draw: float) -> Source:
    """`extra` is the question of one row more."""
    questions = [f"number {i}" for i in range(num_rows)] + ([extra] if extra else [])
    rows = [
        Conversation(
            id=f"{name}-{i}",
            source=name,
            messages=(
                Message(role="user", content=question),
                Message(role="assistant", content=str(i % 7)),
            ),
        )
        for i, question in enumerate(questions)
    ]
    path = folder / f"{name}.jsonl.zst"
    write_rows(path, rows)
    return Source(name=name, path=str(path), digest=name, num_samples=len(rows), **draw)


class Planned(NamedTuple):
    """A phase, and how it is trained."""

    phase: Phase
    training: PhaseTraining


def phase(name: str, *sources: Source, **more: object) -> Planned:
    settings = {
        "num_epochs": 2,
        "batch_samples": 16,
        "learning_rate": 3e-3,
        "warmup_steps": 4,
        "select": "exams",
    }
    held_out = more.pop("held_out", ())
    training = PhaseTraining(name=name, **(settings | more))
    return Planned(Phase(name=name, sources=sources, held_out=held_out), training)


class FakeScore:
    """Marks checkpoints by `accuracy(phase, step)`: so many of the items are right, the first ones.

    Remembers what it was asked.
    """

    key = "fake"
    metric = "accuracy"

    def __init__(self, accuracy: Callable[[str, int], float], num_items: int = 200) -> None:
        self.accuracy, self.num_items = accuracy, num_items
        self.asked: list[tuple[str, int]] = []

    def values(self, checkpoint: Checkpoint) -> dict[str, float]:
        assert (Path(checkpoint.path) / "model.safetensors").is_file()
        self.asked.append((checkpoint.phase, checkpoint.step))
        num_right = round(self.accuracy(checkpoint.phase, checkpoint.step) * self.num_items)
        return {f"item {i:03d}": float(i < num_right) for i in range(self.num_items)}
