"""Models to chat with: `feldspar serve` in processes of their own, started when first asked.

The studio computes nothing itself. A model ends when it was not asked for a while, or when the
studio does.
"""

from __future__ import annotations

import asyncio
import json
import shlex
import tempfile
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager, ExitStack
from pathlib import Path
from typing import Literal, NamedTuple

import aiohttp

from feldspar.children import module_command
from feldspar.endpoint.endpoint import Access
from feldspar.endpoint.faults import NoAnswers
from feldspar.errors import RunError
from feldspar.models.fleet import launching
from feldspar.models.server import Start
from feldspar.records import Message

Who = Literal["base", "taught"]
IDLE_SECONDS = 600.0
"""Without a question, after which a model is let go."""
MAX_MODELS = 2
MAX_TOKENS = 300
START_SECONDS = 300.0
KEY_VARIABLE = "FELDSPAR_API_KEY"
"""What `feldspar serve` takes its key from, if there is one."""


class Served(NamedTuple):
    """A model that answers; the stack ends its server."""

    url: str
    name: str
    stack: ExitStack


class _Model(NamedTuple):
    starting: asyncio.Task[Served]
    """Done once it answers, or cannot be started."""
    asked_at: list[float]
    """When it was asked last: one time."""


class ChatModels:
    """The models that run now, by run and by who answers. Use it as an async context manager."""

    def __init__(self) -> None:
        self._models: dict[tuple[Path, Who], _Model] = {}
        self._lock = asyncio.Lock()
        self._access = Access(key_variable=KEY_VARIABLE)
        self._session: aiohttp.ClientSession | None = None
        self._sweeper: asyncio.Task[None] | None = None

    async def __aenter__(self) -> ChatModels:
        timeout = aiohttp.ClientTimeout(total=None, sock_read=START_SECONDS)
        self._session = aiohttp.ClientSession(timeout=timeout)
        self._sweeper = asyncio.create_task(self._let_go_of_idle())
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._session is not None
        assert self._sweeper is not None
        self._sweeper.cancel()
        await self._session.close()
        for key in list(self._models):
            await self._let_go(key)

    async def answer(
        self, run_path: Path, who: Who, messages: Sequence[Message]
    ) -> AsyncGenerator[str, None]:
        """The answer, piece by piece. Raises RunError where the model cannot be started, or
        has ended meanwhile."""
        served, asked_at = await self._served(run_path, who)
        body: dict[str, object] = {
            "model": served.name,
            "messages": [{"role": m.role, "content": m.content} for m in messages],
            "temperature": 0,
            "stream": True,
        }
        # A model that has no room for so long an answer is asked for one that fits.
        rooms: tuple[dict[str, object], ...] = ({"max_tokens": MAX_TOKENS}, {})
        try:
            for room in rooms:
                async with self._post(served, body | room) as reply:
                    told = ""
                    if reply.status != 200:
                        told = (await reply.text())[:500] or f"status {reply.status}"
                    if room and "context_length_exceeded" in told:
                        continue
                    if told:
                        raise RunError(f"the model's server refused the question: {told}")
                    async for line in reply.content:
                        asked_at[0] = time.monotonic()
                        if piece := _piece(line):
                            yield piece
                    return
        except aiohttp.ClientError as error:
            key = (run_path, who)
            async with self._lock:
                model = self._models.get(key)
                # Another one may have been started in its place meanwhile.
                if model is not None and model.asked_at is asked_at:
                    await self._let_go(key)
            raise RunError("the model's server has ended; ask again, and it is started") from error

    def _post(
        self, served: Served, body: dict[str, object]
    ) -> AbstractAsyncContextManager[aiohttp.ClientResponse]:
        assert self._session is not None
        url = f"{served.url}/chat/completions"
        return self._session.post(url, json=body, headers=self._access.headers)

    async def _served(self, run_path: Path, who: Who) -> tuple[Served, list[float]]:
        """The model, started where it does not run, and when it was asked last. Two that are asked
        at once start beside each other."""
        key = (run_path, who)
        async with self._lock:
            if key not in self._models:
                while len(self._models) >= MAX_MODELS:
                    await self._let_go(min(self._models, key=lambda k: self._models[k].asked_at[0]))
                starting = asyncio.create_task(self.start(run_path, who))
                self._models[key] = _Model(starting, [0.0])
            model = self._models[key]
            model.asked_at[0] = time.monotonic()
        try:
            # Who asked may leave; the model starts all the same, for whoever asks next.
            return await asyncio.shield(model.starting), model.asked_at
        except Exception:
            if self._models.get(key) is model:
                del self._models[key]
            raise
        except asyncio.CancelledError:
            if not model.starting.cancelled():
                raise
            raise RunError("the model was let go for another one; ask again") from None

    async def start(self, run_path: Path, who: Who) -> Served:
        """Start a model's server and wait until it answers. Raises RunError where it does not."""
        command = [*module_command("feldspar.cli.main"), "serve", str(run_path.absolute())]
        if who == "base":
            command += ["--checkpoint", "base"]
        stack = ExitStack()
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="feldspar-studio-"))
        name = run_path.name if who == "taught" else f"{run_path.name}:base"
        start = Start(
            command=f"{shlex.join(command)} --port {{port}}",
            model=name,
            log_folder=Path(folder),
            seconds=START_SECONDS,
            called=name,
            cure="see its words above",
        )
        try:
            launched = stack.enter_context(launching(start))
            await launched.wait(self._access)
        except NoAnswers as error:
            stack.close()
            raise RunError(error.sentence("model")) from error
        except BaseException:
            stack.close()
            raise
        url = launched.servers[0].url
        assert url is not None, name
        return Served(url, name, stack)

    async def _let_go(self, key: tuple[Path, Who]) -> None:
        starting = self._models.pop(key).starting
        starting.cancel()
        [ended] = await asyncio.gather(starting, return_exceptions=True)
        if not isinstance(ended, BaseException):
            await asyncio.to_thread(ended.stack.close)

    async def _let_go_of_idle(self) -> None:
        while True:
            await asyncio.sleep(IDLE_SECONDS / 10)
            async with self._lock:
                now = time.monotonic()
                for key, model in list(self._models.items()):
                    if now - model.asked_at[0] > IDLE_SECONDS:
                        await self._let_go(key)


def _piece(line: bytes) -> str:
    """The text of one server-sent event; empty for any other line."""
    if not line.startswith(b"data: {"):
        return ""
    event = json.loads(line[6:])
    if "error" in event:
        raise RunError(str(event["error"].get("message", "the model's server failed")))
    choices = event.get("choices") or [{}]
    text = choices[0].get("delta", {}).get("content")
    return text if isinstance(text, str) else ""
