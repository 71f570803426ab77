"""Who trains in benchmarks/training.py: `fit`, TRL and the plain Trainer, over the same chats."""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from feldspar.config import StudentConfig
from feldspar.records import Conversation, Message
from feldspar.student.fit import fit
from feldspar.student.model import Student, make_student
from feldspar.student.token_rows import TokenRows, tokenise
from feldspar.student.training import loop as loops
from feldspar.student.training.schedule import Schedule, SourceRows
from feldspar.student.training.settings import FitSettings

VOCABULARY = 8192
LEARNING_RATE = 1e-4
SIZES: dict[str, dict[str, Any]] = {
    "1M": {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2},
    "12M": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 5},
    "60M": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8},
    # SmolLM2-135M's, with random weights.
    "135M": {
        "hidden_size": 576,
        "intermediate_size": 1536,
        "num_hidden_layers": 30,
        "num_key_value_heads": 3,
        "vocab_size": 49152,
    },
    "1B": {
        "hidden_size": 2048,
        "intermediate_size": 8192,
        "num_hidden_layers": 16,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "vocab_size": 32000,
    },
    "7B": {
        "hidden_size": 4096,
        "intermediate_size": 11008,
        "num_hidden_layers": 32,
        "num_attention_heads": 32,
        "vocab_size": 32000,
        "tie_word_embeddings": False,
    },
    "tiny": {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2},
}
"""Where nothing else is said, embeddings and head are one table and heads 64 wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Job:
    """What every arm is given in one round."""

    size: str
    dtype: str
    rows: TokenRows
    steps: tuple[tuple[int, ...], ...]
    """Rows of each optimizer step; the first is not timed."""
    token_budget: int
    here: Path
    device: str = "cpu"


def chats(
    num_rows: int, *, median: int = 120, longest: int = 1024, seed: int = 1
) -> list[Conversation]:
    """Rows of `w17 w3 ...`, one token a word; .3 to .8 of a row is its answer."""
    rng = random.Random(seed)
    rows = []
    for number in range(num_rows):
        drawn = round(rng.lognormvariate(math.log(median), 0.8))
        length = min(longest, max(16, drawn)) - 8
        words = [f"w{rng.randrange(8000)}" for _ in range(length)]
        cut = max(1, min(length - 1, round(length * (1 - rng.uniform(0.3, 0.8)))))
        question = Message(role="user", content=" ".join(words[:cut]))
        answer = Message(role="assistant", content=" ".join(words[cut:]))
        rows.append(Conversation(id=str(number), source="chats", messages=(question, answer)))
    return rows


def make_tokenizer() -> PreTrainedTokenizerFast:
    words = {f"w{i}": i for i in range(8000)} | {"<unk>": 8000}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, unk_token="<unk>")


def make_model(size: str, device: str = "cpu") -> LlamaForCausalLM:
    torch.manual_seed(0)
    shape = {
        "vocab_size": VOCABULARY,
        "num_attention_heads": max(1, SIZES[size]["hidden_size"] // 64),
        "tie_word_embeddings": True,
    }
    config = LlamaConfig(**shape | SIZES[size], max_position_embeddings=4096)
    with torch.device(device):
        return LlamaForCausalLM(config)


def make_bench_student(
    size: str, dtype: str, device: str = "cpu", *, compile: bool = False
) -> Student:
    config = StudentConfig.model_validate(
        {"base": "none", "device": device, "dtype": dtype, "compile": compile}
    )
    return make_student(make_model(size, device), make_tokenizer(), config)


def run_feldspar(job: Job, *, compile: bool = False) -> list[float]:
    """Times at which optimizer steps ended, by the real `fit`. Compiling comes before the first."""
    student = make_bench_student(job.size, job.dtype, compile=compile)
    picked = [i for step in job.steps for i in step]
    everything = chats(2000)
    rows = tokenise(student.template, [("chats", (everything[i] for i in picked))], 1024)
    schedule = _InOrder(
        sources=(SourceRows(name="chats", num_rows=len(picked)),),
        batch_samples=len(job.steps[0]),
        num_epochs=1,
        phase="benchmark",
        seed=1,
    )
    settings = FitSettings(learning_rate=LEARNING_RATE, tokens_per_micro_batch=job.token_budget)
    clock = _Clock()
    # The peers save nothing either; a real run spends a twentieth of its time on it at most.
    loops._STATE_SECONDS = math.inf
    fit(student, rows, schedule, settings, folder=job.here / "feldspar", progress=clock)
    return clock.times


class _InOrder(Schedule):
    """The given rows one after another, as the peers take them."""

    def step(self, number: int) -> np.ndarray[Any, np.dtype[np.int64]]:
        start = number * self.batch_samples
        return np.arange(start, start + self.batch_samples, dtype=np.int64)


class _Clock:
    """A progress display that notes when each step ended, in wall and CPU seconds."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.cpu: list[float] = []

    @contextmanager
    def task(self, name: str, total: float | None, unit: str, done: float = 0) -> Iterator[_Clock]:
        yield self

    def advance(self, by: float = 1, **figures: float | str) -> None:
        self.times.append(time.perf_counter())
        CPU_TIMES.append(time.process_time())


