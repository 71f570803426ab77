"""What a recipe may say about preference tuning and about what is measured."""

from __future__ import annotations

import shlex
from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from feldspar.config.asking import TeacherConfig
from feldspar.config.part import Count, OptionalPath, Part, PathText, Positive, Share
from feldspar.records import Branch


class RewardServerConfig(Part):
    """A server that computes one model of the reward pair: vLLM, `feldspar serve`, or another whose
    `/v1/completions` takes token ids and tells the log-probabilities of a prompt."""

    endpoint: str
    """A URL that ends in /v1."""
    model: str | None = None
    """None takes the first model that the server lists."""
    revision: str = ""
    """Change it when the weights behind a name do: rewards are then read again."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key. Keys never stand in a recipe."""
    concurrency: Count = 16
    """Answers under way at once."""
    timeout_seconds: Positive = 300.0
    """Longest wait for one answer."""
    max_retries: Annotated[int, Field(ge=0)] = 8
    """Attempts after the first, with growing pauses, at a server that is busy or gone."""

    @property
    def key(self) -> str:
        """Of what answers, wherever it is served; without a name there is only the place."""
        return f"{self.model or self.endpoint}@{self.revision}"


class PolicyServerConfig(Part):
    """A server that draws the answers. It is started for each model that is to answer, and has
    ended before anything else is computed, so that both may use the same device."""

    command: str
    """Serves the model folder `{model}` at `http://127.0.0.1:{port}/v1` until it is told to end:
    `vllm serve {model} --port {port} --generation-config vllm`, `feldspar serve {model} --port
    {port}`, or a script of yours. No shell reads it; it is run in the working directory."""
    model: str = "{model}"
    """What the server calls the model. A server that has no such model is not asked, so that it is
    never the last round's."""
    start_seconds: Positive = 900.0
    """Longest wait for it to come up."""
    key_variable: str = "OPENAI_API_KEY"
    """Environment variable that holds the key, where it wants one."""
    concurrency: Count = 16
    """Prompts under way at once, each with `num_answers` answers."""
    timeout_seconds: Positive = 600.0
    """Longest wait for the answers to one prompt."""
    max_retries: Annotated[int, Field(ge=0)] = 8
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
    """Best-of-N by the log-ratio reward, then fine-tuning on the best, in rounds."""

    aligned: PathText
    """Model directory of the aligned model."""
    base: PathText
    """Model directory of the base it was aligned from."""
    aligned_server: RewardServerConfig | None = None
    """Who computes the aligned model. `aligned` then names the folder, or hub id, of its tokenizer
    and chat template alone. None: it is computed here."""
    base_server: RewardServerConfig | None = None
    """The same for the base."""
    policy_server: PolicyServerConfig | None = None
    """Who draws the answers. None: they are drawn here."""
    num_prompts: Count = 30_000
    round_prompts: Count | None = None
    """Prompts of one round: rounds ask others in turn. None: every round asks all."""
    top_up: Share = 0.0
    """Part of `round_prompts`, from the second round on, that earlier rounds have asked; more of
    them where new ones run out."""
    method: Literal["best-of-n", "dpo"] = "best-of-n"
    """What a round does with the rewards: fine-tune on the best answer, or direct preference
    optimisation of the best against a random other one."""
    dpo_beta: Positive = 0.1
    """How far DPO may move from the model that the round starts from: less is further."""
    num_answers: Annotated[int, Field(ge=2)] = 16
    """N: answers sampled per prompt."""
    temperature: Positive = 1.0
    max_new_tokens: Count = 300
    num_rounds: Count = 1
    stop_at_plateau: bool = True
    """Do no further round after one that did not raise the policy's mean reward on held-out
    prompts."""
    restart: Literal["last", "sft"] = "last"
    """What a round fine-tunes: the last round's model, or the SFT start again. Answers are drawn
    from the last round's either way."""
    num_epochs: Count = 1
    learning_rate: Positive | None = None
    """None: `train.learning_rate`."""
    batch_samples: Count | None = None
    """None: `train.batch_samples`."""
    normalise: Literal["sum", "mean"] = "sum"
    branches: tuple[Branch, ...] = ("foundational", "compositional")
    """Whose questions are prompts."""
    headroom: Annotated[float | None, Field(gt=0, le=1)] = None
    """Ask only of leaves whose exam accuracy before tuning is below this, 0.8 for example: where
    all is known already, sixteen answers are one answer. None asks of all."""
    control: bool = True
    """Also train on a random pick instead of the best, and report it beside."""

    @model_validator(mode="after")
    def _tops_up_what_is_parted(self) -> PreferConfig:
        if self.top_up and self.round_prompts is None:
            raise ValueError(
                "prefer.top_up is a part of prefer.round_prompts: give that too; without it every "
                "round asks all prompts again"
            )
        return self


class ExamConfig(Part):
    """A user's own exam: a JSONL file of items, scored before and after."""

    name: str
    path: PathText
    """JSONL with `question`, `answer`, and optionally `accepted` and `match`; a folder of such
    files, each an exam of its own name; or an earlier run's directory, whose leaf exams are one
    exam here: what was taught before, and may be forgotten now."""
    retention: bool = False
    """It asks for what the base can do already and is to keep: the report counts what each phase
    forgets of it. Always so for an earlier run's exams."""


