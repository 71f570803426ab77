"""The training loop: phases, preference rounds and new models.

The loss of a step is the mean over all its trained tokens, however its rows are packed and over
however many processes they are shared. A killed run goes on from its last saved state to the same
weights, bit for bit on a CPU.

Shapes: N losses of a micro-batch, S sources, M metrics of the objective.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from feldspar.errors import TrainingError
from feldspar.progress import Progress, Task
from feldspar.student.layers import has_compiler
from feldspar.student.model import Student, compute_threads
from feldspar.student.token_rows import TokenRows
from feldspar.student.training.activation_checkpointing import needs_checkpointing
from feldspar.student.training.forward import ForwardPass, check_embeddings, check_packing
from feldspar.student.training.lora import keep_rows
from feldspar.student.training.metrics import append_metrics, by_source, forget_after
from feldspar.student.training.objective import (
    CrossEntropy,
    LossFunction,
    MicroBatchLosses,
    Objective,
    StepScorer,
)
from feldspar.student.training.process_group import SINGLE_PROCESS, MicroBatch, ProcessGroup
from feldspar.student.training.resume_state import load_state, save_state
from feldspar.student.training.schedule import Indices, Schedule
from feldspar.student.training.settings import FitSettings, key_of_fit, make_optimizer
from feldspar.student.training.signals import Stopped, Stops, stops
from feldspar.student.training.throughput import Throughput, pays_to_compile

_STATE_SECONDS = 5.0
"""Between saved states, and at least twenty times what saving one takes."""
_DIVERGED_STEPS = 10
"""Steps in a row with twice the loss of a model that knows nothing."""


class _Step(NamedTuple):
    """An optimizer step, before it is cut into micro-batches."""

    rows: Indices
    losses: LossFunction
    num_counted: int
    """What sums of losses are divided by: trained tokens, or pairs."""


class Loop:
    """Weights, optimizer and step of one `fit`."""

    def __init__(
        self,
        student: Student,
        rows: TokenRows,
        schedule: Schedule,
        settings: FitSettings,
        folder: Path,
        *,
        group: ProcessGroup = SINGLE_PROCESS,
        key: str | None = None,
        objective: Objective | None = None,
    ) -> None:
        """`key` is that of the whole student, where it lies in parts. Without an `objective` the
        rows' cross-entropy is trained."""
        self._objective: Objective = CrossEntropy(rows) if objective is None else objective
        self.key = (key or key_of_fit(student, rows, schedule, settings)) + self._objective.key
        self.rows, self.schedule, self.settings = rows, schedule, settings
        if group.rank == 0:
            check_embeddings(student)
            if settings.packing:
                check_packing(student)
        self.student = student = group.place(student)
        self.step = 0
        self.group = group
        self.forward = self._make_forward(settings.tokens_per_micro_batch)
        self.optimizer = make_optimizer(student, settings)
        self._parameters = [p for p in student.model.parameters() if p.requires_grad]
        self._scorer = StepScorer(self.forward, group, settings.tokens_per_micro_batch)
        self._folder = folder
        self._metrics_path = folder / "metrics.jsonl"
        self._saved_at = time.monotonic()
        self._pause = _STATE_SECONDS
        self._num_diverged = 0
        self._last_checkpoint = 0
        self._throughput = Throughput(student, group.size)

    def resume(self) -> None:
        """Prepare the objective on the first weights, then go on from the last saved state."""
        with compute_threads(self.student):
            self._objective.prepare(self._scorer, self._folder)
        model, optimizer = self.student.model, self.optimizer
        self.step = load_state(self._folder, model, optimizer, key=self.key, group=self.group)
        self.group.check_same(self.step)
        done = [step for step in self.settings.checkpoint_steps if step <= self.step]
        self._last_checkpoint = max(done, default=0)
        if self.group.rank == 0:
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
                    loss = self.do_step(self.group.within_step(held))
                    task.advance(1, loss=round(loss, 4))
                    due = self.step == end or time.monotonic() - self._saved_at > self._pause
                    if self.group.agree_to_save(due, held):
                        self.save()
            except Stopped:
                self.save()
                raise

    def save(self) -> None:
        started = time.monotonic()
        model, optimizer = self.student.model, self.optimizer
        save_state(self._folder, model, optimizer, step=self.step, key=self.key, group=self.group)
        self._saved_at = time.monotonic()
        self._pause = max(_STATE_SECONDS, 20 * (self._saved_at - started))

    def do_step(self, held: Stops) -> float:
        """One optimizer step. Gives its loss in nats, a mean over what the objective counts."""
        started = time.monotonic()
        timer = self._throughput.timer
        timer.mark("between")
        step = self._begin(self.schedule.step(self.step))
        totals = self.group.total(self._gradients(step, held))
        keep_rows(self.student)
        norm = torch.nn.utils.clip_grad_norm_(self._parameters, self.settings.max_grad_norm)
        norm = self.group.whole(norm)
        learning_rate = self.settings.learning_rate_at(self.step, self.schedule.num_steps)
        for parameters in self.optimizer.param_groups:
            parameters["lr"] = learning_rate
        # The only wait for the device: everything that is read is read here.
        *sums, grad_norm = [float(x) for x in torch.cat([totals, norm.to(totals)[None]])]
        parts = timer.seconds()
        num_sources = len(self.rows.source_names)
        loss = sum(sums[:num_sources]) / step.num_counted
        self._refuse_nonsense(loss, grad_norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=False)
        timer.mark("optimizer")
        self.step += 1
        if self.step in self.settings.checkpoint_steps:
            self._last_checkpoint = self.step
        seconds = time.monotonic() - started
        means = {
            name: total / step.num_counted
            for name, total in zip(self._objective.metric_names, sums[num_sources:], strict=True)
        }
        lengths = self._objective.lengths[step.rows]
        self._record(
            {"loss": loss, **means, "learning_rate": learning_rate, "grad_norm": grad_norm}
            | self._throughput.figures(lengths, step.num_counted, parts, seconds),
            step.rows,
            sums[:num_sources],
        )
        return loss

    def _make_forward(self, token_budget: int) -> ForwardPass:
        """Compiled where that is wanted, and with activations kept or not as memory allows."""
        settings, group = self.settings, self.group
        forward = ForwardPass(
            self.student,
            packing=settings.packing,
            is_sharded=group.size > 1,
            checkpoint_activations=settings.activation_checkpointing == "always",
            compiled=self._pays_to_compile(),
        )
        if settings.activation_checkpointing == "auto":
            states = settings.optimizer_states
            needed = needs_checkpointing(forward, self.rows, token_budget, states)
            forward.checkpoint_activations = needed
        with compute_threads(self.student):
            forward.warm_up(group)
        return forward

    def _pays_to_compile(self) -> bool:
        """Where the recipe leaves it open: by all of the phase, also when it goes on half-way."""
        if self.student.compile != "auto" or not has_compiler():
            return False
        drawn = sum(self.schedule.drawn) / len(self.rows)
        lengths, trained = self._objective.lengths, self.rows.trained
        return pays_to_compile(self.student, lengths, trained, self.schedule.num_epochs * drawn)

    def _begin(self, rows: Indices) -> _Step:
        """Show the objective all rows of the step, with the weights as they are now."""
        self.forward.refresh()
        losses = self._objective.of_step(rows, self._scorer)
        return _Step(rows, losses, int(self._objective.counts[rows].sum()))

    def _gradients(self, step: _Step, held: Stops) -> Tensor:
        """Accumulate the gradient of the step's mean loss. Gives sums [S + M] of this process: of
        losses by source, and of the objective's metrics."""
        timer, device = self._throughput.timer, self.student.device
        losses = torch.zeros(len(self.rows.source_names), dtype=torch.float32).to(device)
        metrics = torch.zeros(len(self._objective.metric_names), dtype=torch.float32).to(device)
        cut = self.forward.cutter(self.settings.tokens_per_micro_batch)
        lengths = self._objective.lengths[step.rows]
        for micro in self.group.micro_batches(step.rows, lengths, cut):
            try:
                held.check()
            except Stopped:
                self.optimizer.zero_grad(set_to_none=False)
                raise
            tensors = self.forward.to_tensors(self._objective.computed(micro.rows))
            scale = micro.weight / step.num_counted
            with self.forward.ready():
                timer.mark("data")
                function = partial(step.losses, self.forward, tensors, micro.rows, scale)
                found = self.group.compute(micro, function)
                timer.mark("forward")
                torch.autograd.backward(found.losses_N.sum())
                timer.mark("backward")
            self._throughput.count(tensors, micro.weight)
            self._add(losses, metrics, micro, found)
        return torch.cat([losses, metrics])

    def _add(
        self, losses: Tensor, metrics: Tensor, micro: MicroBatch, found: MicroBatchLosses
    ) -> None:
        """Add a micro-batch to the sums [S] and [M]."""
        sources = torch.from_numpy(self.rows.source_of[micro.rows][found.rows_N])
        losses.index_add_(0, sources.to(losses.device), found.losses_N.detach() * micro.weight)
        for place, name in enumerate(self._objective.metric_names):
            metrics[place] += found.metrics[name] * micro.weight

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

    def _record(self, figures: dict[str, float], rows: Indices, sums: list[float]) -> None:
        if self.group.rank:
            return
        counts: NDArray[np.int32] = self._objective.counts[rows]
        append_metrics(
            self._metrics_path,
            {"phase": self.schedule.phase, "step": self.step, **figures}
            | {"sources": by_source(self.rows, rows, counts, sums)}
            | {"supervised_tokens": int(counts.sum())},
        )
