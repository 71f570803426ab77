"""A model behind the HTTP layer: one thread computes, requests join between its steps."""

from __future__ import annotations

import asyncio
import queue
import secrets
import threading
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal, NamedTuple

import torch

from feldspar.config import ServeConfig, StudentConfig
from feldspar.errors import RunError
from feldspar.runs import read_recipe_of, result_of
from feldspar.serve import (
    ChatRequest,
    ModelCard,
    Pieces,
    RequestError,
    TextPiece,
    TextRequest,
    TokenScore,
    listening,
    make_app,
)
from feldspar.student.counter_rng import key_of
from feldspar.student.inference.engine import Engine, EngineRow, Request, prompt_log_probs
from feldspar.student.inference.token_sampler import TokenLogProb
from feldspar.student.model import Student, base_checkpoint, load_student

_RETRY_SECONDS = 1


class _News(NamedTuple):
    """What the computing thread has to say of an answer: a piece, or a fault."""

    piece: TextPiece | None
    fault: str = ""


@dataclass(eq=False, slots=True)
class _Ticket:
    """One HTTP request: its prompts with their rows, and where its pieces go."""

    requests: list[Request]
    echo: list[str | None]
    """The text of each prompt that comes back before its answers."""
    inbox: asyncio.Queue[_News] = field(default_factory=asyncio.Queue)
    sent: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Characters and tokens of each choice that have gone out."""
    num_open: int = 0


class EngineThread:
    """Takes requests in the event loop and has them computed in a thread.

    Use as `async with open_engine(student, config) as engine`; `engine.draw` is what `make_app`
    wants.
    """

    def __init__(self, student: Student, config: ServeConfig) -> None:
        self._student, self._config = student, config
        self._loop = asyncio.get_running_loop()
        self._orders: queue.SimpleQueue[tuple[Literal["draw", "cancel", "end"], _Ticket | None]]
        self._orders = queue.SimpleQueue()
        self.num_open = 0
        """Requests under way or waiting."""
        self._context = _context_tokens(student)
        self._engine = Engine(student)
        self._tickets: dict[int, tuple[_Ticket, int]] = {}
        """Ticket and first choice of each request in the engine, by the request's id."""
        self._thread = threading.Thread(target=self._compute, name="feldspar-engine", daemon=True)

    @property
    def num_rows(self) -> int:
        """Answers being computed."""
        return self._engine.num_rows

    async def draw(self, request: ChatRequest | TextRequest) -> Pieces:
        """Begin an answer. Raises RequestError: 400 too long, 429 too many."""
        if self.num_open >= self._config.max_requests:
            message = f"{self.num_open} requests are under way or waiting, which is the limit"
            raise RequestError(429, message, None, "too_many_requests", _RETRY_SECONDS)
        ticket = self._ticket(request)
        num_prompt = sum(len(r.ids) for r in ticket.requests)
        return Pieces(num_prompt, ticket.num_open, self._follow(ticket))

    async def _follow(self, ticket: _Ticket) -> AsyncGenerator[TextPiece]:
        self.num_open += 1
        self._orders.put(("draw", ticket))
        num_left = ticket.num_open
        try:
            while num_left:
                told = await ticket.inbox.get()
                if told.piece is None:
                    raise RequestError(500, told.fault, None, "engine_failed")
                num_left -= told.piece.finish_reason is not None
                yield told.piece
        finally:
            self.num_open -= 1
            if num_left:
                self._orders.put(("cancel", ticket))

    def _ticket(self, request: ChatRequest | TextRequest) -> _Ticket:
        template = self._student.template
        echo: list[str | None] = [None]
        if isinstance(request, ChatRequest):
            prompts = [template.render_prompt(request.messages)]
        else:
            prompts = [self._ids(prompt) for prompt in request.prompts]
            echo = [self._text(ids) if request.echo else None for ids in prompts]
        seed = secrets.randbits(63) if request.seed is None else request.seed
        requests = [
            Request(
                ids=ids,
                keys=[key_of("served", seed, number, draw) for draw in range(request.n)],
                max_new_tokens=self._room(request, len(ids)),
                temperature=request.temperature,
                top_p=request.top_p,
                stop=request.stop,
                num_log_probs=request.num_log_probs,
                is_watched=request.stream,
            )
            for number, ids in enumerate(prompts)
        ]
        return _Ticket(requests, echo, num_open=len(prompts) * request.n)

    def _ids(self, prompt: str | tuple[int, ...]) -> list[int]:
        ids = (
            list(prompt) if isinstance(prompt, tuple) else self._student.tokenizer(prompt).input_ids
        )
        size = self._student.model.get_input_embeddings().weight.shape[0]
        if not ids or max(ids) >= size:
            raise RequestError(422, f"prompt must be tokens from 0 to {size - 1}", "prompt")
        return ids

    def _text(self, ids: list[int]) -> str:
        return str(self._student.tokenizer.decode(ids, skip_special_tokens=False))

    def _room(self, request: ChatRequest | TextRequest, num_prompt: int) -> int:
        """Tokens for each answer."""
        left = min(self._context - num_prompt, self._engine.max_tokens - num_prompt)
        wanted = self._config.max_tokens if request.max_tokens is None else request.max_tokens
        if request.max_tokens is None:
            wanted = min(wanted, left // request.n)
        if wanted > self._config.max_tokens:
            message = f"max_tokens is at most {self._config.max_tokens} here, got {wanted}"
            raise RequestError(400, message, "max_tokens")
        least = 0 if request.max_tokens == 0 else 1
        if num_prompt + wanted > self._context or wanted * request.n > left or wanted < least:
            message = (
                f"the prompt's {num_prompt} tokens and {request.n} answers of {wanted} do not fit "
                f"into a context of {self._context} and memory for {self._engine.max_tokens}"
            )
            raise RequestError(400, message, "messages", "context_length_exceeded")
        return wanted

    def close(self) -> None:
        self._orders.put(("end", None))
        self._thread.join()

    def start(self) -> None:
        self._thread.start()

    def _compute(self) -> None:
        """The computing thread: obey orders, then a step, until told to end."""
        with torch.inference_mode(), self._student.computing():
            while True:
                kind, ticket = self._next_order()
                if kind == "end":
                    return
                fault = ""
                try:
                    self._obey(kind, ticket)
                except RuntimeError as error:
                    fault = str(error).strip().split("\n")[0] or type(error).__name__
                # Most of all, memory that ran out: once the error has let go of it, go on.
                if fault:
                    self._fail(fault, ticket)

    def _obey(self, kind: str, ticket: _Ticket | None) -> None:
        if ticket is not None and kind == "draw":
            self._begin(ticket)
        elif ticket is not None and kind == "cancel":
            self._cancel(ticket)
        elif self._engine.is_busy:
            self._tell(self._engine.step())

    def _next_order(self) -> tuple[str, _Ticket | None]:
        try:
            return self._orders.get(block=not self._engine.is_busy)
        except queue.Empty:
            return "step", None

    def _begin(self, ticket: _Ticket) -> None:
        at = 0
        for request, echo in zip(ticket.requests, ticket.echo, strict=True):
            if echo is not None:
                self._echo(ticket, request, echo, range(at, at + len(request.keys)))
            if request.max_new_tokens:
                self._tickets[id(request)] = ticket, at
                self._engine.add(request)
            at += len(request.keys)

    def _echo(self, ticket: _Ticket, request: Request, text: str, choices: range) -> None:
        """The prompt as the first piece of each of its choices."""
        scores: tuple[TokenScore, ...] = ()
        if request.num_log_probs is not None:
            found = prompt_log_probs(self._student, request.ids, request.num_log_probs)
            first = TokenScore(self._text([request.ids[0]]), None)
            scores = (first, *map(self._score, found))
        reason: Literal["length"] | None = None if request.max_new_tokens else "length"
        for choice in choices:
            self._post([(ticket, _News(TextPiece(choice, text, 0, scores, reason)))])

    def _cancel(self, ticket: _Ticket) -> None:
        for request in ticket.requests:
            if self._tickets.pop(id(request), None):
                self._engine.cancel(request)

    def _tell(self, rows: list[EngineRow]) -> None:
        news: list[tuple[_Ticket, _News]] = []
        for row in rows:
            if row.finish is None and not row.request.is_watched:
                continue
            ticket, first = self._tickets[id(row.request)]
            piece = self._piece(ticket, row, first + row.draw)
            if piece is not None:
                news.append((ticket, _News(piece)))
        under_way = {id(request) for request in self._engine.requests}
        for gone in [key for key in self._tickets if key not in under_way]:
            del self._tickets[gone]
        self._post(news)

    def _piece(self, ticket: _Ticket, row: EngineRow, choice: int) -> TextPiece | None:
        """What of a row has not been told yet, if that is anything."""
        shown, told = ticket.sent.get(choice, (0, 0))
        text = row.text[shown : row.settled]
        if not text and row.finish is None:
            return None
        ticket.sent[choice] = row.settled, len(row.ids)
        scores = tuple(map(self._score, row.log_probs[told:]))
        return TextPiece(choice, text, len(row.ids) - told, scores, row.finish)

    def _score(self, found: TokenLogProb) -> TokenScore:
        likeliest = tuple((self._text([token]), value) for token, value in found.likeliest)
        return TokenScore(self._text([found.token]), found.log_prob, likeliest)

    def _fail(self, fault: str, ticket: _Ticket | None) -> None:
        failed = {id(t): t for t, _ in self._tickets.values()}
        if ticket is not None:
            failed[id(ticket)] = ticket
        self._tickets.clear()
        self._engine = Engine(self._student)
        self._post([(ticket, _News(None, fault)) for ticket in failed.values()])

    def _post(self, news: list[tuple[_Ticket, _News]]) -> None:
        if news:
            self._loop.call_soon_threadsafe(_deliver, news)


@asynccontextmanager
async def open_engine(student: Student, config: ServeConfig) -> AsyncIterator[EngineThread]:
    """An engine thread that runs while the block does."""
    engine = EngineThread(student, config)
    engine.start()
    try:
        yield engine
    finally:
        await asyncio.to_thread(engine.close)


def _deliver(news: list[tuple[_Ticket, _News]]) -> None:
    for ticket, told in news:
        ticket.inbox.put_nowait(told)


def _context_tokens(student: Student) -> int:
    config = student.model.config.get_text_config()
    return int(getattr(config, "max_position_embeddings", 1 << 20))


class ModelToServe(NamedTuple):
    """A model to serve, and under which name and limits."""

    card: ModelCard
    path: str
    student: StudentConfig
    limits: ServeConfig
    what: str
    """For people."""


def run_to_serve(run_path: Path) -> ModelToServe:
    """A run's result, under the run's name. Raises RunError where nothing is trained yet."""
    recipe, checkpoint = read_recipe_of(run_path), result_of(run_path)
    card = ModelCard(run_path.name, checkpoint.digest[:16])
    what = f"{checkpoint.phase}, step {checkpoint.step}"
    return ModelToServe(card, checkpoint.path, recipe.student, recipe.serve, what)


def folder_to_serve(path: str) -> ModelToServe:
    """A model folder, under its path, spoken to through its own chat template."""
    card = ModelCard(path, base_checkpoint(path).digest[:16])
    student = StudentConfig(base=path, template="own")
    return ModelToServe(card, path, student, ServeConfig(), "a model folder")


async def serve_model(
    served: ModelToServe, *, host: str, port: int, key: str | None, say: Callable[[str], None]
) -> None:
    """Serve until interrupted. Raises RunError where the port is taken."""
    student = load_student(served.path, served.student)
    async with open_engine(student, served.limits) as engine:
        app = make_app(
            [served.card], max_body_bytes=served.limits.max_body_bytes, draw=engine.draw, key=key
        )
        async with AsyncExitStack() as stack:
            try:
                url = await stack.enter_async_context(listening(app, host, port))
            except OSError as error:
                raise RunError(
                    f"{host}:{port} cannot be listened on: {error.strerror}; name another --port"
                ) from error
            say(f"{url} serves {served.card.id} ({served.what})")
            await asyncio.Event().wait()
