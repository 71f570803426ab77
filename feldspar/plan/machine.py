"""The machine that a run is planned for: one named, or the GPUs of this one. No torch."""

from __future__ import annotations

import re
import shutil
import subprocess
from dataclasses import dataclass
from itertools import pairwise

from feldspar.errors import RecipeError
from feldspar.student.training.memory import USABLE_SHARE

_ASK_SECONDS = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """One kind of GPU. Peak: dense bf16 matrix products with float32 accumulation."""

    name: str
    memory_gib: float
    """As the driver shows it, a little below what is sold."""
    peak_tflops: float

    @property
    def memory_bytes(self) -> int:
        return int(self.memory_gib * 2**30)


_TABLE = (
    # Peaks: data sheets at nvidia.com, halved where they count sparsity; GeForce: the Ampere GA102,
    # Ada and RTX Blackwell white papers' appendices; MI300X: AMD's CDNA 3 white paper.
    # The first whose words all stand in the driver's name is it.
    Gpu(name="b200", memory_gib=178.0, peak_tflops=2250.0),
    Gpu(name="h200", memory_gib=139.8, peak_tflops=989.0),
    Gpu(name="h100-pcie", memory_gib=79.2, peak_tflops=756.0),
    Gpu(name="h100", memory_gib=79.2, peak_tflops=989.0),
    Gpu(name="a100-40gb", memory_gib=39.4, peak_tflops=312.0),
    Gpu(name="a100", memory_gib=79.1, peak_tflops=312.0),
    Gpu(name="l40s", memory_gib=44.4, peak_tflops=362.0),
    Gpu(name="l40", memory_gib=44.4, peak_tflops=181.0),
    Gpu(name="a40", memory_gib=44.4, peak_tflops=149.7),
    Gpu(name="l4", memory_gib=22.0, peak_tflops=121.0),
    Gpu(name="a10g", memory_gib=22.1, peak_tflops=70.0),
    Gpu(name="a10", memory_gib=22.1, peak_tflops=125.0),
    Gpu(name="rtx5090", memory_gib=31.4, peak_tflops=209.5),
    Gpu(name="rtx4090", memory_gib=23.6, peak_tflops=165.2),
    Gpu(name="rtx3090", memory_gib=23.6, peak_tflops=71.0),
    Gpu(name="mi300x", memory_gib=191.5, peak_tflops=1307.0),
)
GPUS = {gpu.name: gpu for gpu in _TABLE}


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """Where the student is trained."""

    gpu: Gpu | None
    """None: no GPU is at hand, and none was named."""
    num_gpus: int = 1

    @property
    def room_bytes(self) -> int | None:
        """What training may take of one GPU's memory; None where there is no GPU."""
        return None if self.gpu is None else int(USABLE_SHARE * self.gpu.memory_bytes)

    def __str__(self) -> str:
        if self.gpu is None:
            return "this machine's CPU"
        what = f"{self.num_gpus} x {self.gpu.name}"
        return f"{what}, {self.gpu.memory_gib:.0f} GiB each"


def named_machine(text: str) -> Machine:
    """`h200x8`: eight of them. Raises RecipeError with the names there are."""
    wanted = text.strip().lower()
    match = re.fullmatch(r"(.+)x([1-9][0-9]{0,3})", wanted)
    name, count = (match[1], int(match[2])) if match and wanted not in GPUS else (wanted, 1)
    if name not in GPUS:
        raise RecipeError(
            f"no GPU {text!r} is known; write one of {', '.join(sorted(GPUS))}, with x8 for eight"
        )
    return Machine(gpu=GPUS[name], num_gpus=count)


def machine_here() -> Machine:
    """The NVIDIA GPUs of this machine, by its driver; without one, its CPU."""
    if shutil.which("nvidia-smi") is None:
        return Machine(gpu=None)
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        told = subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=_ASK_SECONDS
        )
    except (OSError, subprocess.SubprocessError):
        return Machine(gpu=None)
    lines = [line.rsplit(",", 1) for line in told.stdout.splitlines() if "," in line]
    # Where CPU and GPU share their memory, the driver says `[N/A]`.
    lines = [line for line in lines if re.fullmatch(r"\s*\d+(?:\.\d+)?\s*", line[1])]
    if not lines:
        return Machine(gpu=None)
    name, mebibytes = lines[0][0].strip(), float(lines[0][1])
    return Machine(gpu=_recognised(name, mebibytes / 1024), num_gpus=len(lines))


def _recognised(name: str, memory_gib: float) -> Gpu:
    """The driver's GPU with its own memory; its peak is 0, which is unknown, for one not listed."""
    words = re.findall(r"[a-z0-9]+", name.lower())
    words += [first + second for first, second in pairwise(words)]
    for gpu in _TABLE if "laptop" not in words else ():
        if all(word in words for word in gpu.name.split("-")):
            return Gpu(name=gpu.name, memory_gib=memory_gib, peak_tflops=gpu.peak_tflops)
    return Gpu(name=name, memory_gib=memory_gib, peak_tflops=0.0)
