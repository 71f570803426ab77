"""A model behind a command that is started for it, waited for, watched, and ended with us.

    command = "vllm serve {model} --port {port}"

Replicas are the same command at several ports, on this machine or on a cluster's nodes (`fleet`).
"""

from __future__ import annotations

import asyncio
import functools
import hashlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

from feldspar.endpoint.calls import ChatCall, Completions, PromptCall
from feldspar.endpoint.endpoint import UNHURRIED, Access, Endpoint, Turn
from feldspar.endpoint.faults import NoAnswers
from feldspar.endpoint.models_list import ListedModel
from feldspar.endpoint.openai_completions import PromptToken
from feldspar.endpoint.parameters import Parameters
from feldspar.endpoint.replicas import ServersHealth
from feldspar.models.fleet import Fleet, launching
from feldspar.models.model import Continuations, Heard, LogProb, unheard
from feldspar.models.served import ServedModel, model_key
from feldspar.models.server import Server, Start
from feldspar.progress import SILENT, Progress


class LaunchedModel:
    """A model whose servers are started before its first call: never, where no call is made.

    `close` ends them.
    """

    def __init__(
        self, start: Start, access: Access, revision: str = "", progress: Progress = SILENT
    ) -> None:
        self.access = replace(access, is_proxied=False)
        self._start, self._progress = start, progress
        self._given_revision = revision
        self._parameters = Parameters(access.parameters)
        self._stack = ExitStack()
        self._fleet: Fleet | None = None
        self._model: ServedModel | None = None
        self._failure: NoAnswers | None = None
        self._starting = asyncio.Lock()
        self._num_entered = 0

    @functools.cached_property
    def _identity(self) -> tuple[str, str]:
        """Name and revision. A folder's or file's are of its content, wherever it lies."""
        assert self._start.model, self._start.command
        path = Path(self._start.model)
        if not self._given_revision and path.is_dir():
            # Only here, for it loads torch.
            from feldspar.models.local import folder_identity

            return folder_identity(self._start.model)
        if path.is_file():
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return path.name, self._given_revision or digest[:16]
        return self._start.model, self._given_revision

    @property
    def name(self) -> str:
        return self._identity[0]

    @property
    def revision(self) -> str:
        return self._identity[1]

    @property
    def key(self) -> str:
        return model_key(self.name, self.revision, self._parameters.key)

    @property
    def log_folder(self) -> Path:
        """Where what the servers say is written."""
        return self._start.log_folder

    @property
    def answers_key(self) -> str:
        known = self._model.endpoint.parameters if self._model else self._parameters
        return model_key(self.name, self.revision, known.key)

    @property
    def place(self) -> str:
        return f"that was started for {self._start.model or 'the recipe'}"

    @property
    def concurrency(self) -> int:
        return self._model.concurrency if self._model else self.access.concurrency

    @property
    def max_concurrency(self) -> int:
        """Most calls that will ever be in flight."""
        return self.access.concurrency or self.access.max_concurrency * self._start.num_replicas

    @property
    def health(self) -> ServersHealth:
        return self._model.health if self._model else ServersHealth()

    @property
    def servers(self) -> list[Server]:
        """Those that were started, in order of their replica; none before the first call."""
        return [] if self._fleet is None else self._fleet.servers

    async def __aenter__(self) -> LaunchedModel:
        self._num_entered += 1
        if self._num_entered == 1:
            self._starting, self._failure = asyncio.Lock(), None
            if self._model is not None:
                await self._model.__aenter__()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._num_entered -= 1
        if not self._num_entered and self._model is not None:
            await self._model.__aexit__()

    def drain(self) -> None:
        if self._model is not None:
            self._model.drain()

    def close(self) -> None:
        """End the servers, if they were started."""
        self._model = None
        self._stack.close()

    async def complete(self, call: ChatCall | PromptCall, turn: Turn = UNHURRIED) -> Completions:
        return await (await self.served()).complete(call, turn)

    async def prompt_tokens(
        self, prompt: str | Sequence[int], turn: Turn = UNHURRIED
    ) -> list[PromptToken]:
        return await (await self.served()).prompt_tokens(prompt, turn)

    async def reward(self, messages: Sequence[Mapping[str, str]], turn: Turn = UNHURRIED) -> float:
        return await (await self.served()).reward(messages, turn)

    async def score(
        self,
        rows: Sequence[Continuations],
        progress: Progress = SILENT,
        heard: Heard = unheard,
    ) -> list[list[LogProb]]:
        return await (await self.served()).score(rows, progress, heard)

    async def served(self) -> ServedModel:
        """The model behind the servers, which are started now if they are not yet."""
        async with self._starting:
            if self._failure is not None:
                raise self._failure
            if self._model is None:
                try:
                    self._model = await self._begin()
                except NoAnswers as error:
                    self._failure = error
                    self._stack.close()
                    raise
            return self._model

    async def _begin(self) -> ServedModel:
        fleet = self._fleet = self._stack.enter_context(launching(self._start))
        with self._progress.task("starting the model's server", None, "servers"):
            name = await fleet.wait(self.access)
        endpoint = Endpoint(self.access, fleet.pool, name, check=fleet.check, place=self.place)
        model = ServedModel(endpoint, ListedModel(name))
        await model.__aenter__()
        return model
