"""What a recipe may say so that its cost can be foretold: the base's sizes, the machine, rates."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from feldspar.config.base import Count, Part, Positive


class ArchitectureConfig(Part):
    """Sizes of a decoder with gated MLPs (Llama, Mistral, Granite, Qwen3), from its config.json."""

    hidden_size: Count
    num_layers: Count
    intermediate_size: Count
    vocabulary: Count
    num_heads: Count
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


class PlanConfig(Part):
    """What `feldspar plan` cannot see from here. Nothing of this changes a run."""

    gpu: str | None = None
    """A machine such as `h200x8` or `rtx4090`. None: the GPUs of this one."""
    architecture: ArchitectureConfig | None = None
    """Of the base, where it is not at hand; its own config.json goes before this."""
    mfu: Annotated[float, Field(gt=0, le=1)] = 0.4
    """Part of the GPU's bf16 peak that training reaches, as `metrics.jsonl` of a run says it."""
    row_tokens: Count | None = None
    """Tokens of a training row on average. None: as the leaves' seeds are."""
    teacher_tokens_per_second: Positive | None = None
    """Tokens that the teacher writes in a second over all calls, as its server logs them. None:
    what `feldspar plan --probe` measured."""
    price_per_gpu_hour: Annotated[float, Field(ge=0)] = 0.0
    """In the currency of the teacher's prices."""
    reward_parameters: Positive | None = None
    """Of the larger model of the reward pair, where it is not at hand."""
