"""What a recipe may say about the phases and how they are trained."""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from feldspar.config.base import (
    Count,
    Fraction,
    LearningRate,
    NoneOrMore,
    NonNegative,
    Part,
    Positive,
    Share,
    SmallCount,
)
from feldspar.keys import Place, Rounding, Speed
from feldspar.records import Branch, PhaseTraining

MergeWeight = Annotated[float, Field(gt=0, le=1)]


class ReplayConfig(Part):
    """An earlier phase or your own data, drawn again: give exactly one of `fraction` and
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


LEARNED_AND_KEPT = "learned-and-kept"
SELECT = ("exams", LEARNED_AND_KEPT, "log-likelihood", "last")
"""Ways to choose a phase's checkpoint, beside the benchmarks."""


_TAKEN_NAMES = re.compile(r"base|merged|sft|(?:round|control)-\d+|.*[/\\].*", re.DOTALL)
"""Scores, answers and folders of checkpoints are found by their name."""


class PhaseConfig(Part):
    """One phase of training, as data."""

    name: str
    """The phase's name in metrics, checkpoints and `replay`. Each is different."""
    branches: tuple[Branch, ...] = ()
    """Whose samples it trains on. Empty: none of the taxonomy's, only `data`."""
    whole_branches: tuple[Branch, ...] = ()
    """Branches to train on as well, whatever `length` says: the paper's second knowledge step
    includes the foundational skills."""
    length: Literal["short", "long", "all"] = "all"
    """Which half of the answers, by length in tokens (`mix.short_answer_tokens`)."""
    documents: Share | None = None
    """Part of its taxonomy rows that are texts (`generate.knowledge.kinds`: `document` and
    `rendering`), whatever their length; the others are questions with answers. 0.5 is one text a
    question, 0 none. None: as many as there are, texts counting as answers by their length."""
    data: tuple[str, ...] = ()
    """Names of `[[data]]` entries that it trains on too."""
    replay: tuple[ReplayConfig, ...] = ()
    """Earlier phases, or data of yours, to draw from again."""
    num_epochs: SmallCount = 1
    """Times that the phase goes through its rows."""
    learning_rate: LearningRate | None = None
    """None: `train.learning_rate`."""
    batch_samples: Count | None = None
    """None: `train.batch_samples`."""
    num_samples: Count | None = None
    """Rows per epoch including replay, for planning before there is data."""
    select: str = "exams"
    """How its checkpoint is chosen: by the leaves' `exams`, by these and what was kept of general
    knowledge (`learned-and-kept`, see `evaluate.general`), by the `log-likelihood` of held-out
    rows (`mix.held_out`), the `last`, or by the validation part of an `[[evaluate.benchmark]]`
    task, such as `mmlu`."""

    def of_mixing(self) -> PhaseConfig:
        """What the phase's rows depend on, so that another learning rate mixes nothing anew."""
        return PhaseConfig(
            name=self.name,
            branches=self.branches,
            whole_branches=self.whole_branches,
            length=self.length,
            documents=self.documents,
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


class MergeConfig(Part):
    """Weights between a start and what training made of it: start + weight x (end - start). Less of
    the change forgets less, and often teaches as much. Costs exams, no training."""

    weights: Annotated[tuple[MergeWeight, ...], Field(min_length=1)] = (1.0, 0.9, 0.8, 0.7, 0.5)
    """How much of the change is tried, 1 being all. The least one that has learned enough and kept
    as much as any of these is taken: by the exams' items for choosing (docs/phases.md)."""
    after: Literal["training", "each-phase"] = "training"
    """When weights are merged: once, after the last phase, or after each phase, whose merged
    checkpoint the next one starts from."""
    start: Literal["base", "phase-start"] = "base"
    """What the change is measured from: the run's base, or where the (last) phase started."""

    @field_validator("weights")
    @classmethod
    def _weights_differ(cls, weights: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(weights)) < len(weights):
            raise ValueError("train.merge.weights names a weight twice; take one out")
        return weights


class KlConfig(Part):
    """Holds the student to the base on rows of base replay, by the base's own probabilities."""

    beta: Positive = 0.5
    """Weight of the divergence of a token beside the cross-entropy of one."""
    top_k: Annotated[int, Field(ge=1, le=4096)] = 32
    """Likeliest tokens of the base that are kept for each place, 8 bytes each; all others count as
    one."""


class WorkersConfig(Part):
    """Processes that train together on the nodes of a cluster. Needs `[cluster] engine = "ray"`."""

    num: Place[SmallCount]
    """Processes. Where the nodes that are there have places for fewer, so many train."""
    gpus_each: Place[Annotated[int, Field(ge=0, le=1)]] = 1
    """GPUs of a process: 1, or 0 to train on CPUs."""
    start_seconds: Speed[Positive] = 900.0
    """How long places are waited for that others hold, the run's own servers among them."""


class TrainConfig(Part):
    """How phases are trained. The defaults are the paper's for Labradorite-13b."""

    phase: tuple[PhaseConfig, ...] = DEFAULT_PHASES
    """The phases in order. The default is LAB's: short knowledge, long knowledge, skills, each
    replaying the earlier ones."""
    learning_rate: LearningRate = 2e-5
    """Peak learning rate of AdamW, constant after warm-up."""
    batch_samples: Count = 3840
    """Samples per optimizer step, over all devices."""
    warmup_steps: NoneOrMore = 385
    """Optimizer steps over which the learning rate rises linearly from zero."""
    warmup: Literal["global", "per-phase"] = "global"
    """`global`: one warm-up over all phases. `per-phase`: each phase has its own."""
    betas: tuple[Share, Share] = (0.9, 0.95)
    """AdamW's decay rates of the first and second moment."""
    weight_decay: NonNegative = 0.0
    """AdamW's weight decay, for matrices; biases and norms have none."""
    max_grad_norm: Positive = 1.0
    """Gradients with a larger norm are scaled down to it."""
    tokens_per_micro_batch: Rounding[Count] = 16384
    """Tokens computed at once, on a CPU at most 4096; changes memory and speed, not the result."""
    packing: Rounding[bool] = True
    """true: rows end to end, each attending only to itself. false: side by side, padded."""
    optimizer_states: Literal["float32", "bfloat16"] = "float32"
    """Precision of AdamW's two moments: 16 or 12 bytes per trained weight, together with the weight
    and its gradient."""
    recompute: Rounding[Literal["auto", "always", "never"]] = "auto"
    """Whether activations are recomputed for the backward pass, to save memory. auto: on cuda, if
    the largest micro-batch does not fit otherwise (one process tests it, several predict it);
    elsewhere never."""
    shard: Rounding[Literal["auto", "step", "layer"]] = "auto"
    """How several processes hold the weights: gathered once a step, or layer by layer for a model
    that does not fit otherwise. auto: `step` where it fits. Never changes the result."""
    checkpoints_per_epoch: SmallCount = 1
    """Checkpoints written, and scored where the phase selects on exams, in each epoch."""
    keep_best: Speed[Count] = 2
    """Checkpoints kept per phase besides its last."""
    merge: MergeConfig | None = None
    """Merged weights: part of the way back to where training started. None: what was trained is
    taken as it is."""
    kl: KlConfig | None = None
    """Holds the student to the base on `mix.base_replay`'s rows, besides training on them. None:
    trains on them as on others."""
    workers: Place[WorkersConfig | None] = None
    """Trains on the nodes of a cluster (docs/cluster.md#training). None: where the run is, in as
    many processes as `--nproc` says."""

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
        """What all phases share, without what `of_phases` says of each, and without a merging that
        comes after them."""
        own = {"phase", "learning_rate", "batch_samples", "warmup_steps"}
        if not self.merges_each_phase:
            own.add("merge")
        return TrainConfig(phase=(), **self.model_dump(exclude=own))

    @property
    def merges_each_phase(self) -> bool:
        return self.merge is not None and self.merge.after == "each-phase"

    @property
    def merges_the_end(self) -> bool:
        return self.merge is not None and self.merge.after == "training"

    @model_validator(mode="after")
    def _phases_refer_backwards(self) -> TrainConfig:
        seen: set[str] = set()
        for phase in self.phase:
            if _TAKEN_NAMES.fullmatch(phase.name):
                raise ValueError(
                    f"a phase called {phase.name!r}: base, merged, sft, round-N and control-N name "
                    "other checkpoints, and a name holds no slash; take another"
                )
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
    """How `feldspar learn` adds one leaf to a trained model."""

    replay_share: Share = 0.5
    """Share of the rows drawn from what the run was trained on before."""
    num_epochs: SmallCount = 4
    """Epochs over the new leaf's rows."""
    learning_rate: LearningRate | None = None
    """None: `train.learning_rate`."""
    batch_samples: Count | None = None
    """None: `train.batch_samples`."""
    warmup_steps: NoneOrMore = 0
    """Optimizer steps of warm-up."""