class BenchmarkConfig(Part):
    """A published benchmark, as lm_eval defines it: needs `pip install 'feldspar[eval]'`."""

    task: str
    """A task or group of lm_eval, such as `mmlu`, `arc_challenge`, `hellaswag`, `winogrande` or
    `gsm8k`."""
    num_fewshot: Annotated[int | None, Field(ge=0)] = None
    """Examples shown in the prompt. None: as published (5, 25, 10, 5 and 5 for the tasks above),
    else the task's own number."""
    data: OptionalPath = None
    """A folder of `train.jsonl`, `validation.jsonl`, `dev.jsonl` or `test.jsonl` in the columns of
    the task's data set; a group's tasks share them by a `subject` column. None: from the hub."""
    limit: Count | None = None
    """Only the first items of each task: for a quick look."""
    split: Literal["published", "validation"] = "published"
    """`validation` scores the task's validation part instead: to choose by, and to report on the
    published part what was not chosen by."""
    chat_template: bool = False
    """Ask through the student's chat template. Published rows are without."""


class MTBenchConfig(Part):
    """MT-Bench: 80 two-turn questions, rated by a judge from 1 to 10 (Zheng et al. 2023)."""

    data: OptionalPath = None
    """A folder in FastChat's layout: `question.jsonl`, `reference_answer/gpt-4.jsonl`, and
    `judge_prompts.jsonl` in it or beside it."""
    fetch: bool = False
    """Without `data`: fetch the published files from their public home, at a pinned commit."""
    home: str = "https://raw.githubusercontent.com/lm-sys/FastChat"
    """Where `fetch` finds them, or a mirror of it: files are checked by digest."""
    judge: TeacherConfig | None = None
    """Who rates. None: the recipe's judge. Published ratings are GPT-4's of 2023."""
    mode: Literal["single", "pairwise"] = "single"
    """`single` rates each answer; `pairwise` sets it against `baseline`'s, in both orders."""
    baseline: OptionalPath = None
    """Answers in FastChat's layout to compare with. None: the base's own."""
    num_runs: Count = 1
    """Times that all is answered and judged, for the spread; published rows differ by 0.2."""
    max_new_tokens: Count = 1024

    def asked(self) -> MTBenchConfig:
        """What answers and ratings depend on: not where the files are from, nor who judges."""
        return self.model_copy(update={"fetch": False, "home": "", "judge": None, "data": None})


class EvaluateConfig(Part):
    """What is measured, and how."""

    exam: tuple[ExamConfig, ...] = ()
    """Exams of the user's own, beside the leaves'."""
    max_new_tokens: Count = 64
    long_answers: Literal["likelihood", "judge"] = "likelihood"
    """What is measured of exam items whose answer is too long to match: the log-likelihood of the
    reference alone, or also whether the judge finds the text right (give it room:
    `max_new_tokens`). Items of `match = "judge"` are judged either way."""
    min_selection_items: Count = 100
    """Fewer items than this choose no checkpoint: a phase's last is taken, and the run says so."""
    num_resamples: Count = 1000
    """Of the bootstrap behind log-likelihoods' and differences' intervals; shares have Wilson's."""
    benchmark: tuple[BenchmarkConfig, ...] = ()
    """Published benchmarks, run before and after."""
    mt_bench: MTBenchConfig | None = None
    """MT-Bench, before and after. None: not run."""
    server: TeacherConfig | None = None
    """A server whose model is put through the same benchmarks and MT-Bench, for a row beside the
    run's own."""

    server_tasks: tuple[str, ...] = ()
    """Of the benchmarks' tasks and `mt-bench`, those that the server is asked: one that has chat
    alone can do MT-Bench and what is written, such as GSM8K. Empty: all."""

    @field_validator("server")
    @classmethod
    def _server_has_a_url(cls, server: TeacherConfig | None) -> TeacherConfig | None:
        if server is not None and server.endpoint == "embedded":
            raise ValueError("evaluate.server needs an `endpoint`, a URL that ends in /v1")
        return server

    @model_validator(mode="after")
    def _server_tasks_are_there(self) -> EvaluateConfig:
        tasks = [b.task for b in self.benchmark] + ["mt-bench"] * (self.mt_bench is not None)
        for task in self.server_tasks:
            if task not in tasks:
                there = ", ".join(tasks) or "none"
                raise ValueError(f"evaluate.server_tasks names {task!r}; there are: {there}")
        return self

    def asks_server(self, task: str) -> bool:
        """Whether `server` is put through a benchmark, or through `mt-bench`."""
        return self.server is not None and (not self.server_tasks or task in self.server_tasks)

    def of_exams(self) -> EvaluateConfig:
        """What exams alone depend on, so that another benchmark leaves their scores as they are."""
        return self.model_copy(
            update={"benchmark": (), "mt_bench": None, "server": None, "server_tasks": ()}
        )
