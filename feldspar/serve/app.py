"""One OpenAI-compatible HTTP layer, for the embedded teacher and for a model of one's own."""

import asyncio
import hmac
import logging
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing, asynccontextmanager
from itertools import count

from aiohttp import ClientPayloadError, web
from aiohttp.typedefs import Middleware

from feldspar.serve.guard import guard
from feldspar.serve.json_errors import JsonErrorRunner
from feldspar.serve.protocol import (
    ChatReply,
    ChatRequest,
    ModelCard,
    Pieces,
    ReplyHead,
    RequestError,
    TextRequest,
    collect,
    write_error,
    write_model,
    write_models,
    write_piece,
    write_reply,
    write_stream_usage,
)
from feldspar.serve.requests import read_request, read_text_request

Complete = Callable[[ChatRequest], Awaitable[ChatReply]]
Draw = Callable[[ChatRequest | TextRequest], Awaitable[Pieces]]
_HEALTH = "/health"
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
STAGE_HEADER = "X-Feldspar-Stage"
MAX_BODY_BYTES = 4 * 1024 * 1024
SLOWEST_READER_SECONDS = 60.0
"""A client that takes nothing of its stream for so long is let go."""
_MOST_STAGES = 64
"""That are counted by name: the names are the clients', and are kept for ever."""
_LONGEST_STAGE = 64
_OTHER_STAGES = "(others)"

log = logging.getLogger(__name__)


def make_app(
    models: Sequence[ModelCard],
    complete: Complete | None = None,
    max_body_bytes: int = MAX_BODY_BYTES,
    *,
    draw: Draw | None = None,
    key: str | None = None,
    is_well: Callable[[], bool] = lambda: True,
) -> web.Application:
    """Serve `/v1/models`, `/v1/chat/completions`, `/stats` (valid requests, by stage), `/health`.

    `complete` gives whole replies; `draw` gives them piece by piece, and so streams, `top_p`,
    `logprobs` and `/v1/completions` besides. One of the two is handed in. With a `key`, every
    request but for `/health` must carry it. `/health` is 503 where `is_well` says no. Errors have
    OpenAI's shape: 400 not JSON, 401 no key, 403 a page of another site, 404 no such path or model,
    405 wrong method, 413 larger than `max_body_bytes`, 415 not called JSON, 422 a wrong or
    unsupported value.
    """
    assert (complete is None) != (draw is None)
    endpoint = _Endpoint(models, complete, draw, is_well)
    middlewares: list[Middleware] = [_shape_errors, guard(any_host=bool(key))]
    if key:
        middlewares.append(_asking_for(key))
    app = web.Application(client_max_size=max_body_bytes, middlewares=middlewares)
    app.router.add_get(_HEALTH, endpoint.show_health)
    app.router.add_get("/v1/models", endpoint.list_models)
    app.router.add_get("/v1/models/{id:.+}", endpoint.show_model)
    app.router.add_post("/v1/chat/completions", endpoint.chat)
    if draw is not None:
        app.router.add_post("/v1/completions", endpoint.text)
    app.router.add_get("/stats", endpoint.show_stats)
    return app


