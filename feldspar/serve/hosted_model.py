"""A model behind the HTTP layer: what a request may ask for, and its answers as pieces of text."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from functools import lru_cache
from typing import Literal, NamedTuple

from feldspar.config import ServeConfig
from feldspar.endpoint.faults import Refused
from feldspar.errors import TrainingError
from feldspar.models.engine_thread import EngineThread
from feldspar.serve.protocol import (
    ChatRequest,
    Pieces,
    RequestError,
    TextPiece,
    TextRequest,
    TokenScore,
)
from feldspar.student.counter_rng import key_of
from feldspar.student.inference.engine import EngineRow, Request, prompt_log_probs
from feldspar.student.inference.token_sampler import TokenLogProb
from feldspar.student.model import Student

_RETRY_SECONDS = 1
_NUM_TOKENIZING = 2
"""Threads that turn text into tokens: a long prompt holds up neither the loop nor all others."""
_OPEN_SHARE = 8
"""All requests together may be as much work as this many of the largest ones."""
_REMEMBERED_TEXTS = 1 << 16


class _Ticket(NamedTuple):
    """One HTTP request as the engine computes it: a request and an echo for each prompt."""

    requests: list[Request]
    echo: list[str | None]
    """The text of each prompt that comes back before its answers."""
    work: int
    """In tokens, as `ServeConfig.max_request_tokens` counts them."""

    @property
    def num_choices(self) -> int:
        return sum(len(request.keys) for request in self.requests)


class HostedModel:
    """Admits requests to a model's thread. `draw` is what `make_app` wants.

    Use as `async with open_engine(student, config) as engine`.
    """

    def __init__(self, thread: EngineThread, config: ServeConfig) -> None:
        self._thread, self._config = thread, config
        self._student = thread.student
        self._tokenizing = ThreadPoolExecutor(_NUM_TOKENIZING, "feldspar-tokenizer")
        self._longest = _longest_token(thread.student)
        self._text_of = lru_cache(_REMEMBERED_TEXTS)(lambda token: self._text([token]))
        self._open_work = 0
        self.num_open = 0
        """Requests under way or waiting."""

    @property
    def num_rows(self) -> int:
        """Answers being computed."""
        return self._thread.num_rows

    @property
    def is_alive(self) -> bool:
        """Whether the thread that computes is there."""
        return self._thread.is_alive

    async def draw(self, request: ChatRequest | TextRequest) -> Pieces:
        """Begin an answer. Raises RequestError: 400 too long or too much, 429 too many."""
        self._admit()
        self.num_open += 1
        try:
            loop = asyncio.get_running_loop()
            ticket = await loop.run_in_executor(self._tokenizing, self._ticket, request)
        finally:
            self.num_open -= 1
        # Others may have come in while its text was read.
        self._admit(ticket.work)
        num_prompt = sum(len(r.ids) for r in ticket.requests)
        return Pieces(num_prompt, ticket.num_choices, self._follow(ticket))

    def close(self) -> None:
        self._tokenizing.shutdown(cancel_futures=True)

    def _admit(self, work: int = 0) -> None:
        message = ""
        if self.num_open >= self._config.max_requests:
            message = f"{self.num_open} requests are under way or waiting, which is the limit"
        elif self._open_work and self._open_work + work > self._most_open_work:
            message = f"requests for {self._open_work} tokens are under way or waiting"
        if message:
            raise RequestError(429, message, None, "too_many_requests", _RETRY_SECONDS)

    @property
    def _most_open_work(self) -> int:
        return _OPEN_SHARE * self._config.max_request_tokens

    async def _follow(self, ticket: _Ticket) -> AsyncGenerator[TextPiece]:
        self.num_open += 1
        self._open_work += ticket.work
        try:
            async for piece in self._pieces(ticket):
                yield piece
        except Refused as error:
            raise RequestError(500, error.reason, None, "engine_failed") from error
        finally:
            self.num_open -= 1
            self._open_work -= ticket.work

    async def _pieces(self, ticket: _Ticket) -> AsyncGenerator[TextPiece]:
        first_choices: dict[int, int] = {}
        at = 0
        for request, echo in zip(ticket.requests, ticket.echo, strict=True):
            first_choices[id(request)] = at
            if echo is not None:
                for piece in await self._echo(request, echo, at):
                    yield piece
            at += len(request.keys)
        reader = _RowReader(self, first_choices)
        drawn = [request for request in ticket.requests if request.max_new_tokens]
        async with aclosing(self._thread.watch(drawn, reader.read)) as pieces:
            async for piece in pieces:
                yield piece

    async def _echo(self, request: Request, text: str, at: int) -> list[TextPiece]:
        """The prompt as the first piece of each of its choices."""
        scores: tuple[TokenScore, ...] = ()
        num_likeliest = request.num_log_probs
        if num_likeliest is not None:

            def score() -> tuple[TokenScore, ...]:
                found = prompt_log_probs(self._student, request.ids, num_likeliest)
                return tuple(map(self.score, found))

            first = TokenScore(self._text_of(request.ids[0]), None)
            scores = (first, *await self._thread.run(score))
        reason: Literal["length"] | None = None if request.max_new_tokens else "length"
        choices = range(at, at + len(request.keys))
        return [TextPiece(choice, text, 0, scores, reason) for choice in choices]

    def score(self, found: TokenLogProb) -> TokenScore:
        """A token's log-probability with the texts of the tokens."""
        likeliest = tuple((self._text_of(token), value) for token, value in found.likeliest)
        return TokenScore(self._text_of(found.token), found.log_prob, likeliest)

    def _ticket(self, request: ChatRequest | TextRequest) -> _Ticket:
        prompts = self._prompts(request)
        does_echo = isinstance(request, TextRequest) and request.echo
        rooms = [self._room(request, len(ids)) for ids in prompts]
        work = sum(
            len(ids) * (request.n if does_echo else 1) + request.n * room
            for ids, room in zip(prompts, rooms, strict=True)
        )
        if request.num_log_probs is not None:
            work *= 1 + request.num_log_probs
        self._bound(work)
        seed = secrets.randbits(63) if request.seed is None else request.seed
        requests = [
            Request(
                ids=ids,
                keys=[key_of("served", seed, number, draw) for draw in range(request.n)],
                max_new_tokens=room,
                temperature=request.temperature,
                top_p=request.top_p,
                stop=request.stop,
                num_log_probs=request.num_log_probs,
                is_watched=request.stream,
            )
            for number, (ids, room) in enumerate(zip(prompts, rooms, strict=True))
        ]
        return _Ticket(requests, [self._text(r.ids) if does_echo else None for r in requests], work)

    def _bound(self, work: int) -> None:
        limit = self._config.max_request_tokens
        if work > limit:
            message = (
                f"the request is too much work: {work} tokens, over the limit of {limit}; they are "
                "its prompts' (times n with echo) and its answers' (n times max_tokens), times "
                "1 + top_logprobs; send fewer prompts at once, or a smaller n or max_tokens"
            )
            raise RequestError(400, message, None, "request_too_large")

    def _prompts(self, request: ChatRequest | TextRequest) -> list[list[int]]:
        if isinstance(request, TextRequest):
            return [self._ids(prompt) for prompt in request.prompts]
        for message in request.messages:
            self._refuse_long(message.content, "messages")
        if request.messages[-1].role == "assistant":
            message_text = "the last message is the assistant's: end with a message to answer"
            raise RequestError(400, message_text, "messages")
        try:
            return [self._student.template.render_prompt(request.messages)]
        except TrainingError as error:
            raise RequestError(400, str(error), "messages") from error

    def _ids(self, prompt: str | tuple[int, ...]) -> list[int]:
        if isinstance(prompt, str):
            self._refuse_long(prompt, "prompt")
            ids = list(self._student.tokenizer(prompt).input_ids)
        else:
            ids = list(prompt)
        size = self._student.model.get_input_embeddings().weight.shape[0]
        if not ids or max(ids) >= size:
            raise RequestError(422, f"prompt must be tokens from 0 to {size - 1}", "prompt")
        return ids

    def _refuse_long(self, text: str, param: str) -> None:
        """Refuse what cannot fit whatever its tokens are: it would take seconds to find them."""
        context = self._thread.context_tokens
        if len(text) > context * self._longest:
            message = f"{len(text)} characters do not fit into a context of {context} tokens"
            raise RequestError(400, message, param, "context_length_exceeded")

    def _text(self, ids: Sequence[int]) -> str:
        return str(self._student.tokenizer.decode(list(ids), skip_special_tokens=False))

    def _room(self, request: ChatRequest | TextRequest, num_prompt: int) -> int:
        """Tokens for each answer."""
        context, memory = self._thread.context_tokens, self._thread.max_tokens
        # The context is each answer's own, the memory is shared.
        left = min(context - num_prompt, (memory - num_prompt) // request.n)
        wanted = self._config.max_tokens if request.max_tokens is None else request.max_tokens
        if request.max_tokens is None:
            wanted = min(wanted, left)
        if wanted > self._config.max_tokens:
            message = f"max_tokens is at most {self._config.max_tokens} here, got {wanted}"
            raise RequestError(400, message, "max_tokens")
        least = 0 if request.max_tokens == 0 else 1
        if wanted > left or wanted < least:
            message = (
                f"the prompt's {num_prompt} tokens and {request.n} answers of {wanted} do not fit "
                f"into a context of {context} and memory for {memory}"
            )
            raise RequestError(400, message, "messages", "context_length_exceeded")
        return wanted


class _RowReader:
    """Reads what is new of each row; called in the thread that computes."""

    def __init__(self, model: HostedModel, first_choices: dict[int, int]) -> None:
        self._model, self._first_choices = model, first_choices
        self._sent: dict[int, tuple[int, int]] = {}
        """Characters and tokens of each choice that have gone out."""

    def read(self, row: EngineRow) -> TextPiece | None:
        """What of a row has not been sent yet, if that is anything."""
        choice = self._first_choices[id(row.request)] + row.draw
        num_shown, num_tokens = self._sent.get(choice, (0, 0))
        text = row.text[num_shown : row.settled]
        if not text and row.finish is None:
            return None
        self._sent[choice] = row.settled, len(row.ids)
        scores = tuple(map(self._model.score, row.log_probs[num_tokens:]))
        return TextPiece(choice, text, len(row.ids) - num_tokens, scores, row.finish)


@asynccontextmanager
async def open_engine(student: Student, config: ServeConfig) -> AsyncIterator[HostedModel]:
    """A model that is computed while the block runs."""
    thread = EngineThread(student)
    model = HostedModel(thread, config)
    try:
        yield model
    finally:
        model.close()
        await asyncio.to_thread(thread.close)


def _longest_token(student: Student) -> int:
    """Characters of the longest token."""
    return max(map(len, student.tokenizer.get_vocab()), default=1)
