"""What a recipe may say about the phases and how they are trained."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from feldspar.config.base import Count, Fraction, Part, Positive, Share
from feldspar.keys import Rounding, Speed
from feldspar.records import Branch, PhaseTraining


class ReplayConfig(Part):
    """An earlier phase, or data of the user's own, drawn again: exactly one of `fraction` and
    `share`."""

    phase: str = ""
    """An earlier phase by its name."""
    data: str = ""
    """Or a `[[data]]` entry by its name: rows of an earlier run, for one."""
    fraction: Fraction | None = None
    """Part of its own rows, redrawn each epoch. 1.0 is the paper's reading."""
    share: Share | None = None
    """Part of this phase's rows."""

    @model_validator(mode="after")
    def _exactly_one(self) -> ReplayConfig:
        if bool(self.phase) == bool(self.data):
            raise ValueError("a replay names either an earlier phase or data; write one of them")
        if (self.fraction is None) == (self.share is None):
            name = self.phase or self.data
            raise ValueError(f"replay of {name!r} needs exactly one of fraction and share")
        return self


SELECT = ("exams", "log-likelihood", "last")
"""Ways to choose a phase's checkpoint, beside the benchmarks."""


class PhaseConfig(Part):
    """One phase of training, as data."""

    name: str
    branches: tuple[Branch, ...] = ()
    """Whose samples it trains on. Empty: none of the taxonomy's, only `data`."""
    whole_branches: tuple[Branch, ...] = ()
    """Branches it trains on too, whatever `length` says: the paper's second knowledge step takes
    the foundational skills along."""
    length: Literal["short", "long", "all"] = "all"
    """Which half of the answers, by length in tokens (`mix.short_answer_tokens`)."""
    data: tuple[str, ...] = ()
    """Names of `[[data]]` entries that it trains on too."""
    replay: tuple[ReplayConfig, ...] = ()
    num_epochs: Count = 1
    learning_rate: Positive | None = None
    """None: `train.learning_rate`."""
    batch_samples: Count | None = None
    """None: `train.batch_samples`."""
    num_samples: Count | None = None
    """For planning before there is data: rows of an epoch, what it replays included."""
    select: str = "exams"
    """How its checkpoint is chosen: by the leaves' `exams`, by the `log-likelihood` of rows set
    apart from training (`mix.held_out`), the `last`, or by the task of an
    `[[evaluate.benchmark]]`, such as `mmlu`, on its validation part, which is not reported."""

    def of_mixing(self) -> PhaseConfig:
        """What the phase's rows depend on, so that another learning rate mixes nothing anew."""
        return PhaseConfig(
            name=self.name,
            branches=self.branches,
            whole_branches=self.whole_branches,
            length=self.length,
            data=self.data,
            replay=self.replay,
            # Rows are set apart where a phase selects on them.
            select=self.select if self.select == "log-likelihood" else "last",
        )


DEFAULT_PHASES = (
    PhaseConfig(name="knowledge-short", branches=("knowledge",), length="short"),
    PhaseConfig(
        name="knowledge-long",
        branches=("knowledge",),
        length="long",
        replay=(ReplayConfig(phase="knowledge-short", fraction=1.0),),
    ),
    PhaseConfig(
        name="skills",
        branches=("foundational", "compositional"),
        replay=(
            ReplayConfig(phase="knowledge-short", fraction=1.0),
            ReplayConfig(phase="knowledge-long", fraction=1.0),
        ),
    ),
)
"""The cards' order: knowledge short, knowledge long replaying it, skills replaying both."""


class TrainConfig(Part):
    """How phases are trained. Defaults: METHOD.md section 3's table, Labradorite's row."""

    phase: tuple[PhaseConfig, ...] = DEFAULT_PHASES
    learning_rate: Positive = 2e-5
    batch_samples: Count = 3840
    """Samples per optimizer step, over all devices."""
    warmup_steps: Annotated[int, Field(ge=0)] = 385
    warmup: Literal["global", "per-phase"] = "global"
    """Whether warm-up runs on across phases or starts again with each."""
    betas: tuple[float, float] = (0.9, 0.95)
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    max_grad_norm: Positive = 1.0
    tokens_per_micro_batch: Rounding[Count] = 16384
    """Tokens computed at once, on a CPU at most 4096; changes memory and speed, not the result."""
    packing: Rounding[bool] = True
    """Rows end to end, each attending to itself alone. false: side by side, padded."""
    optimizer_states: Literal["float32", "bfloat16"] = "float32"
    """Of AdamW's two moments: 16 or 12 bytes a trained weight, with it and its gradient."""
    recompute: Rounding[Literal["auto", "always", "never"]] = "auto"
    """Whether activations are computed again for the backward pass, to save memory. auto: on cuda
    if the largest micro-batch does not fit otherwise, which one process tries and several count;
    elsewhere never."""
    shard: Rounding[Literal["auto", "step", "layer"]] = "auto"
    """How several processes hold the weights: gathered once a step, or layer by layer for a model
    that does not fit otherwise. auto: `step` where it fits. Never changes the result."""
    checkpoints_per_epoch: Count = 1
    """Checkpoints written, and scored where the phase selects on exams, in each epoch."""
    keep_best: Speed[Count] = 2
    """Candidates kept per phase beside its end."""

    def of_phases(self) -> tuple[PhaseTraining, ...]:
        """How each phase is trained, with the defaults filled in."""
        return tuple(
            PhaseTraining(
                name=phase.name,
                num_epochs=phase.num_epochs,
                batch_samples=phase.batch_samples or self.batch_samples,
                learning_rate=phase.learning_rate or self.learning_rate,
                warmup_steps=self.warmup_steps,
                select=phase.select,
            )
            for phase in self.phase
        )

    def of_optimizer(self) -> TrainConfig:
        """What all phases share, without what `of_phases` says of each."""
        own = {"phase", "learning_rate", "batch_samples", "warmup_steps"}
        return TrainConfig(phase=(), **self.model_dump(exclude=own))

    @model_validator(mode="after")
    def _phases_refer_backwards(self) -> TrainConfig:
        seen: set[str] = set()
        for phase in self.phase:
            if phase.name in seen:
                raise ValueError(f"two phases are called {phase.name!r}")
            for replay in phase.replay:
                if replay.phase and replay.phase not in seen:
                    raise ValueError(
                        f"phase {phase.name!r} replays {replay.phase!r}, which is no earlier phase"
                    )
            seen.add(phase.name)
        return self

    @model_validator(mode="after")
    def _moments_can_be_told_apart(self) -> TrainConfig:
        if self.optimizer_states == "bfloat16" and self.betas[1] > 0.99:
            raise ValueError(
                f'optimizer_states = "bfloat16" cannot hold averages as slow as betas[1] = '
                f"{self.betas[1]}; use 0.99 or less, or float32"
            )
        return self


class LearnConfig(Part):
    """`feldspar learn`: how one leaf is added to a model that was trained."""

    replay_share: Share = 0.5
    """Part of the rows that are drawn from what the run was trained on before."""
    num_epochs: Count = 4
    learning_rate: Positive | None = None
    """None: `train.learning_rate`."""
    batch_samples: Count | None = None
    """None: `train.batch_samples`."""
    warmup_steps: Annotated[int, Field(ge=0)] = 0
