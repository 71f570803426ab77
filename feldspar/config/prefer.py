"""What a recipe may say about preference tuning."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from feldspar.config.base import (
    Count,
    LearningRate,
    OptionalPath,
    Part,
    Positive,
    Share,
    SmallCount,
    Temperature,
)
from feldspar.config.reward_prompts import RewardPromptsConfig
from feldspar.config.teacher import TeacherConfig
from feldspar.records import Branch

ReleaseMeasure = Literal["reward", "mt-bench"]


class PreferConfig(Part):
    """Preference tuning in rounds: sample answers, score them by the log-ratio reward, fine-tune on
    the best."""

    reward: Literal["log-ratio", "reward-model"] = "log-ratio"
    """What an answer is rewarded by: how much likelier `aligned` finds it than its `base`, or
    `reward_model`."""
    aligned: OptionalPath = None
    """Model directory of the aligned model. Needed by the log ratio."""
    base: OptionalPath = None
    """Model directory of the base it was aligned from. Needed by the log ratio."""
    aligned_server: TeacherConfig | None = None
    """What computes the aligned model: an `endpoint`, a `command` or a `folder`, whose completions
    take token ids and return the log-probabilities of a prompt (vLLM, `feldspar serve`). `aligned`
    then names the folder, or hub id, of its tokenizer and chat template only. None: computed
    locally."""
    base_server: TeacherConfig | None = None
    """The same for the base."""
    reward_model: OptionalPath = None
    """A scalar reward model, as a sequence classifier with one output and its own chat template: a
    folder or hub id. Beside a log ratio it is a control of `feldspar agree` alone. None: none."""
    reward_model_server: TeacherConfig | None = None
    """In place of `reward_model`: what computes it, an `endpoint` or a `command` that classifies
    conversations at `/classify`, as vLLM does, in its own tokenizer and chat template. Needs the
    `model`'s name. None: computed locally."""
    policy_server: TeacherConfig | None = None
    """A `command` that samples the answers; `{model}` is the folder of each round's model. It is
    started for each model that must answer and stopped before anything else is computed. `model`
    is the name that the server has for it, `{model}` by default; a server without it is not used,
    so that it cannot be the last round's. None: sampled locally."""
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
    reward_prompts: RewardPromptsConfig | None = None
    """What both models of the pair read before a question: what counts in answers of its part of
    the taxonomy, optionally with examples. Only the log ratio has such prompts. None: none."""
    branches: tuple[Branch, ...] = ("foundational", "compositional")
    """Whose questions are prompts."""
    headroom: Annotated[float | None, Field(gt=0, le=1)] = None
    """Use only leaves whose exam accuracy before tuning is below this, for example 0.8: if all is
    known already, sixteen answers are the same answer. None: all leaves."""
    control: bool = True
    """Also train on a random answer instead of the best, and report it for comparison."""

    @field_validator("aligned_server", "base_server")
    @classmethod
    def _tells_log_probabilities(
        cls, server: TeacherConfig | None, info: ValidationInfo
    ) -> TeacherConfig | None:
        if server is None:
            return None
        if server.is_embedded or server.batch:
            raise ValueError(
                f"prefer.{info.field_name} needs an `endpoint` (a URL that ends in /v1), a "
                "`command` or a `folder`"
            )
        if server.protocol != "openai":
            raise ValueError(
                f"prefer.{info.field_name} needs log-probabilities of token ids, which the "
                f'protocol "{server.protocol}" does not have; use a server that speaks "openai"'
            )
        return server

    @field_validator("reward_model_server")
    @classmethod
    def _classifies(cls, server: TeacherConfig | None) -> TeacherConfig | None:
        if server is None:
            return None
        is_elsewhere = server.is_embedded or server.batch or server.folder is not None
        if is_elsewhere or server.protocol != "openai":
            raise ValueError(
                "prefer.reward_model_server needs an `endpoint` (a URL that ends in /v1) or a "
                "`command`; a folder's model is named by prefer.reward_model"
            )
        if server.model is None:
            raise ValueError(
                "prefer.reward_model_server needs the `model` that it serves: rewards are kept "
                "under its name, so that another model's are never taken for them"
            )
        return server

    @field_validator("policy_server", mode="before")
    @classmethod
    def _policy_is_called_by_its_folder(cls, given: object) -> object:
        return {"model": "{model}", **given} if isinstance(given, dict) else given

    @field_validator("policy_server")
    @classmethod
    def _policy_changes_each_round(cls, server: TeacherConfig | None) -> TeacherConfig | None:
        if server is None:
            return None
        if server.command is None:
            raise ValueError(
                "prefer.policy_server needs a `command`: each round's model is served from its own "
                "folder; leave the table out and it is computed locally"
            )
        if not any("{model}" in word for word in shlex.split(server.command)):
            raise ValueError(
                "prefer.policy_server.command has no {model}: each round's model is served "
                "from its own folder"
            )
        if server.protocol != "openai":
            raise ValueError(
                f"prefer.policy_server is asked by token ids, which the protocol "
                f'"{server.protocol}" does not have; use a server that speaks "openai"'
            )
        return server

    @property
    def has_reward_model(self) -> bool:
        """Whether one is named, here or on a server."""
        return self.reward_model is not None or self.reward_model_server is not None

    @property
    def reward_model_name(self) -> str:
        """Of the one that is named, for people."""
        server = self.reward_model_server
        return self.reward_model or (server.title if server is not None else "")

    @model_validator(mode="after")
    def _reward_has_its_models(self) -> PreferConfig:
        if self.reward_model is not None and self.reward_model_server is not None:
            raise ValueError(
                "prefer.reward_model is computed locally and prefer.reward_model_server by a "
                "server: name one of the two"
            )
        if self.reward == "reward-model":
            if not self.has_reward_model:
                raise ValueError(
                    'prefer.reward = "reward-model" needs prefer.reward_model, or '
                    "prefer.reward_model_server"
                )
            if self.aligned or self.base or self.aligned_server or self.base_server:
                raise ValueError(
                    'prefer.reward = "reward-model" uses no reward pair: take prefer.aligned, '
                    "prefer.base and their servers out"
                )
            if self.reward_prompts is not None:
                raise ValueError(
                    "prefer.reward_prompts are read by a reward pair, and prefer.reward is "
                    '"reward-model": take prefer.reward_prompts out'
                )
        elif self.aligned is None or self.base is None:
            raise ValueError(
                "prefer.aligned and prefer.base: the log ratio needs both, the aligned model and "
                "the base that it was made from"
            )
        return self

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
