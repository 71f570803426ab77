"""What a recipe may say so that its cost can be estimated: the base's sizes, the machine, rates."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from feldspar.config.base import Count, NoneOrMore, NonNegative, Part, Positive


class ArchitectureConfig(Part):
    """Sizes of a decoder with gated MLPs (Llama, Mistral, Granite, Qwen3, Gemma)."""

    hidden_size: Count
    """Width of the residual stream (`hidden_size` in config.json)."""
    num_layers: Count
    """Decoder layers (`num_hidden_layers`)."""
    intermediate_size: Count
    """Width inside the MLP (`intermediate_size`)."""
    vocabulary: Count
    """Tokens in the vocabulary (`vocab_size`)."""
    num_heads: Count
    """Attention heads of queries (`num_attention_heads`)."""
    num_kv_heads: Count | None = None
    """None: as many as `num_heads`."""
    head_size: Count | None = None
    """None: `hidden_size` over `num_heads`."""
    qk_norm: bool = False
    """Whether queries and keys are normalised, as in Qwen3."""
    tied: bool = False
    """Whether embeddings and head are one matrix."""

    @property
    def query_size(self) -> int:
        """Of all heads together."""
        return self.num_heads * (self.head_size or self.hidden_size // self.num_heads)

    @property
    def key_size(self) -> int:
        """Of all key (or value) heads together."""
        return self.query_size // self.num_heads * (self.num_kv_heads or self.num_heads)

    @property
    def layer_matrices(self) -> int:
        """Parameters of one layer's linear maps."""
        attention = 2 * self.hidden_size * (self.query_size + self.key_size)
        return attention + 3 * self.hidden_size * self.intermediate_size

    @property
    def num_parameters(self) -> int:
        """All of them; biases and norms within heads, which some families have, are left out."""
        norms = self.hidden_size * (2 * self.num_layers + 1)
        embeddings = self.vocabulary * self.hidden_size * (1 if self.tied else 2)
        return self.num_layers * self.layer_matrices + norms + embeddings


class PlanSamplesConfig(Part):
    """Samples by branch to plan for where `taxonomy.path` is not there yet."""

    knowledge: NoneOrMore = 0
    """Of knowledge leaves."""
    foundational: NoneOrMore = 0
    """Of foundational skills."""
    compositional: NoneOrMore = 0
    """Of compositional skills."""


class ModelSizeConfig(Part):
    """How large a model is that the run only asks."""

    parameters: Positive
    """All of them: `46.7e9`. They decide how many GPUs a copy takes, at two bytes each."""
    active_parameters: Positive | None = None
    """Those that one token meets, in a mixture of experts: `12.9e9`. None: all."""

    @property
    def active(self) -> float:
        """What computing a token costs, in parameters."""
        return self.active_parameters or self.parameters


class PlanConfig(Part):
    """What `feldspar plan` cannot find out by itself. It never changes a run."""

    gpu: str | None = None
    """A machine such as `h200x8` or `rtx4090`. None: this machine's GPUs."""
    architecture: ArchitectureConfig | None = None
    """The base's sizes, if its config.json is missing; the file takes precedence."""
    samples: PlanSamplesConfig | None = None
    """How many samples to plan for where the taxonomy is missing. None: there must be one."""
    mfu: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Share of the GPU's bf16 peak that training reaches, as in `metrics.jsonl` of a run."""
    mfu_reading: Annotated[float, Field(gt=0, le=1)] = 0.3
    """Share of the peak that servers reach while they read prompts; for `plan --cluster`."""
    mfu_writing: Annotated[float, Field(gt=0, le=1)] = 0.1
    """The same while they write, in large batches."""
    teacher: ModelSizeConfig | None = None
    """The teacher's size, for `plan --cluster`. None: the teacher has no place in the timetable."""
    judge: ModelSizeConfig | None = None
    """The judge's size, if `[judge]` names another model."""
    row_tokens: Count | None = None
    """Mean tokens per training row. None: as long as the leaves' seeds."""
    teacher_tokens_per_second: Positive | None = None
    """Tokens the teacher writes per second over all calls, as its server logs them. None: what
    `feldspar plan --probe` measured."""
    price_per_gpu_hour: NonNegative = 0.0
    """In the currency of the teacher's prices."""
    reward_parameters: Positive | None = None
    """Parameters of the larger model of the reward pair, if it is missing."""
    reward_active_parameters: Positive | None = None
    """Those that one token meets, in a mixture of experts. None: all."""
