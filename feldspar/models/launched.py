"""A model behind a command that is started for it, waited for, watched, and ended with us.

    command = "vllm serve {model} --port {port}"

Replicas are the same command at several ports. The guard between us and a server (`child_guard`)
ends the server's whole session when we let go or are gone, however that came.
"""

from __future__ import annotations

import asyncio
import contextlib
import functools
import hashlib
import logging
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from feldspar.endpoint.calls import ChatCall, Completions, PromptCall
from feldspar.endpoint.endpoint import UNHURRIED, Access, Endpoint, Turn
from feldspar.endpoint.faults import Fault, NoAnswers, secret_in, without_secret
from feldspar.endpoint.models_list import ListedModel, Listing, list_models
from feldspar.endpoint.openai_completions import PromptToken
from feldspar.endpoint.parameters import Parameters
from feldspar.endpoint.transport import CONNECT_SECONDS, Transport
from feldspar.models import child_guard
from feldspar.models.model import Continuations, LogProb
from feldspar.models.served import ServedModel, model_key, opening_fault
from feldspar.progress import SILENT, Progress

log = logging.getLogger(__name__)

POLL_SECONDS = 0.2
ENDING_SECONDS = 2.0
"""For a server that hung up to be seen ending."""
LAST_LINES = 3
"""Of what a server said that an error shows."""
MAX_LINE = 200
_ENDED = "ended before it had answered all"


@dataclass(frozen=True, slots=True, kw_only=True)
class Start:
    """What is started, and how long it is waited for."""

    command: str
    """With `{port}`, `{model}` and `{replica}` (0, 1, ...) to be filled in. No shell reads it."""
    model: str
    """What `{model}` is, and what the server is expected to call it."""
    log_folder: Path
    num_replicas: int = 1
    seconds: float = 900.0
    called: str | None = None
    """The only name, or root as vLLM has it, that a model may have to be asked; `{model}` and the
    like are filled in. None: also another one, where the server has one alone."""
    log_name: str = "server"
    cure: str = "mend the `command`, then run again: every answer so far is kept"


class LaunchedServer:
    """One process and its address."""

    def __init__(self, start: Start, number: int, port: int, log_path: Path) -> None:
        self.url = f"http://127.0.0.1:{port}/v1"
        self.log_path = log_path
        self._start = start
        self._values = {"{model}": start.model, "{port}": str(port), "{replica}": str(number)}
        command = [self.fill(word) for word in shlex.split(start.command)]
        log_path.parent.mkdir(parents=True, exist_ok=True)
        with log_path.open("wb") as said:
            self.process = subprocess.Popen(
                # By its file and alone, so that it starts at once and whatever else is installed.
                [sys.executable, "-I", child_guard.__file__, *command],
                stdin=subprocess.PIPE,
                stdout=said,
                stderr=subprocess.STDOUT,
                # Ctrl-C is for the run: the server goes on until the run lets go of it.
                start_new_session=True,
            )

    def fill(self, word: str) -> str:
        """A word of the recipe with this server's model, port and number in it."""
        for name, value in self._values.items():
            word = word.replace(name, value)
        return word

    @property
    def status(self) -> int | None:
        """Of a server that has ended; None while it runs."""
        return self.process.poll()

    def check(self, fault: str) -> None:
        """Raises NoAnswers where it has ended."""
        if self.status is not None:
            raise self.error(f"{fault} (status {self.status})")

    def error(self, fault: str) -> NoAnswers:
        """What is raised for it, with its last words."""
        said = _last_lines(self.log_path)
        return NoAnswers(
            f"that was started for {self._start.model or 'the recipe'}",
            "ended",
            f"{fault}; its last words: {said}; all of them: {self.log_path}",
            cure=self._start.cure,
        )

    def let_go(self) -> None:
        """Have the guard end it."""
        assert self.process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()


