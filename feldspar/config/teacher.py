"""What a recipe may say about the model that writes or judges, and how it is asked."""

from __future__ import annotations

import math
import shlex
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from feldspar.config.base import (
    Count,
    Endpoint,
    NoneOrMore,
    NonNegative,
    OptionalPath,
    Part,
    Positive,
    Rate,
)
from feldspar.keys import Place, Speed

PARAMETERS = ("seed", "max_tokens", "temperature")
"""Of a call, that may be left out or renamed."""
_OURS = ("model", "messages", "prompt", "stream", "n", "stop", "system")


class ErrorRates(Part):
    """How often the embedded teacher errs, each drawn independently per call."""

    wrong_fact: Rate = 0.0
    """An answer whose fact or result is wrong."""
    unfaithful: Rate = 0.0
    """An answer that adds a claim the document does not make."""
    off_format: Rate = 0.0
    """A reply the parser cannot read."""
    duplicate: Rate = 0.0
    """A question asked before."""
    unsafe: Rate = 0.0
    """An instruction that asks for harm."""
    wrong_judgment: Rate = 0.0
    """A judgment that is inverted, either way."""


class TeacherConfig(Part):
    """A large model that writes or judges: behind an `endpoint`, started by a `command`, or
    computed from a local `folder`."""

    endpoint: Place[Endpoint] = "embedded"
    """`embedded` starts the micro-world's teacher; else a URL such as `http://localhost:8000/v1`."""
    endpoints: Place[tuple[Endpoint, ...]] = ()
    """More servers of the same model. Each call goes to the one with the fewest calls in flight;
    one that keeps failing is skipped for a while."""
    command: Place[str | None] = None
    """Command that serves a model at `http://127.0.0.1:{port}/v1` until it is stopped: `vllm
    serve {model} --port {port}`. It is started before the first call that the journal cannot
    answer, without a shell. `{replica}` is 0, 1, ...: `env CUDA_VISIBLE_DEVICES={replica} vllm
    serve ...`. `{host}` is the address that the run asks: 127.0.0.1, or that of the node."""
    replicas: Speed[Count] = 1
    """Copies of the command to start, each on its own port."""
    engine: Place[Literal["local", "ray"] | None] = None
    """Where the command is started: next to the run, or on the nodes of a Ray cluster. None:
    `cluster.engine`."""
    gpus_each: Place[NoneOrMore] = 0
    """GPUs that a copy holds on each of its nodes. Needs the engine `ray`, which shows a copy its
    own GPUs alone, and none at 0."""
    nodes_each: Place[Count] = 1
    """Nodes that a copy spans. Needs the engine `ray`, which starts the command on each of them:
    `{node}` is 0, 1, ..., `{nodes}` their number, and `{head}` and `{head_port}` are an address on
    the first, for its nodes to meet at."""
    start_seconds: Speed[Positive] = 900.0
    """Longest wait for a command's servers to start."""
    folder: OptionalPath = None
    """A Hugging Face model folder, or hub id, computed on this machine with its own chat
    template."""
    batch: Place[bool] = False
    """Write calls to OpenAI batch files in the run's `batches/` instead of asking, and read the
    answers that you put next to them, for `vllm run-batch` and hosted batch endpoints. Of teacher
    and judges; needs the `model`."""
    protocol: Literal["openai", "anthropic"] = "openai"
    """What the servers speak: OpenAI's chat completions, or Anthropic's Messages."""
    parameters: dict[str, Any] = Field(default_factory=dict)
    """More parameters of every call, such as `top_k = 20`. `seed`, `max_tokens` and `temperature`
    may be `false`, to leave them out, or another name: `max_tokens = "max_completion_tokens"`.
    Parameters that affect answers are part of the journal's key."""
    model: str | None = None
    """Name of the model. None: the first that the server lists. With a `command`: the value of
    `{model}`."""
    revision: str = ""
    """Part of the key under which answers are stored: change it when the weights behind the name
    change."""
    key_variable: Place[str] = "OPENAI_API_KEY"
    """Environment variable that holds the API key. Keys are never written in a recipe. With
    `protocol = "anthropic"` the default is ANTHROPIC_API_KEY."""
    errors: ErrorRates = ErrorRates()
    """Error rates of the embedded teacher; ignored for any other endpoint."""
    concurrency: Speed[NoneOrMore] = 0
    """Calls in flight. 0 finds the server's limit."""
    max_concurrency: Speed[Count] = 256
    """Upper bound for each server if `concurrency` is 0."""
    requests_per_minute: Speed[Count | None] = None
    """Most requests per minute, over all servers."""
    tokens_per_minute: Speed[Count | None] = None
    """Most prompt and completion tokens per minute; until it is answered, a call counts as the most
    it can use."""
    timeout_seconds: Speed[Positive] = 300.0
    """Longest wait for one answer, from the first byte sent to the last byte read."""
    max_retries: Speed[NoneOrMore] = 8
    """Attempts after the first, with growing pauses, if a server is busy or unreachable."""
    prompt_price: Speed[NonNegative] = 0.0
    """Price of a million prompt tokens, in any currency."""
    completion_price: Speed[NonNegative] = 0.0
    """Price of a million tokens written."""
    failure_budget: Speed[Rate] = 0.2
    """The run stops if more than this share of the last 200 calls failed for good."""

    @model_validator(mode="before")
    @classmethod
    def _key_is_the_protocols(cls, given: object) -> object:
        if isinstance(given, dict) and given.get("protocol") == "anthropic":
            return {"key_variable": "ANTHROPIC_API_KEY", **given}
        return given

    @field_validator("parameters")
    @classmethod
    def _parameters_can_be_sent(cls, parameters: dict[str, Any]) -> dict[str, Any]:
        for name, value in parameters.items():
            if name in _OURS:
                raise ValueError(f"parameters.{name} is set by the run itself; leave it out")
            is_name = isinstance(value, str) and value and name != "temperature"
            if name in PARAMETERS and value is not False and not is_name:
                kinds = "false" if name == "temperature" else "false or another name for it"
                raise ValueError(f"parameters.{name} is {kinds}, got {value!r}")
            if not _is_json(value):
                raise ValueError(f"parameters.{name} = {value!r} cannot be sent as JSON")
        return parameters

    @model_validator(mode="after")
    def _is_one_thing(self) -> TeacherConfig:
        named = [
            name
            for name, is_set in (
                ("endpoint", self.endpoint != "embedded" or bool(self.endpoints)),
                ("command", self.command is not None),
                ("folder", self.folder is not None),
                ("batch", self.batch),
            )
            if is_set
        ]
        if self.batch and (not self.model or self.protocol != "openai"):
            raise ValueError(
                '`batch` writes OpenAI batch files: it needs the `model`, and protocol = "openai"'
            )
        if len(named) > 1:
            raise ValueError(f"name one of {' and '.join(f'`{name}`' for name in named)}")
        if self.replicas > 1 and self.command is None:
            raise ValueError("`replicas` starts a `command` several times, and there is none")
        self._check_place()
        if self.folder is not None and (self.parameters or self.protocol != "openai"):
            raise ValueError("a `folder` is computed here: it takes no `parameters` or `protocol`")
        if self.endpoint == "embedded" and not named and self.protocol != "openai":
            raise ValueError("the embedded teacher speaks OpenAI's protocol alone")
        if self.command is not None:
            _check_command(self.command, self.model)
        return self

    def _check_place(self) -> None:
        given = [
            name
            for name, is_given in (
                ("engine", self.engine is not None),
                ("gpus_each", self.gpus_each > 0),
                ("nodes_each", self.nodes_each > 1),
            )
            if is_given
        ]
        if given and self.command is None:
            raise ValueError(f"`{given[0]}` says where a `command` is started, and there is none")
        if self.nodes_each > 1 and "{node}" not in (self.command or ""):
            raise ValueError(
                "`nodes_each` starts the `command` on several nodes, and it has no {node} to tell "
                "them apart: `--node-rank {node} --master-addr {head} --master-port {head_port}`"
            )

    @property
    def is_embedded(self) -> bool:
        """Whether the micro-world's own teacher is meant."""
        is_named = self.command is not None or self.folder is not None or self.batch
        return self.endpoint == "embedded" and not is_named

    @property
    def num_servers(self) -> int:
        """Copies of the command, or URLs, that share the calls."""
        return max(self.replicas, 1 + len(self.endpoints))

    @property
    def title(self) -> str:
        """For people: the model's name, else where it is."""
        return self.model or self.folder or self.command or self.endpoint


def _check_command(command: str, model: str | None) -> None:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"`command` cannot be read: {error}") from None
    if not any("{port}" in word for word in words):
        raise ValueError("`command` has no {port}: the run finds one that is free")
    if model is None and any("{model}" in word for word in words):
        raise ValueError("`command` has {model}: name the `model` too")
    if not model:
        raise ValueError(
            "a `command` needs the `model` that it serves, by name or folder: answers are kept "
            "under it, so that another model's are never taken for them"
        )


def _is_json(value: object) -> bool:
    if isinstance(value, dict):
        return all(isinstance(k, str) and _is_json(v) for k, v in value.items())
    if isinstance(value, list):
        return all(map(_is_json, value))
    return isinstance(value, str | int) or (isinstance(value, float) and math.isfinite(value))