CPU_TIMES: list[float] = []
"""Process time at each ended step of the arm that runs."""


def run_trl(job: Job, **options: Any) -> list[float]:
    """SFTTrainer with its defaults: padded batches of 8, recomputation."""
    from trl import SFTConfig, SFTTrainer

    settings = _arguments(job) | options
    trainer = SFTTrainer(
        model=make_model(job.size, job.device),
        args=SFTConfig(
            **settings, max_length=int(job.rows.lengths.max()), completion_only_loss=True
        ),
        train_dataset=_dataset(job),
        processing_class=_padded(make_tokenizer()),
        callbacks=[_callback()],
    )
    return _train(trainer)


def run_trl_packing(job: Job) -> list[float]:
    """Best-fit packing into rows of 1,024 tokens, one at a time, as many a step as the others see.

    The default 8 at a time would need an attention mask of 8,192 by 8,192 on a CPU.
    """
    per_step = sum(int(job.rows.lengths[list(step)].sum()) for step in job.steps) / len(job.steps)
    accumulated = max(1, round(per_step / 1024))
    rows_at_once = {"per_device_train_batch_size": 1, "gradient_accumulation_steps": accumulated}
    return run_trl(job, packing=True, **rows_at_once)


def run_trainer(job: Job) -> list[float]:
    """The plain Trainer with padded batches of 8 and no recomputation."""
    from transformers import DataCollatorForSeq2Seq, Trainer, TrainingArguments

    tokenizer = _padded(make_tokenizer())
    trainer = Trainer(
        model=make_model(job.size, job.device),
        args=TrainingArguments(**_arguments(job)),
        train_dataset=_dataset(job),
        data_collator=DataCollatorForSeq2Seq(tokenizer),
        callbacks=[_callback()],
    )
    return _train(trainer)


ARMS: dict[str, Callable[[Job], list[float]]] = {
    "feldspar": run_feldspar,
    "feldspar compiled": partial(run_feldspar, compile=True),
    "trl": run_trl,
    "trl packing": run_trl_packing,
    "trainer": run_trainer,
}


def _arguments(job: Job) -> dict[str, Any]:
    return {
        "output_dir": str(job.here / "peer"),
        "per_device_train_batch_size": 8,
        "gradient_accumulation_steps": len(job.steps[0]) // 8,
        "num_train_epochs": 1,
        "learning_rate": LEARNING_RATE,
        "lr_scheduler_type": "constant",
        "report_to": "none",
        "save_strategy": "no",
        "use_cpu": job.device == "cpu",
        "disable_tqdm": True,
        "logging_strategy": "no",
        "seed": 1,
        "bf16": job.dtype == "bfloat16",
    }


def _padded(tokenizer: PreTrainedTokenizerFast) -> PreTrainedTokenizerFast:
    tokenizer.add_special_tokens({"pad_token": "<|pad|>", "eos_token": "<|endoftext|>"})
    return tokenizer


def _dataset(job: Job) -> Any:
    from datasets import Dataset

    picked = [job.rows.row(i) for step in job.steps for i in step]
    return Dataset.from_dict(
        {
            "input_ids": [p.ids.tolist() for p in picked],
            "labels": [np.where(p.mask, p.ids, -100).tolist() for p in picked],
        }
    )


def _callback() -> Any:
    from transformers import TrainerCallback

    class Ends(TrainerCallback):  # type: ignore[misc]
        def __init__(self) -> None:
            self.times: list[float] = []

        def on_step_end(self, *_: Any, **__: Any) -> None:
            self.times.append(time.perf_counter())
            CPU_TIMES.append(time.process_time())

    return Ends()


def _train(trainer: Any) -> list[float]:
    trainer._get_train_sampler = lambda dataset=None: torch.utils.data.SequentialSampler(
        trainer.train_dataset if dataset is None else dataset
    )
    trainer.train()
    (ends,) = [c for c in trainer.callback_handler.callbacks if type(c).__name__ == "Ends"]
    times: list[float] = ends.times
    return times
