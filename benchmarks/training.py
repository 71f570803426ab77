"""Training speed on a CPU: `fit` against TRL, a padded Trainer, and the machine's own matmul peak.

    python benchmarks/training.py [--quick] [--sizes 12M 60M] [--dtypes float32 bfloat16] [--out F]

2,000 synthetic chats with lognormal lengths (median 120 tokens, at most 1,024), vocabulary 8k. All
arms train the same samples in the same order, `--batch` samples an optimizer step, one after the
other in each round, each round beginning with another arm; all rounds count together. An
arm's first step in a round is not timed. The peer arms are given rows that are tokenised already.
Needs `trl`, `accelerate` and `datasets` beside Feldspar.

Beside AMX, oneDNN can be told to use less: ONEDNN_MAX_CPU_ISA=AVX512_CORE_BF16 shows a processor
that has avx512_bf16 alone.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import platform
import random
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from functools import partial
from importlib.metadata import version
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from feldspar.cli.main import WAITING
from feldspar.config import StudentConfig
from feldspar.records import Conversation, Message
from feldspar.student import fit as fitting
from feldspar.student.batch import TokenRows, tokenise
from feldspar.student.fit import FitSettings, fit
from feldspar.student.model import Student, make_student
from feldspar.student.schedule import Schedule, SourceRows

VOCABULARY = 8192
LEARNING_RATE = 1e-4
SIZES: dict[str, dict[str, Any]] = {
    "1M": {"hidden_size": 64, "intermediate_size": 172, "num_hidden_layers": 2},
    "12M": {"hidden_size": 384, "intermediate_size": 1024, "num_hidden_layers": 5},
    "60M": {"hidden_size": 768, "intermediate_size": 2048, "num_hidden_layers": 8},
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
FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_tile")


class Timed(NamedTuple):
    """Wall and CPU seconds of one arm's timed steps, and the tokens in them."""

    seconds: float
    cpu_seconds: float
    total_tokens: int
    supervised_tokens: int
    flops: float


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


def flops_of(size: str, rows: TokenRows, indices: list[int]) -> float:
    """Floating-point operations that a step needs: forward once, backward twice.

    6 per weight of the layers and token, 6 per weight of the head and *supervised* token, causal
    attention 6 * layers * hidden * length^2. What an arm computes beyond (padding, the head at
    other places, the forward pass again) does not count.
    """
    shape = SIZES[size]
    hidden, layers = shape["hidden_size"], shape["num_hidden_layers"]
    linear = layers * (4 * hidden**2 + 3 * hidden * shape["intermediate_size"])
    total = 0.0
    for index in indices:
        ids, mask = rows.row(index)
        total += 6 * linear * len(ids) + 6 * hidden * VOCABULARY * int(mask.sum())
        total += 6 * layers * hidden * len(ids) ** 2
    return total


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
    fitting._STATE_SECONDS = math.inf
    fit(student, rows, schedule, settings, here=job.here / "feldspar", progress=clock)
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


def time_arm(name: str, job: Job) -> Timed:
    """An arm in a process of its own, its threads waiting as its users' do."""
    for key, value in WAITING.items():
        os.environ.pop(key, None)
        if name.startswith("feldspar"):
            os.environ[key] = value
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(run_arm, name, job, torch.get_num_threads()).result()


def run_arm(name: str, job: Job, num_threads: int) -> Timed:
    """The time between the end of an arm's first step and of its last."""
    torch.set_num_threads(num_threads)
    CPU_TIMES.clear()
    # The peers print their last figures.
    with warnings.catch_warnings(), redirect_stdout(sys.stderr):
        warnings.simplefilter("ignore")
        times = ARMS[name](job)
    gc.collect()
    # Packing peers make other steps of the same samples: what ran after the first is prorated.
    timed = [i for step in job.steps[1:] for i in step]
    everything = [i for step in job.steps for i in step]
    share = 1.0
    if len(times) != len(job.steps):
        tokens = [int(job.rows.lengths[list(x)].sum()) for x in (timed, everything)]
        share = (len(times) - 1) / len(times) * tokens[1] / tokens[0]
    lengths = job.rows.lengths[timed]
    return Timed(
        seconds=(times[-1] - times[0]) / share,
        cpu_seconds=(CPU_TIMES[-1] - CPU_TIMES[0]) / share,
        total_tokens=int(lengths.sum()),
        supervised_tokens=sum(int(job.rows.row(i).mask.sum()) for i in timed),
        flops=flops_of(job.size, job.rows, timed),
    )


def matmul_peak(dtype: str) -> float:
    """Best FLOP/s of several shapes of `linear`, at the threads that are set."""
    kind = getattr(torch, dtype)
    best = 0.0
    for rows, inner, outer in (
        (2048,) * 3,
        (4096, 1024, 4096),
        (4096, 768, 2048),
        (4096, 384, 1024),
    ):
        a, b = torch.randn(rows, inner).to(kind), torch.randn(outer, inner).to(kind)
        for _ in range(8):
            started = time.perf_counter()
            torch.nn.functional.linear(a, b)
            best = max(best, 2 * rows * inner * outer / (time.perf_counter() - started))
    return best


