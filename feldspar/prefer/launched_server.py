"""A server that is started for one model, waited for, and ended after the block or with us."""

from __future__ import annotations

import asyncio
import shlex
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, TypeVar

import openai

from feldspar.config import PolicyServerConfig
from feldspar.errors import TrainingError
from feldspar.models import child_guard
from feldspar.prefer.asking import MENDABLE, list_models, locked_out, open_client, read_fault

T = TypeVar("T")

POLL_SECONDS = 0.2
ENDING_SECONDS = 2.0
"""For a server that hung up to be seen ending."""
LAST_LINES = 3
"""Of what a server said that an error shows."""
MAX_LINE = 200
_ENDED = "ended before it had answered all"
_CURE = "mend prefer.policy_server, then run again: what there is so far is kept"


class Asking(NamedTuple):
    """A client, and the server's own name for the model."""

    client: openai.AsyncOpenAI
    model: str


@dataclass(frozen=True, slots=True)
class StartedServer:
    """A server's process and its address. Also how it is asked (`asking.Server`)."""

    config: PolicyServerConfig
    endpoint: str
    model: str
    """What it is to call its model."""
    process: subprocess.Popen[bytes]
    """Of the guard, which ends when the server does, with its status."""
    log_path: Path

    @property
    def key_variable(self) -> str:
        return self.config.key_variable

    @property
    def timeout_seconds(self) -> float:
        return self.config.timeout_seconds

    @asynccontextmanager
    async def asking(self) -> AsyncIterator[Asking]:
        """How it is asked, once it is up and has the model. Raises TrainingError."""
        async with open_client(self) as client:
            yield Asking(client, await self._wait(client))

    async def watched(self, work: Awaitable[T]) -> T:
        """The work's result. Raises TrainingError as soon as the server has ended."""
        working = asyncio.ensure_future(work)
        try:
            while not (await asyncio.wait([working], timeout=POLL_SECONDS))[0]:
                self._check(_ENDED)
        finally:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
        return working.result()

    async def gone(self, reason: str) -> TrainingError:
        """What to raise when it does not answer: that it has ended, where it is ending."""
        until = time.monotonic() + ENDING_SECONDS
        while self.process.poll() is None and time.monotonic() < until:
            await asyncio.sleep(POLL_SECONDS)
        status = self.process.poll()
        gone = f"{_ENDED} (status {status})"
        return self._error(f"does not answer ({reason})" if status is None else gone)

    async def _wait(self, client: openai.AsyncOpenAI) -> str:
        """The server's name for its model."""
        until = time.monotonic() + self.config.start_seconds
        while True:
            self._check("did not come up")
            try:
                cards = await list_models(client)
                break
            except MENDABLE as error:
                fault = read_fault(error)
            if fault.why == "key":
                raise locked_out(self)
            if time.monotonic() > until:
                waited = f"did not come up in {self.config.start_seconds:g} s"
                raise self._error(f"{waited} ({fault.reason})")
            await asyncio.sleep(POLL_SECONDS)
        for name, card in cards.items():
            # vLLM tells a model's folder as its root, whatever it is called.
            if self.model in (name, getattr(card, "root", None)):
                return name
        raise self._error(
            f"has {', '.join(cards) or 'no model'} and not {self.model}, so another model would "
            "answer"
        )

    def _check(self, fault: str) -> None:
        status = self.process.poll()
        if status is not None:
            raise self._error(f"{fault} (status {status})")

    def _error(self, fault: str) -> TrainingError:
        said = _last_lines(self.log_path)
        return TrainingError(
            f"the server that was started for {self.model} {fault}; its last words: {said}; all "
            f"of them: {self.log_path}; {_CURE}"
        )


@contextmanager
def started(config: PolicyServerConfig, model_path: str, log_path: Path) -> Iterator[StartedServer]:
    """Start the recipe's command for a model folder; what it says goes to `log_path`."""
    port = _free_port()

    def filled(word: str) -> str:
        return word.replace("{model}", model_path).replace("{port}", str(port))

    command = [filled(word) for word in shlex.split(config.command)]
    log_path.parent.mkdir(parents=True, exist_ok=True)
    with log_path.open("wb") as said:
        process = subprocess.Popen(
            # By its file and alone, so that it starts at once and whatever else is installed.
            [sys.executable, "-I", child_guard.__file__, *command],
            stdin=subprocess.PIPE,
            stdout=said,
            stderr=subprocess.STDOUT,
            # Ctrl-C is for the run: the server goes on until the run lets go of it.
            start_new_session=True,
        )
    assert process.stdin is not None
    endpoint = f"http://127.0.0.1:{port}/v1"
    try:
        yield StartedServer(config, endpoint, filled(config.model), process, log_path)
    finally:
        process.stdin.close()
        process.wait()


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _last_lines(path: Path) -> str:
    lines = path.read_text(encoding="utf-8", errors="replace").split("\n")
    said = [" ".join(line.split())[:MAX_LINE] for line in lines if line.strip()]
    return " | ".join(said[-LAST_LINES:]) or "none"
