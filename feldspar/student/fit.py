"""The one training loop: phases, preference rounds and new models.

The loss of a step is the mean over all its trained tokens, however its rows are packed. A killed
run goes on from its last saved state to the same weights, bit for bit on a CPU.

Shapes: B rows, T tokens, N trained tokens, H hidden size.
"""

from __future__ import annotations

import hashlib
import json
import math
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feldspar.errors import TrainingError
from feldspar.progress import SILENT, Progress, Task
from feldspar.student.model import Student, compute_threads
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.activation_checkpointing import needs_recompute
from feldspar.student.training.forward import Compute, Laid, check_packing
from feldspar.student.training.lora import keep_rows
from feldspar.student.training.metrics import append_metrics, forget_after
from feldspar.student.training.optimizer import OptimizerStates, make_adamw
from feldspar.student.training.process_group import ALONE, MicroBatch, Peers, Ranks
from feldspar.student.training.resume_state import load_state, save_state
from feldspar.student.training.schedule import Indices, Schedule
from feldspar.student.training.signals import Stopped, Stops, stops
from feldspar.student.training.throughput import Laps, Work, matmul_peak
from feldspar.tokens.arrays import TokenRow

_STATE_SECONDS = 5.0
"""Between saved states, and at least twenty times what saving one takes."""
_DIVERGED_STEPS = 10
"""Steps in a row with twice the loss of a model that knows nothing."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FitSettings:
    """How to step. `earlier_steps` counts into the warm-up what earlier phases did."""

    learning_rate: float
    warmup_steps: int = 0
    earlier_steps: int = 0
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: float = 0.0
    """Of matrices; biases and norms have none."""
    max_grad_norm: float = 1.0
    tokens_per_micro_batch: int = 16384
    packing: bool = True
    """Rows end to end with attention inside each; false: side by side, padded."""
    optimizer_states: OptimizerStates = "float32"
    recompute: Literal["auto", "always", "never"] = "never"
    decay_steps: int = 0
    """Last steps over which the learning rate falls to nothing: for new models. A phase that ends
    so makes the next one worse (METHOD.md section 3)."""
    checkpoint_steps: tuple[int, ...] = ()
    """`on_checkpoint` is called when so many steps are done."""

    def learning_rate_at(self, step: int, num_steps: int) -> float:
        """Linear warm-up, constant, and linear decay if any. `step` is counted from 0."""
        done = self.earlier_steps + step + 1
        rise = done / max(self.warmup_steps, 1)
        fall = (num_steps - step) / (self.decay_steps + 1)
        return self.learning_rate * min(1.0, rise, fall)


class Objective(Protocol):
    """Another loss over the rows than their cross-entropy, which may compute others beside them."""

    key: str
    """Of all that decides the losses beside the rows."""
    lengths: NDArray[np.int64]
    """Tokens computed for each row."""
    counts: NDArray[np.int32]
    """What each row adds to the number that a step's sum of losses is divided by."""

    def computed(self, rows: Indices) -> list[TokenRow]:
        """What is computed at once for these rows."""

    def losses(self, compute: Compute, laid: Laid, rows: Indices, scale: float) -> Tensor:
        """A loss a row, in nats, of what is `laid` for them; backward from their sum gives the
        gradient of `scale` times it."""


def fit(
    student: Student,
    rows: TokenRows,
    schedule: Schedule,
    settings: FitSettings,
    *,
    here: Path,
    on_checkpoint: Callable[[int], None] = lambda step: None,
    progress: Progress = SILENT,
    ranks: Ranks | None = None,
    objective: Objective | None = None,
) -> None:
    """Train the student's weights in place through all steps of the schedule.

    `objective` takes the place of the answers' cross-entropy, in one process.

    `here` holds metrics.jsonl and the state, which the caller forgets when the outcome is safe.
    After a kill `on_checkpoint` may be called again for its last step. With `ranks` other processes
    share each step; the result is the same to rounding, and a state of any number goes on.
    Raises TrainingError when the loss is not a number or has diverged. On SIGTERM and Ctrl-C the
    state is saved first.
    """
    here.mkdir(parents=True, exist_ok=True)
    if ranks is not None and ranks.num > 1 and objective is None:
        from feldspar.student.distributed.launcher import fit_together

        fit_together(
            student,
            rows,
            schedule,
            settings,
            here=here,
            on_checkpoint=on_checkpoint,
            progress=progress,
            ranks=ranks,
        )
        return
    loop = Loop(student, rows, schedule, settings, here, objective=objective)
    loop.resume()
    loop.run(on_checkpoint, progress)