@asynccontextmanager
async def listening(
    app: web.Application, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Serve an app while the block runs; gives its URL. Port 0 takes a free one.

    Raises OSError where the port is taken.
    """
    # A client that hangs up cancels its handler, and so the work for it.
    runner = JsonErrorRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        site = web.TCPSite(runner, host, port, backlog=1024)
        await site.start()
        bound_port = runner.addresses[0][1]
        shown_host = f"[{host}]" if ":" in host else host
        yield f"http://{shown_host}:{bound_port}/v1"
    finally:
        await runner.cleanup()


class _Endpoint:
    def __init__(
        self,
        models: Sequence[ModelCard],
        complete: Complete | None,
        draw: Draw | None,
        is_well: Callable[[], bool],
    ) -> None:
        self._cards = {card.id: card for card in models}
        self._is_well = is_well
        self._models = write_models(models)
        self._complete, self._draw = complete, draw
        self._asked: Counter[str] = Counter()
        self._session = secrets.token_hex(6)
        self._numbers = count()

    async def list_models(self, _: web.Request) -> web.Response:
        return _json(self._models)

    async def show_model(self, http: web.Request) -> web.Response:
        return _json(write_model(self._card(http.match_info["id"])))

    async def show_health(self, _: web.Request) -> web.Response:
        if not self._is_well():
            raise RequestError(503, "the model's thread has ended; start the server again")
        return web.json_response({"status": "ok"})

    async def chat(self, http: web.Request) -> web.StreamResponse:
        stage = http.headers.get(STAGE_HEADER, "")
        is_drawn = self._draw is not None
        request = read_request(await http.read(), stage, is_drawn=is_drawn)
        head = self._begin(request, "chatcmpl")
        if self._complete is not None:
            return _json(write_reply(await self._complete(request), head))
        return await self._answer(http, request, head)

    async def text(self, http: web.Request) -> web.StreamResponse:
        request = read_text_request(await http.read(), http.headers.get(STAGE_HEADER, ""))
        return await self._answer(http, request, self._begin(request, "cmpl"))

    def _begin(self, request: ChatRequest | TextRequest, kind: str) -> ReplyHead:
        self._card(request.model)
        self._count(request.stage)
        call_id = f"{kind}-{self._session}-{next(self._numbers)}"
        return ReplyHead(call_id, request.model, int(time.time()), isinstance(request, ChatRequest))

    def _card(self, name: str) -> ModelCard:
        if name not in self._cards:
            known = ", ".join(sorted(self._cards))
            message = f"no model {name[:200]!r} here; there is {known}"
            raise RequestError(404, message, "model", "model_not_found")
        return self._cards[name]

    def _count(self, stage: str) -> None:
        is_known = stage in self._asked or len(self._asked) < _MOST_STAGES
        self._asked[stage if is_known and len(stage) <= _LONGEST_STAGE else _OTHER_STAGES] += 1

    async def _answer(
        self, http: web.Request, request: ChatRequest | TextRequest, head: ReplyHead
    ) -> web.StreamResponse:
        assert self._draw is not None
        pieces = await self._draw(request)
        async with aclosing(pieces.stream):
            if request.stream:
                return await _stream(http, pieces, head, include_usage=request.include_usage)
            return _json(write_reply(await collect(pieces), head))

    async def show_stats(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"requests": self._asked.total(), "by_stage": dict(sorted(self._asked.items()))}
        )


async def _stream(
    http: web.Request, pieces: Pieces, head: ReplyHead, *, include_usage: bool
) -> web.StreamResponse:
    """Server-sent events, one a piece."""
    response = web.StreamResponse(
        headers={"Content-Type": "text/event-stream", "Cache-Control": "no-cache"}
    )
    await response.prepare(http)
    try:
        await _send_pieces(response, pieces, head, include_usage=include_usage)
    except (ConnectionError, TimeoutError):
        # The client has gone, or takes nothing any more: there is nobody to tell.
        if http.transport is not None:
            http.transport.abort()
    return response


async def _send_pieces(
    response: web.StreamResponse, pieces: Pieces, head: ReplyHead, *, include_usage: bool
) -> None:
    offsets: dict[int, int] = {}
    num_tokens = 0
    try:
        async for piece in pieces.stream:
            offset = offsets.get(piece.choice, 0)
            event = write_piece(piece, head, is_first=piece.choice not in offsets, offset=offset)
            offsets[piece.choice] = offset + len(piece.text)
            num_tokens += piece.num_tokens
            await _send(response, event)
        if include_usage:
            await _send(response, write_stream_usage(head, pieces.prompt_tokens, num_tokens))
    except RequestError as error:
        # The status line is long sent: the fault goes where the text would have gone on.
        await _send(response, b"data: " + write_error(error) + b"\n\n")
    await _send(response, b"data: [DONE]\n\n")


async def _send(response: web.StreamResponse, event: bytes) -> None:
    async with asyncio.timeout(SLOWEST_READER_SECONDS):
        await response.write(event)


def _asking_for(key: str) -> Middleware:
    expected = f"Bearer {key}".encode()

    @web.middleware
    async def check(request: web.Request, handler: Handler) -> web.StreamResponse:
        given = request.headers.get("Authorization", "").encode(errors="surrogateescape")
        if request.path != _HEALTH and not hmac.compare_digest(given, expected):
            raise RequestError(401, "wrong or no API key", None, "invalid_api_key")
        return await handler(request)

    return check


@web.middleware
async def _shape_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        response = _json(write_error(error), error.status)
        if error.retry_after_seconds is not None:
            response.headers["Retry-After"] = str(error.retry_after_seconds)
        return response
    except web.HTTPRequestEntityTooLarge as error:
        return _json(write_error(RequestError(413, f"the body is too large: {error.text}")), 413)
    except web.HTTPException as error:
        fault = RequestError(error.status, f"{request.method} {request.path}: {error.reason}")
        return _json(write_error(fault), error.status)
    except (ClientPayloadError, ConnectionError) as error:
        log.debug("a request that was cut off", exc_info=error)
        return _json(write_error(RequestError(400, "the request's body was cut off")), 400)
    except Exception as error:
        # Ours: the client is told that much, and whoever serves can look with --debug.
        log.error("%s %s failed: %s", request.method, request.path, type(error).__name__)
        log.debug("that was", exc_info=error)
        return _json(write_error(RequestError(500, "the server failed; see its log")), 500)


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