class Launched:
    """The processes of one start."""

    def __init__(self, start: Start, servers: Sequence[LaunchedServer]) -> None:
        self.start, self.servers = start, servers
        self._said: set[int] = set()

    @property
    def urls(self) -> list[str]:
        return [server.url for server in self.servers]

    async def wait(self, access: Access) -> str:
        """Wait until all are up; gives the name that they have for the model. Raises NoAnswers."""
        until = time.monotonic() + self.start.seconds
        async with Transport(CONNECT_SECONDS) as transport:
            names = [
                await self._wait_for(server, transport, access, until) for server in self.servers
            ]
        return names[0]

    async def check(self) -> None:
        """Raises NoAnswers where all have ended, also where they are just about to."""
        until = time.monotonic() + ENDING_SECONDS
        while all(server.status is None for server in self.servers) and time.monotonic() < until:
            await asyncio.sleep(POLL_SECONDS)
        ended = [s for s in self.servers if s.status is not None]
        if len(ended) == len(self.servers):
            ended[-1].check(_ENDED)
        for server in ended:
            if id(server) not in self._said:
                self._said.add(id(server))
                error = server.error(f"{_ENDED} (status {server.status})")
                log.warning(
                    "one server of %d %s; the others go on", len(self.servers), error.reason
                )

    async def _wait_for(
        self, server: LaunchedServer, transport: Transport, access: Access, until: float
    ) -> str:
        while True:
            server.check("did not come up")
            listing = await list_models(transport, server.url, access.headers)
            if not isinstance(listing, Fault):
                return self._name(server, listing)
            fault = without_secret(listing, secret_in(access.key_variable))
            if fault.kind == "stop":
                raise opening_fault(server.url, fault, access)
            if time.monotonic() > until:
                waited = f"did not come up in {self.start.seconds:g} s"
                raise server.error(f"{waited} ({fault.reason})")
            await asyncio.sleep(POLL_SECONDS)

    def _name(self, server: LaunchedServer, listing: Listing) -> str:
        wanted = server.fill(self.start.called or self.start.model)
        for card in listing.cards.values():
            # vLLM tells a model's folder as its root, whatever it is called.
            if wanted in (card.id, card.root):
                return card.id
        if self.start.called is None:
            if len(listing.cards) == 1:
                return next(iter(listing.cards))
            if not listing.cards and wanted:
                return wanted
        raise server.error(
            f"has {', '.join(listing.cards) or 'no model'} and not {wanted}, so another model "
            "would answer"
        )


@contextmanager
def launching(start: Start) -> Iterator[Launched]:
    """Start the command for each replica; they have ended after the block."""
    servers: list[LaunchedServer] = []
    try:
        for number, port in enumerate(_free_ports(start.num_replicas)):
            name = start.log_name if start.num_replicas == 1 else f"{start.log_name}-{number}"
            path = start.log_folder / f"{name}.log"
            servers.append(LaunchedServer(start, number, port, path))
        yield Launched(start, servers)
    finally:
        for server in servers:
            server.let_go()
        for server in servers:
            server.process.wait()


class LaunchedModel:
    """A model whose servers are started before its first call: never, where no call is made.

    `close` ends them.
    """

    def __init__(
        self, start: Start, access: Access, revision: str = "", progress: Progress = SILENT
    ) -> None:
        self.access = access
        self._start, self._progress = start, progress
        self._given_revision = revision
        self._parameters = Parameters(access.parameters)
        self._stack = ExitStack()
        self._servers: Sequence[LaunchedServer] = ()
        self._model: ServedModel | None = None
        self._failure: NoAnswers | None = None
        self._starting = asyncio.Lock()
        self._num_entered = 0

    @functools.cached_property
    def _identity(self) -> tuple[str, str]:
        """Name and revision. A folder's or file's are of its content, wherever it lies."""
        path = Path(self._start.model)
        if not self._given_revision and path.is_dir():
            # Only here, for it loads torch.
            from feldspar.models.local import folder_identity

            return folder_identity(self._start.model)
        if path.is_file():
            with path.open("rb") as stream:
                digest = hashlib.file_digest(stream, "sha256").hexdigest()
            return path.name, self._given_revision or digest[:16]
        name = self._start.model or shlex.split(self._start.command)[0]
        return name, self._given_revision

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
    def servers(self) -> list[LaunchedServer]:
        """Those that were started, in order of their replica; none before the first call."""
        return list(self._servers)

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

    async def score(
        self, rows: Sequence[Continuations], progress: Progress = SILENT
    ) -> list[list[LogProb]]:
        return await (await self.served()).score(rows, progress)

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
        launched = self._stack.enter_context(launching(self._start))
        self._servers = launched.servers
        with self._progress.task("starting the model's server", None, "servers"):
            name = await launched.wait(self.access)
        endpoint = Endpoint(
            self.access, launched.urls, name, check=launched.check, place=self.place
        )
        model = ServedModel(endpoint, ListedModel(name))
        await model.__aenter__()
        return model


def _free_ports(num: int) -> list[int]:
    """All found before any is let go, so that they differ."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(num)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]


def _last_lines(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [" ".join(line.split())[:MAX_LINE] for line in lines if line.strip()]
    return " | ".join(said[-LAST_LINES:]) or "none"