class Loop:
    """Weights, optimizer and step of one `fit`."""

    def __init__(
        self,
        student: Student,
        rows: TokenRows,
        schedule: Schedule,
        settings: FitSettings,
        here: Path,
        peers: Peers = ALONE,
        key: str | None = None,
        objective: Objective | None = None,
    ) -> None:
        self.key = key or key_of_fit(student, rows, schedule, settings)
        if objective is not None:
            self.key += objective.key
        self.student, self.rows, self.schedule, self.settings = student, rows, schedule, settings
        if settings.packing and peers.rank == 0:
            check_packing(student)
        self.student = student = peers.place(student)
        self.step = 0
        self.peers = peers
        self.compute = Compute(
            student,
            packing=settings.packing,
            in_parts=peers.size > 1,
            recompute=settings.recompute == "always",
        )
        if settings.recompute == "auto":
            budget, states = settings.tokens_per_micro_batch, settings.optimizer_states
            self.compute.recompute = needs_recompute(self.compute, rows, budget, states)
        with compute_threads(student):
            self.compute.warm_up(peers)
        self.optimizer = make_optimizer(student, settings)
        self._parameters = [p for p in student.model.parameters() if p.requires_grad]
        self._objective = objective
        self._lengths = rows.lengths if objective is None else objective.lengths
        self._trained = rows.trained if objective is None else objective.counts
        self._here = here
        self._metrics_path = here / "metrics.jsonl"
        self._saved_at = time.monotonic()
        self._pause = _STATE_SECONDS
        self._num_diverged = 0
        self._last_checkpoint = 0
        self._laps = Laps(student.device)
        self._work = Work(student.model)
        self._num_needed = self._num_computed = 0

    def resume(self) -> None:
        model, optimizer = self.student.model, self.optimizer
        self.step = load_state(self._here, model, optimizer, key=self.key, peers=self.peers)
        self.peers.check_same(self.step)
        if self.peers.rank == 0:
            forget_after(self._metrics_path, self.schedule.phase, self.step)

    def run(self, on_checkpoint: Callable[[int], None], progress: Progress) -> None:
        """Do all steps that are left."""
        phase, num_steps = self.schedule.phase, self.schedule.num_steps
        checkpoint_steps = self.settings.checkpoint_steps
        with (
            compute_threads(self.student),
            progress.task(f"train {phase}", num_steps, "steps", done=self.step) as task,
        ):
            if self.step in checkpoint_steps:
                on_checkpoint(self.step)
            for end in sorted({*checkpoint_steps, num_steps}):
                if self.step < end:
                    self.run_to(end, task)
                    if end in checkpoint_steps:
                        on_checkpoint(end)

    def run_to(self, end: int, task: Task) -> None:
        """Do the steps up to `end` and save. Signals are held back while weights change."""
        with stops() as held:
            try:
                while self.step < end:
                    loss = self.do_step(self.peers.within_step(held))
                    task.advance(1, loss=round(loss, 4))
                    due = self.step == end or time.monotonic() - self._saved_at > self._pause
                    if self.peers.agree_to_save(due, held):
                        self.save()
            except Stopped:
                self.save()
                raise

    def save(self) -> None:
        started = time.monotonic()
        model, optimizer = self.student.model, self.optimizer
        save_state(self._here, model, optimizer, step=self.step, key=self.key, peers=self.peers)
        self._saved_at = time.monotonic()
        self._pause = max(_STATE_SECONDS, 20 * (self._saved_at - started))

    def do_step(self, held: Stops) -> float:
        """One optimizer step. Gives its loss in nats per trained token."""
        started = time.monotonic()
        self._laps.mark("between")
        indices = self.schedule.step(self.step)
        num_trained = int(self._trained[indices].sum())
        totals = self.peers.total(self._gradients(indices, num_trained, held))
        keep_rows(self.student)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        norm = self.peers.whole(norm)
        learning_rate = self.settings.learning_rate_at(self.step, self.schedule.num_steps)
        for group in self.optimizer.param_groups:
            group["lr"] = learning_rate
        # The only wait for the device: everything that is read is read here.
        *sums, grad_norm = [float(x) for x in torch.cat([totals, norm.to(totals)[None]])]
        laps = self._laps.seconds()
        loss = sum(sums) / num_trained
        self._refuse_nonsense(loss, grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        self._laps.mark("optimizer")
        self.step += 1
        if self.step in self.settings.checkpoint_steps:
            self._last_checkpoint = self.step
        seconds = time.monotonic() - started
        line = {"loss": loss, "learning_rate": learning_rate, "grad_norm": grad_norm}
        self._record(line | self._speed(indices, num_trained, laps, seconds), indices, sums)
        return loss

    def _gradients(self, indices: NDArray[np.int64], num_trained: int, held: Stops) -> Tensor:
        """Accumulate the gradient of the step's mean loss. Gives sums of losses per source."""
        student = self.student
        totals = torch.zeros(len(self.rows.source_names), dtype=torch.float32).to(student.device)
        self.compute.refresh()
        cut = self.compute.cutter(self.settings.tokens_per_micro_batch)
        for micro in self.peers.micro_batches(indices, self._lengths[indices], cut):
            try:
                held.check()
            except Stopped:
                self.optimizer.zero_grad(set_to_none=False)
                raise
            laid, sources, losses = self._lay(micro, num_trained)
            with self.compute.ready():
                self._laps.mark("data")
                found = self.peers.compute(micro, losses)
                self._laps.mark("forward")
                torch.autograd.backward(found.sum())
                self._laps.mark("backward")
            self._num_computed += laid.ids_BT.numel()
            self._num_needed += laid.num_tokens if micro.weight else 0
            of_source = torch.from_numpy(sources).to(totals.device)
            totals.index_add_(0, of_source, found.detach() * micro.weight)
        return totals

    def _lay(
        self, micro: MicroBatch, num_trained: int
    ) -> tuple[Laid, NDArray[np.int64], Callable[[], Tensor]]:
        """A micro-batch on the device, its losses, and which source each of them is of."""
        sources, scale = self.rows.source_of[micro.rows], micro.weight / num_trained
        if self._objective is None:
            laid = self.compute.lay([self.rows.row(i) for i in micro.rows])
            return laid, sources[laid.rows_N], partial(self.compute.losses, laid, scale)
        laid = self.compute.lay(self._objective.computed(micro.rows))
        losses = partial(self._objective.losses, self.compute, laid, micro.rows, scale)
        return laid, sources, losses

    def _refuse_nonsense(self, loss: float, grad_norm: float) -> None:
        ignorance = math.log(self.student.head.weight_VH.shape[0])
        self._num_diverged = self._num_diverged + 1 if loss > 2 * ignorance else 0
        number = math.isfinite(loss) and math.isfinite(grad_norm)
        if number and self._num_diverged < _DIVERGED_STEPS:
            return
        what = f"diverged to {loss:.1f}" if number else f"is {loss}, its gradient {grad_norm}"
        good = self._last_checkpoint
        last = f"the checkpoint of step {good}" if good else "the model the phase started from"
        raise TrainingError(
            f"phase {self.schedule.phase}, step {self.step + 1}: the loss {what}; the last good "
            f"model is {last}. Lower learning_rate, or raise warmup_steps"
        )

    def _speed(
        self,
        indices: NDArray[np.int64],
        num_trained: int,
        laps: dict[str, float],
        seconds: float,
    ) -> dict[str, Any]:
        """How fast the step was. Of the optimizer, the seconds of the step before."""
        student, lengths = self.student, self._lengths[indices]
        peak = matmul_peak(student.device, student.dtype, torch.get_num_threads())
        flops = self._work.flops(lengths, num_trained)
        needed, computed = self._num_needed, self._num_computed
        self._num_needed = self._num_computed = 0
        parts = ("data", "forward", "backward", "optimizer")
        return {
            "total_tokens": int(lengths.sum()),
            "tokens_per_second": round(int(lengths.sum()) / seconds, 1),
            "seconds": round(seconds, 4),
            **{f"{name}_seconds": round(laps.get(name, 0.0), 5) for name in parts},
            "packing_efficiency": round(needed / computed, 4),
            "mfu": round(flops / seconds / (peak * self.peers.size), 4),
        }

    def _record(self, line: dict[str, Any], indices: NDArray[np.int64], sums: list[float]) -> None:
        names = self.rows.source_names
        sources = self.rows.source_of[indices]
        samples = np.bincount(sources, minlength=len(names))
        trained = np.bincount(sources, weights=self._trained[indices], minlength=len(names))
        by_source = {
            name: {"loss": total / count, "samples": int(num), "supervised_tokens": int(count)}
            for name, total, count, num in zip(names, sums, trained, samples, strict=True)
            if count
        }
        line = {"phase": self.schedule.phase, "step": self.step, **line, "sources": by_source}
        line["supervised_tokens"] = int(trained.sum())
        if self.peers.rank == 0:
            append_metrics(self._metrics_path, line)


def make_optimizer(student: Student, settings: FitSettings) -> torch.optim.AdamW:
    """Over what is trained. Where embeddings are trained in part, the rest must not decay."""
    model = student.model
    ends = [model.get_input_embeddings().weight, model.get_output_embeddings().weight]
    return make_adamw(
        [p for p in model.parameters() if p.requires_grad],
        learning_rate=settings.learning_rate,
        betas=settings.betas,
        weight_decay=settings.weight_decay,
        states=settings.optimizer_states,
        never_decayed=[] if student.trained_rows is None else ends,
    )


def key_of_fit(student: Student, rows: TokenRows, schedule: Schedule, settings: FitSettings) -> str:
    """What a saved state must agree in to be gone on from: data, order, settings, first weights."""
    digest = hashlib.sha256()
    parts = [asdict(schedule), asdict(settings), str(student.dtype), student.compile, rows.key]
    digest.update(json.dumps(parts).encode())
    for _, parameter in student.model.named_parameters():
        digest.update(parameter.detach().cpu().numpy().tobytes())
    return digest.hexdigest()
