"""A model whose calls are written to OpenAI batch files, and whose answers are read from them.

    batches/teacher-0001.jsonl          calls, for `vllm run-batch` or a hosted batch endpoint
    batches/teacher-0001.out.jsonl      what came of them, put there by the user

A line is known by a hash of its request, so a later try finds the answer to the same call. Calls
whose line failed, or is missing, go into the next file.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from feldspar.endpoint import openai_chat
from feldspar.endpoint.calls import ChatCall, Completions, Json, PromptCall
from feldspar.endpoint.endpoint import UNHURRIED, Turn
from feldspar.endpoint.faults import Fault, NoAnswers, Refused, one_line
from feldspar.endpoint.openai_completions import PromptToken
from feldspar.endpoint.parameters import Parameters
from feldspar.endpoint.protocol import field
from feldspar.endpoint.replicas import ServersHealth
from feldspar.files import write_text_whole
from feldspar.keys import content_key
from feldspar.models.model import CannotScore, Continuations, Heard, LogProb, unheard
from feldspar.models.served import model_key
from feldspar.progress import SILENT, Progress

MOST_CALLS = 50_000
"""Of one file: what OpenAI takes."""
IDLE_SECONDS = 3.0
"""Without a new call: then all that can be asked now has been."""
_URL = "/v1/chat/completions"
_OUT = ".out.jsonl"
_LATER = (408, 409, 429)
"""Statuses of calls that may be answered another time."""


class _Line(NamedTuple):
    """Where the answer to a call stands."""

    path: Path
    start: int


class BatchModel:
    """Answers from the files that are there; the calls they have no answer to become the next."""

    def __init__(self, name: str, revision: str, parameters: Json, folder: Path, role: str) -> None:
        self.name, self.revision = name, revision
        self.concurrency, self.health = MOST_CALLS, ServersHealth()
        self._parameters = Parameters(parameters)
        self._folder, self._role = folder, role
        self._found: dict[str, _Line] = {}
        self._unanswered: NoAnswers | None = None
        self._waiting: dict[str, Json] = {}
        self._is_written: asyncio.Future[None] | None = None
        self._idle: asyncio.TimerHandle | None = None
        self._num_entered = 0

    @property
    def key(self) -> str:
        return model_key(self.name, self.revision, self._parameters.key)

    @property
    def answers_key(self) -> str:
        return self.key

    @property
    def place(self) -> str:
        return f"whose calls go to {self._folder}"

    async def __aenter__(self) -> BatchModel:
        self._num_entered += 1
        if self._num_entered == 1:
            self._is_written = asyncio.get_running_loop().create_future()
            self._waiting = {}
            self._read_answers()
        return self

    async def __aexit__(self, *_: object) -> None:
        self._num_entered -= 1
        if self._num_entered:
            return
        if self._idle is not None:
            self._idle.cancel()
        assert self._is_written is not None
        if self._is_written.done():
            # Retrieved, or asyncio warns that it never was.
            self._is_written.exception()
        self._is_written.cancel()

    def drain(self) -> None:
        pass

    def close(self) -> None:
        pass

    async def complete(self, call: ChatCall | PromptCall, turn: Turn = UNHURRIED) -> Completions:
        """Raises NoAnswers once all calls that can be asked now are written, Refused for what was
        turned down."""
        assert isinstance(call, ChatCall), call
        body = self._parameters.apply(openai_chat.chat_body(self.name, call))
        name = request_id(body)
        answer = self._answer(name, call, turn)
        if answer is not None:
            await turn.admit()
            return answer
        if self._unanswered is not None:
            # What comes of that file may be the answer to this very call.
            raise self._unanswered
        await turn.admit()
        self._waiting[name] = body
        self._wait_for_more()
        assert self._is_written is not None
        await asyncio.shield(self._is_written)
        raise AssertionError(name)

    async def prompt_tokens(
        self, prompt: str | Sequence[int], turn: Turn = UNHURRIED
    ) -> list[PromptToken]:
        raise CannotScore("is asked in batches, which tell no log-probabilities of prompts")

    async def score(
        self,
        rows: Sequence[Continuations],
        progress: Progress = SILENT,
        heard: Heard = unheard,
    ) -> list[list[LogProb]]:
        raise CannotScore("is asked in batches, which tell no log-probabilities of prompts")

    def _answer(self, name: str, call: ChatCall, turn: Turn) -> Completions | None:
        """None where there is none, or one of no use: then it is asked for again."""
        line = self._found.get(name)
        if line is None:
            return None
        response = field(_read_line(line), "response")
        found = self._read(call, response)
        if not isinstance(found, Fault):
            return found
        if found.usage.total:
            turn.waste(found.usage)
        if found.kind == "refused":
            raise Refused(found.reason, is_about_content=found.is_about_content)
        return None

    def _read(self, call: ChatCall, response: object) -> Completions | Fault:
        status, body = field(response, "status_code"), field(response, "body")
        if status != 200:
            is_final = isinstance(status, int) and 400 <= status < 500 and status not in _LATER
            reason = field(field(body, "error"), "message") or f"status {status}"
            return Fault("refused" if is_final else "retry", one_line(str(reason)))
        return openai_chat.PROTOCOL.read(call, body)

    def _read_answers(self) -> None:
        """Find every answer in the files, and which file has none yet."""
        self._found, self._unanswered = {}, None
        for path in self._files():
            out = path.with_name(path.name.replace(".jsonl", _OUT))
            if not out.exists():
                num_calls = path.read_bytes().count(b"\n")
                self._unanswered = self._wait(path, num_calls)
            else:
                self._found |= dict(_lines_of(out))

    def _files(self) -> list[Path]:
        paths = self._folder.glob(f"{self._role}-[0-9][0-9][0-9][0-9].jsonl")
        return sorted(paths)

    def _wait_for_more(self) -> None:
        if self._idle is not None:
            self._idle.cancel()
        delay = 0.0 if len(self._waiting) >= MOST_CALLS else IDLE_SECONDS
        self._idle = asyncio.get_running_loop().call_later(delay, self._write)

    def _write(self) -> None:
        assert self._is_written is not None
        if self._is_written.done():
            return
        # It is called by the loop, which would tell an error to nobody who waits.
        try:
            self._is_written.set_exception(self._written())
        except Exception as error:
            self._is_written.set_exception(error)

    def _written(self) -> NoAnswers:
        """The next file of calls, written."""
        path = self._folder / f"{self._role}-{len(self._files()) + 1:04}.jsonl"
        self._folder.mkdir(parents=True, exist_ok=True)
        lines = [
            {"custom_id": name, "method": "POST", "url": _URL, "body": body}
            for name, body in list(self._waiting.items())[:MOST_CALLS]
        ]
        write_text_whole(path, "".join(json.dumps(line) + "\n" for line in lines))
        return self._wait(path, len(lines))

    def _wait(self, path: Path, num_calls: int) -> NoAnswers:
        out = path.with_name(path.name.replace(".jsonl", _OUT))
        return NoAnswers(
            f"with {num_calls:,} calls in {path}",
            "ended",
            "waits for their answers",
            cure=f"have them answered into {out} (`vllm run-batch -i {path.name} -o {out.name} "
            f"--model {self.name}`, or a hosted batch endpoint), then run again",
        )


def request_id(body: Json) -> str:
    """By which a request is found in the files: of its content."""
    return content_key(body)[:32]


def _lines_of(path: Path) -> Iterator[tuple[str, _Line]]:
    """Ids of answers, with their places; a line that cannot be read is no answer."""
    start = 0
    with path.open("rb") as stream:
        for line in stream:
            try:
                name = field(json.loads(line), "custom_id")
            except ValueError:
                name = None
            if isinstance(name, str):
                yield name, _Line(path, start)
            start += len(line)


def _read_line(line: _Line) -> object:
    with line.path.open("rb") as stream:
        stream.seek(line.start)
        return json.loads(stream.readline())
