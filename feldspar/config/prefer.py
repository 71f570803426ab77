"""What a recipe may say about preference tuning."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

from pydantic import Field, model_validator

from feldspar.config.base import (
    Count,
    Endpoint,
    LearningRate,
    NoneOrMore,
    Part,
    PathText,
    Positive,
    Share,
    SmallCount,
    Temperature,
)
from feldspar.keys import Place, Speed
from feldspar.records import Branch

ReleaseMeasure = Literal["reward", "mt-bench"]


class RewardServerConfig(Part):
    """A server that computes one model of the reward pair: vLLM, `feldspar serve`, or another whose
    `/v1/completions` takes token ids and returns the log-probabilities of a prompt."""

    endpoint: Place[Endpoint]
    """A URL that ends in /v1."""
    model: str | None = None
    """None takes the first model that the server lists."""
    revision: str = ""
    """Change it when the weights behind the name change: rewards are then computed again."""
    key_variable: Place[str] = "OPENAI_API_KEY"
    """Environment variable that holds the key. Keys never stand in a recipe."""
    concurrency: Speed[Count] = 16
    """Answers in flight at once."""
    timeout_seconds: Speed[Positive] = 300.0
    """Longest wait for one answer."""
    max_retries: Speed[NoneOrMore] = 8
    """Attempts after the first, with growing pauses, at a server that is busy or gone."""

    @property
    def key(self) -> str:
        """Of what answers, wherever it is served; without a name there is only the place."""
        return f"{self.model or self.endpoint}@{self.revision}"


class PolicyServerConfig(Part):
    """A server that samples the answers. It is started for each model that must answer and stopped
    before anything else is computed, so that both can use the same device."""

    command: Place[str]
    """Serves the model folder `{model}` at `http://127.0.0.1:{port}/v1` until it is stopped: `vllm
    serve {model} --port {port} --generation-config vllm`, `feldspar serve {model} --port {port}`,
    or a script of yours. It does not go through a shell and runs in the working directory."""
    model: str = "{model}"
    """The model's name on the server. A server without that model is not used, so that it cannot be
    the last round's."""
    start_seconds: Speed[Positive] = 900.0
    """Longest wait for the server to start."""
    key_variable: Place[str] = "OPENAI_API_KEY"
    """Environment variable that holds the key, where it wants one."""
    concurrency: Speed[Count] = 16
    """Prompts under way at once, each with `num_answers` answers."""
    timeout_seconds: Speed[Positive] = 600.0
    """Longest wait for the answers to one prompt."""
    max_retries: Speed[NoneOrMore] = 8
    """Attempts after the first, with growing pauses, at a server that is busy."""

    @model_validator(mode="after")
    def _command_names_model_and_port(self) -> PolicyServerConfig:
        try:
            words = shlex.split(self.command)
        except ValueError as error:
            raise ValueError(f"prefer.policy_server.command cannot be read: {error}") from None
        for name in ("{model}", "{port}"):
            if not any(name in word for word in words):
                raise ValueError(
                    f"prefer.policy_server.command has no {name}: each round's model is served "
                    "from its own folder, at a port that is free then"
                )
        return self

    @property
    def key(self) -> str:
        """That a server draws. How it is started does not count: a run whose command was mended
        goes on with the answers it has."""
        return "a server"


class PreferConfig(Part):
    """Preference tuning in rounds: sample answers, score them by the log-ratio reward, fine-tune on
    the best."""

    aligned: PathText
    """Model directory of the aligned model."""
    base: PathText
    """Model directory of the base it was aligned from."""
    aligned_server: RewardServerConfig | None = None
    """Server that computes the aligned model. `aligned` then names the folder, or hub id, of its
    tokenizer and chat template only. None: computed locally."""
    base_server: RewardServerConfig | None = None
    """The same for the base."""
    policy_server: PolicyServerConfig | None = None
    """Server that samples the answers. None: sampled locally."""
    num_prompts: Count = 30_000
    """Most prompts to tune on, drawn uniformly over leaves; a tenth of them is held out."""
    round_prompts: Count | None = None
    """Prompts of one round; rounds take turns through all prompts. None: every round uses all."""
    top_up: Share = 0.0
    """Share of `round_prompts`, from the second round on, taken from earlier rounds again; more if
    new ones run out."""
    method: Literal["best-of-n", "dpo"] = "best-of-n"
    """What a round does with the rewards: fine-tune on the best answer, or direct preference
    optimisation of the best against a random other one."""
    dpo_beta: Positive | None = None
    """How strongly DPO holds the model to where the round started: smaller moves further."""
    num_answers: Annotated[int, Field(ge=2, le=1024)] = 16
    """N: answers sampled per prompt."""
    temperature: Temperature = 1.0
    """Sampling temperature of the answers."""
    max_new_tokens: Count = 300
    """Longest answer in tokens."""
    num_rounds: SmallCount = 1
    """Most rounds; `stop_at_plateau` may end them earlier."""
    release: Annotated[tuple[ReleaseMeasure, ...], Field(min_length=1)] = ("reward",)
    """What a round must be better at than the SFT start to be released: `reward` on held-out
    prompts, `mt-bench`, or both. Of several, the highest by the first. Where none is, or all have
    lost what exams of `retention` ask for, the start is released again."""
    stop_at_plateau: bool = True
    """Stop after a round that did not raise the mean reward on held-out prompts."""
    restart: Literal["last", "sft"] = "last"
    """What a round fine-tunes: the last round's model, or the SFT start again. Answers are drawn
    from the last round's either way."""
    num_epochs: SmallCount = 1
    """Epochs of fine-tuning on a round's picks."""
    learning_rate: LearningRate | None = None
    """None: `train.learning_rate`."""
    batch_samples: Count | None = None
    """None: `train.batch_samples`."""
    normalise: Literal["sum", "mean"] = "sum"
    """Whether an answer's reward is the sum of the log-ratio over its tokens, or their mean."""
    branches: tuple[Branch, ...] = ("foundational", "compositional")
    """Whose questions are prompts."""
    headroom: Annotated[float | None, Field(gt=0, le=1)] = None
    """Use only leaves whose exam accuracy before tuning is below this, for example 0.8: if all is
    known already, sixteen answers are the same answer. None: all leaves."""
    control: bool = True
    """Also train on a random answer instead of the best, and report it for comparison."""

    @model_validator(mode="after")
    def _tops_up_what_is_parted(self) -> PreferConfig:
        if self.top_up and self.round_prompts is None:
            raise ValueError(
                "prefer.top_up is a part of prefer.round_prompts: give that too; without it every "
                "round asks all prompts again"
            )
        return self

    @model_validator(mode="after")
    def _beta_is_of_dpo(self) -> PreferConfig:
        if self.dpo_beta is not None and self.method != "dpo":
            raise ValueError(
                f'prefer.dpo_beta says nothing to method = "{self.method}": set prefer.method = '
                '"dpo", or take prefer.dpo_beta out'
            )
        return self