def run_case(size: str, dtype: str, options: argparse.Namespace) -> list[dict[str, Any]]:
    """All arms, interleaved over rounds; one result an arm."""
    rows = tokenise(make_bench_student(size, dtype).template, [("chats", chats(2000))], 1024)
    order = np.random.default_rng(1).permutation(len(rows)).tolist()
    seen: dict[str, list[Timed]] = {name: [] for name in options.arms}
    peaks = []
    per_round = options.batch * (options.steps + 1)
    for number in range(options.first_round, options.rounds):
        start = number * per_round % (len(order) - per_round + 1)
        cut = order[start : start + per_round]
        steps = tuple(tuple(cut[i : i + options.batch]) for i in range(0, per_round, options.batch))
        names = (
            options.arms[number % len(options.arms) :] + options.arms[: number % len(options.arms)]
        )
        peaks.append(matmul_peak(dtype))
        for name in names:
            with tempfile.TemporaryDirectory() as here:
                job = Job(
                    size=size,
                    dtype=dtype,
                    rows=rows,
                    steps=steps,
                    token_budget=options.token_budget,
                    here=Path(here),
                )
                seen[name].append(time_arm(name, job))
            print(size, dtype, name, seen[name][-1], file=sys.stderr, flush=True)
    peak = max(peaks)
    return [summary(size, dtype, name, seen[name], peak) for name in options.arms]


def summary(size: str, dtype: str, name: str, seen: list[Timed], peak: float) -> dict[str, Any]:
    """Over all rounds together: how much a peer pads is different in each."""
    seconds = sum(t.seconds for t in seen)
    tokens = sum(t.total_tokens for t in seen)
    return {
        "size": size,
        "dtype": dtype,
        "arm": name,
        "tokens_per_second": tokens / seconds,
        "supervised_per_second": sum(t.supervised_tokens for t in seen) / seconds,
        "share_of_peak": sum(t.flops for t in seen) / seconds / peak,
        "cpu_ms_per_token": 1e3 * sum(t.cpu_seconds for t in seen) / tokens,
        "peak_gflops": peak / 1e9,
        "seconds": [round(t.seconds, 2) for t in seen],
    }


def table(results: list[dict[str, Any]]) -> str:
    head = (
        "| size | dtype | arm | total tokens/s | supervised tokens/s | x TRL | share of the peak "
    )
    lines = [head + "| CPU ms a token |", "|---|---|---|---:|---:|---:|---:|---:|"]
    for r in results:
        case = [o for o in results if (o["size"], o["dtype"]) == (r["size"], r["dtype"])]
        base = next((o["tokens_per_second"] for o in case if o["arm"] == "trl"), math.nan)
        lines.append(
            f"| {r['size']} | {r['dtype']} | {r['arm']} | {r['tokens_per_second']:,.0f} | "
            f"{r['supervised_per_second']:,.0f} | {r['tokens_per_second'] / base:.2f} | "
            f"{r['share_of_peak']:.3f} | {r['cpu_ms_per_token']:.3f} |"
        )
    return "\n".join(lines)


def processor() -> str:
    """Its name, and which of the vector extensions that matter here it has."""
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return platform.processor() or platform.machine()
    text = path.read_text()
    name = next((x.split(":")[1].strip() for x in text.splitlines() if "model name" in x), "CPU")
    flags = next((x.split(":")[1].split() for x in text.splitlines() if x.startswith("flags")), [])
    return f"{name}, {os.cpu_count()} cores, {' '.join(f for f in FEATURES if f in flags)}"


def report(results: list[dict[str, Any]], options: argparse.Namespace) -> str:
    libraries = ("torch", "transformers", "trl", "accelerate")
    peaks = {(r["dtype"]): r["peak_gflops"] for r in results}
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA", "not limited")
    return "\n".join(
        [
            "# Training speed on a CPU",
            "",
            f"{processor()}; {torch.get_num_threads()} threads; ONEDNN_MAX_CPU_ISA {isa}; "
            f"Python {platform.python_version()}, "
            + ", ".join(f"{name} {version(name)}" for name in libraries)
            + ".",
            "Matmul peak: " + ", ".join(f"{d} {p:,.0f} GFLOP/s" for d, p in peaks.items()) + ".",
            f"{options.rounds} rounds of {options.steps} timed steps of {options.batch} samples "
            "each, the same samples for every arm, arms interleaved, each in a process of its own; "
            "all rounds together. Threads wait as the command line has it "
            f"({' '.join(f'{k}={v}' for k, v in WAITING.items())}), the peers' as torch has it.",
            "",
            table(results),
            "",
            f"    {options.environment}python benchmarks/training.py {' '.join(sys.argv[1:])}",
            "",
        ]
    )


def main() -> None:
    parser = argparse.ArgumentParser(description="Training speed on a CPU, against peers.")
    parser.add_argument("--sizes", nargs="+", default=["12M", "60M"], choices=["1M", "12M", "60M"])
    parser.add_argument("--dtypes", nargs="+", default=["float32", "bfloat16"])
    parser.add_argument("--arms", nargs="+", default=list(ARMS), choices=list(ARMS))
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--first-round", type=int, default=0, help="begin with this, to go on")
    parser.add_argument("--steps", type=int, default=2, help="timed steps a round")
    parser.add_argument("--batch", type=int, default=64, help="samples an optimizer step")
    parser.add_argument(
        "--token-budget", type=int, default=FitSettings(learning_rate=1).tokens_per_micro_batch
    )
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--quick", action="store_true", help="one round of one step")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    if options.quick:
        options.rounds, options.steps = 1, 1
    isa = os.environ.get("ONEDNN_MAX_CPU_ISA")
    options.environment = f"ONEDNN_MAX_CPU_ISA={isa} " if isa else ""
    torch.set_num_threads(options.threads)
    results = [
        r
        for size in options.sizes
        for dtype in options.dtypes
        for r in run_case(size, dtype, options)
    ]
    text = report(results, options)
    print(text)
    if options.out:
        options.out.write_text(text, encoding="utf-8")
        options.out.with_suffix(".json").write_text(json.dumps(results, indent=1), encoding="utf-8")


if __name__ == "__main__":
    main()
