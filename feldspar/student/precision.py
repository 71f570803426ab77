"""The precision of the computation where a recipe leaves it open: `student.dtype = "auto"`.

A large model on a CPU is computed in bfloat16 if this machine multiplies matrices of the model's
sizes enough faster in it. The answer decides results, so a run keeps it (docs/decisions/035).
torch is imported by the probe alone.
"""

from __future__ import annotations

import functools
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Literal, NamedTuple

from feldspar.config import StudentConfig
from feldspar.files import write_json
from feldspar.stored import read_stored, reading
from feldspar.student.model_sizes import find_config, num_weights

log = logging.getLogger(__name__)

Dtype = Literal["float32", "bfloat16"]

LEAST_PARAMETERS = 50_000_000
"""Smaller models are computed in float32: what is not a product takes most of their time."""
LEAST_SPEEDUP = 1.5
"""Of products in bfloat16 over float32, from which on it pays."""
PRECISION_FILE = "precision.json"
"""In a run: what `auto` was found to mean, by the base's sizes."""

_PROBE_SECONDS = 0.5
_PROBE_FLOPS = 2e9
"""Of one product of the probe: a tenth of a second on a slow machine."""
_ROWS = (64, 512)
"""Least and most tokens in a product of the probe."""


class ModelSize(NamedTuple):
    """What of a model decides how long it computes."""

    num_parameters: int
    hidden_size: int
    intermediate_size: int


class Precision(NamedTuple):
    """A precision, and why it is this one."""

    dtype: Dtype
    why: str
    """Empty where the recipe says it."""

    def __str__(self) -> str:
        return f"{self.dtype} ({self.why})" if self.why else self.dtype


Probe = Callable[[int, int], float]
"""How many times faster bfloat16 products are, by hidden and intermediate size."""


@functools.cache
def bfloat16_speedup(hidden_size: int, intermediate_size: int) -> float:
    """CPU seconds of float32 products over those of bfloat16 products of a feed-forward layer's
    sizes, on one thread: the least of some rounds, within a second."""
    import torch
    from torch.nn import functional

    least, most = _ROWS
    num_rows = min(most, max(least, int(_PROBE_FLOPS / (2 * hidden_size * intermediate_size))))
    # Its own numbers: the global generator is the caller's.
    drawn = torch.Generator().manual_seed(0)
    shapes = ((num_rows, hidden_size), (intermediate_size, hidden_size))
    wide = [torch.randn(shape, generator=drawn) for shape in shapes]
    operands = {k: [tensor.to(k) for tensor in wide] for k in (torch.float32, torch.bfloat16)}
    seconds: dict[Any, list[float]] = {kind: [] for kind in operands}
    started, num_threads = time.perf_counter(), torch.get_num_threads()
    # Of one thread, and its own time: on a busy machine threads wait for each other.
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            while (
                len(seconds[torch.bfloat16]) < 3 or time.perf_counter() - started < _PROBE_SECONDS
            ):
                for kind, (rows_TH, weight_IH) in operands.items():
                    before = time.thread_time()
                    functional.linear(rows_TH, weight_IH)
                    seconds[kind].append(time.thread_time() - before)
    finally:
        torch.set_num_threads(num_threads)
    return min(seconds[torch.float32]) / max(min(seconds[torch.bfloat16]), 1e-9)


def find_precision(
    config: StudentConfig,
    device: str,
    size: ModelSize | None,
    probe: Probe = bfloat16_speedup,
) -> Precision:
    """As the recipe says, or as suits device, model and machine. `size`: None is unknown."""
    if config.dtype != "auto":
        return Precision(config.dtype, "")
    if device == "cuda":
        return Precision("bfloat16", "on a GPU")
    if device != "cpu":
        return Precision("float32", f"on {device}")
    if size is None:
        return Precision("float32", "the base's sizes are unknown")
    if size.num_parameters < LEAST_PARAMETERS:
        return Precision("float32", f"under {LEAST_PARAMETERS // 10**6}M parameters")
    speedup = probe(size.hidden_size, size.intermediate_size)
    says = f"bfloat16 products at {speedup:.1f} times float32 on this machine"
    return Precision("bfloat16" if speedup >= LEAST_SPEEDUP else "float32", says)


def run_precision(
    config: StudentConfig,
    device: str,
    run_path: Path | None,
    probe: Probe = bfloat16_speedup,
) -> Precision:
    """The same for the base of a run, which goes on in the precision that it has noted."""
    size = size_of_base(config.base)
    if config.dtype == "auto" and size is not None:
        noted = read_noted(run_path).get(_name(size))
        if noted is not None:
            return noted
    return find_precision(config, device, size, probe)


def note_precision(base: str, found: Precision, run_path: Path) -> None:
    """Write down what `auto` means in a run of a base, if it does not say so yet."""
    size = size_of_base(base)
    noted = read_noted(run_path)
    if size is None or not found.why or noted.get(_name(size)) == found:
        return
    noted[_name(size)] = found
    write_json(run_path / PRECISION_FILE, {name: p._asdict() for name, p in noted.items()})
    if size.num_parameters >= LEAST_PARAMETERS:
        log.warning('student.dtype = "auto": %s, which this run keeps', found)


def read_noted(run_path: Path | None) -> dict[str, Precision]:
    """What a run has noted, by the base's sizes. Raises RunError where the note is damaged."""
    path = None if run_path is None else run_path / PRECISION_FILE
    if path is None or not path.exists():
        return {}
    cure = "put it back, or delete it: `auto` is found out anew, and may then mean another dtype"
    return read_stored(path, dict[str, Precision], cure)


def noted_config(config: StudentConfig, run_path: Path) -> StudentConfig:
    """The same with the precision that a run has noted for its base, if it has."""
    size = size_of_base(config.base) if config.dtype == "auto" else None
    noted = None if size is None else read_noted(run_path).get(_name(size))
    return config if noted is None else config.model_copy(update={"dtype": noted.dtype})


def size_of_base(base: str) -> ModelSize | None:
    """Of a model folder, or a hub id that was fetched; None where its files do not say."""
    path = find_config(base)
    if path is None:
        return None
    with reading(path, "name a Hugging Face model directory"):
        given: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    given = given.get("text_config", given)
    hidden = _first_of(given, "hidden_size", "n_embd", "d_model")
    inner = _first_of(given, "intermediate_size", "n_inner", "ffn_dim", "d_ff")
    num_parameters = num_weights(path.parent)
    if not hidden or not num_parameters:
        return None
    return ModelSize(num_parameters, hidden, inner or 4 * hidden)


def size_of_model(model: Any) -> ModelSize:
    """Of a transformers model."""
    config = model.config.get_text_config()
    hidden = int(config.hidden_size)
    inner = getattr(config, "intermediate_size", None) or 4 * hidden
    return ModelSize(sum(p.numel() for p in model.parameters()), hidden, int(inner))


def _first_of(given: dict[str, Any], *names: str) -> int:
    return next((int(given[n]) for n in names if isinstance(given.get(n), int)), 0)


def _name(size: ModelSize) -> str:
    return f"{size.num_parameters} parameters, {size.hidden_size} x {size.intermediate_size}"
