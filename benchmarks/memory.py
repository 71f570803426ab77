"""Predicted memory of training beside what it takes: python benchmarks/memory.py [--write]

Each case trains a model of random weights for two steps in a process of its own. On a CPU the peak
is the sum of live tensor bytes after every allocation and release, as torch's profiler reports
them, from before the model is made; on a GPU it is the allocator's peak. Beside it stands the peak
of resident memory above what the process held when all was imported. Where two processes share
each step, the figures are the first one's, without the model that it keeps whole in host memory.
With a GPU a 7B is trained too; without one this says so.
"""

from __future__ import annotations

import argparse
import json
import platform
import resource
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from feldspar.config import ArchitectureConfig, StudentConfig
from feldspar.student.training.memory import Method, estimate_memory

HERE = Path(__file__).parent
TOLERANCE = 0.10
MIB = 2**20

LLAMA = ArchitectureConfig(
    hidden_size=640, num_layers=10, intermediate_size=1728, vocabulary=8192, num_heads=10
)
QWEN3 = ArchitectureConfig(
    hidden_size=512,
    num_layers=14,
    intermediate_size=1536,
    vocabulary=32768,
    num_heads=8,
    num_kv_heads=4,
    head_size=128,
    qk_norm=True,
    tied=True,
)
MISTRAL_7B = ArchitectureConfig(
    hidden_size=4096,
    num_layers=32,
    intermediate_size=14336,
    vocabulary=32000,
    num_heads=32,
    num_kv_heads=8,
)
MODELS = {"llama": LLAMA, "qwen3": QWEN3, "mistral": MISTRAL_7B}


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """One training: a family, rows of `length` tokens, `num_rows` of them at once."""

    family: str
    method: Method
    length: int
    num_rows: int
    device: str = "cpu"

    @property
    def sizes(self) -> ArchitectureConfig:
        return MODELS[self.family]

    @property
    def num_tokens(self) -> int:
        return self.length * self.num_rows

    @property
    def predicted_bytes(self) -> int:
        half = self.num_rows * (self.length - self.length // 2)
        return estimate_memory(self.sizes, self.method, self.num_tokens, half).total


WAYS = (
    Method(compute="float32"),
    Method(),
    Method(states="bfloat16"),
    Method(activation_checkpointing=True),
)
SHARED = (
    Method(compute="float32", shard="step", num_shards=2),
    Method(shard="step", num_shards=2),
    Method(shard="layer", num_shards=2),
    Method(shard="layer", num_shards=2, activation_checkpointing=True),
)
CPU_CASES = [
    *(
        Case(family="llama", method=method, length=length, num_rows=1024 // length)
        for method in WAYS
        for length in (256, 1024)
    ),
    *(Case(family="llama", method=method, length=256, num_rows=4) for method in SHARED),
    Case(family="qwen3", method=Method(), length=256, num_rows=4),
    Case(family="qwen3", method=SHARED[1], length=256, num_rows=4),
]
GPU_CASES = [
    Case(family="mistral", method=method, length=length, num_rows=4096 // length, device="cuda")
    for method in (
        Method(states="bfloat16"),
        Method(states="bfloat16", activation_checkpointing=True),
    )
    for length in (1024, 4096)
]


def measure(case: Case) -> dict[str, float]:
    """Train for two steps in this process; peak bytes of tensors, and of resident memory."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    from feldspar.student.fit import fit  # noqa: F401  imported before the baseline is taken

    baseline = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    if case.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        train(case)
        return {"tensors": torch.cuda.max_memory_allocated(), "resident": 0}
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiled:
        train(case)
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - baseline
    live = peak = 0
    for event in profiled.profiler.kineto_results.events():
        if event.name() == "[memory]":
            live += event.nbytes()
            peak = max(peak, live)
    if case.method.num_shards > 1:
        peak -= 4 * case.sizes.num_parameters
    return {"tensors": peak, "resident": resident}


def train(case: Case) -> None:
    from transformers import AutoConfig, AutoModelForCausalLM

    from feldspar.student.fit import fit
    from feldspar.student.model import make_student, save_checkpoint
    from feldspar.student.training.process_group import LaunchSettings
    from feldspar.student.training.schedule import Schedule, SourceRows
    from feldspar.student.training.settings import FitSettings
    from feldspar.world.students import train_tokenizer

    sizes = case.sizes
    config = AutoConfig.for_model(
        case.family,
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.hidden_size,
        intermediate_size=sizes.intermediate_size,
        num_hidden_layers=sizes.num_layers,
        num_attention_heads=sizes.num_heads,
        num_key_value_heads=sizes.num_kv_heads or sizes.num_heads,
        head_dim=sizes.query_size // sizes.num_heads,
        tie_word_embeddings=sizes.tied,
        max_position_embeddings=8192,
        sliding_window=None,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    model: Any = AutoModelForCausalLM.from_config(config)
    student_config = StudentConfig(base="", device=case.device, dtype=case.method.compute)
    student = make_student(model, train_tokenizer(), student_config)
    rows = made_rows(case)
    schedule = Schedule(
        sources=(SourceRows(name="made", num_rows=len(rows)),),
        batch_samples=len(rows) // 2,
        num_epochs=1,
        phase="memory",
        seed=1,
    )
    settings = FitSettings(
        learning_rate=1e-5,
        tokens_per_micro_batch=case.num_tokens + 64,
        optimizer_states=case.method.states,
        activation_checkpointing="always" if case.method.activation_checkpointing else "never",
    )
    with tempfile.TemporaryDirectory() as folder:
        here, num = Path(folder), case.method.num_shards
        launch = None
        if num > 1:
            shard = case.method.shard or "auto"
            save_checkpoint(student, here / "start", phase="start", step=0)
            launch = LaunchSettings(
                num_processes=num, start=str(here / "start"), config=student_config, shard=shard
            )
        fit(student, rows, schedule, settings, folder=here, launch=launch)


def made_rows(case: Case) -> Any:
    """Two steps of rows with one token more than is computed, half of them trained: several
    processes take two micro-batches each."""
    from feldspar.student.token_rows import TokenRows
    from feldspar.tokens.arrays import TokenRow, gather

    rng = np.random.default_rng(1)
    num_micro = 1 if case.method.num_shards == 1 else 2 * case.method.num_shards
    mask = np.arange(case.length + 1) > case.length // 2
    rows = [
        TokenRow(rng.integers(10, 1000, len(mask)).astype(np.int32), mask)
        for _ in range(2 * case.num_rows * num_micro)
    ]
    return TokenRows([("made", gather([rows]))])


def run_all(cases: list[Case]) -> list[str]:
    """A line of the table for each case, each in a process of its own."""
    lines = []
    for case in cases:
        command = [sys.executable, __file__, "--case", json.dumps(asdict(case))]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found = json.loads(done.stdout.splitlines()[-1])
        error = case.predicted_bytes / found["tensors"] - 1
        resident = f"{found['resident'] / MIB:,.0f}" if found["resident"] else "-"
        options = ", ".join((case.method.compute, *case.method.options))
        lines.append(
            f"| {case.family}, {case.sizes.num_parameters / 1e6:,.0f}M | {options} "
            f"| {case.num_rows} x {case.length} | {case.predicted_bytes / MIB:,.0f} "
            f"| {found['tensors'] / MIB:,.0f} | {error:+.1%} | {resident} |"
        )
        print(lines[-1], flush=True)
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true", help="write the result file")
    parser.add_argument("--case", help="one case as JSON: its figures as JSON")
    arguments = parser.parse_args()
    if arguments.case:
        told = json.loads(arguments.case)
        print(json.dumps(measure(Case(**{**told, "method": Method(**told["method"])}))))
        return
    import torch

    has_gpu = torch.cuda.is_available()
    lines = run_all(CPU_CASES + (GPU_CASES if has_gpu else []))
    if not has_gpu:
        print("no CUDA device: the 7B was not trained")
    if arguments.write:
        write_results(lines, torch.__version__, has_gpu)


def write_results(lines: list[str], version: str, has_gpu: bool) -> None:
    import transformers

    today = datetime.now(UTC).date().isoformat()
    device = "gpu" if has_gpu else "2core"
    seven = "" if has_gpu else "No GPU was at hand, so the 7B was not trained.\n"
    text = f"""\
# Memory of training, predicted and measured

{platform.processor() or platform.machine()}, Python {platform.python_version()}, torch {version},
transformers {transformers.__version__}. Run again: `python benchmarks/memory.py --write`. Two steps
on random weights; half of the tokens are trained. MiB of live tensors at the peak, everything from
before the model is made; "resident" is the process's peak above what it held when all was imported,
allocator and thread buffers included.
{seven}
| model | computed in | rows at once | predicted | measured | error | resident |
|---|---|---|---:|---:|---:|---:|
{chr(10).join(lines)}

Goal: within {TOLERANCE:.0%}.
"""
    (HERE / f"memory_{device}_{today}.md").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
