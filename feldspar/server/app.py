"""One OpenAI-compatible HTTP layer, for the embedded teacher and for a model of one's own."""

import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from itertools import count

from aiohttp import web

from feldspar.server.protocol import (
    ChatReply,
    ChatRequest,
    ModelCard,
    RequestError,
    write_error,
    write_models,
    write_reply,
)
from feldspar.server.reading import read_request

Complete = Callable[[ChatRequest], Awaitable[ChatReply]]
Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
STAGE_HEADER = "X-Feldspar-Stage"
MAX_BODY_BYTES = 4 * 1024 * 1024


def make_app(
    models: Sequence[ModelCard], complete: Complete, max_body_bytes: int = MAX_BODY_BYTES
) -> web.Application:
    """Serve `/v1/models`, `/v1/chat/completions` and `/stats` (valid requests, by stage).

    Errors have OpenAI's shape: 400 not JSON, 404 no such path or model, 405 wrong method, 413
    larger than `max_body_bytes`, 422 a wrong or unsupported value.
    """
    endpoint = _Endpoint(models, complete)
    app = web.Application(client_max_size=max_body_bytes, middlewares=[_shape_errors])
    app.router.add_get("/v1/models", endpoint.list_models)
    app.router.add_post("/v1/chat/completions", endpoint.chat)
    app.router.add_get("/stats", endpoint.show_stats)
    return app


@asynccontextmanager
async def listening(
    app: web.Application, host: str = "127.0.0.1", port: int = 0
) -> AsyncIterator[str]:
    """Serve an app while the block runs; gives its URL. Port 0 takes a free one.

    Raises OSError where the port is taken.
    """
    runner = web.AppRunner(app, access_log=None)
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
    def __init__(self, models: Sequence[ModelCard], complete: Complete) -> None:
        self._names = frozenset(card.id for card in models)
        self._models = write_models(models)
        self._complete = complete
        self._asked: Counter[str] = Counter()
        self._session = secrets.token_hex(6)
        self._numbers = count()

    async def list_models(self, _: web.Request) -> web.Response:
        return _json(self._models)

    async def chat(self, http: web.Request) -> web.Response:
        request = read_request(await http.read(), http.headers.get(STAGE_HEADER, ""))
        if request.model not in self._names:
            known = ", ".join(sorted(self._names))
            message = f"no model {request.model!r} here; there is {known}"
            raise RequestError(404, message, "model", "model_not_found")
        self._asked[request.stage] += 1
        reply = await self._complete(request)
        call_id = f"chatcmpl-{self._session}-{next(self._numbers)}"
        return _json(write_reply(reply, request.model, call_id, int(time.time())))

    async def show_stats(self, _: web.Request) -> web.Response:
        return web.json_response(
            {"requests": self._asked.total(), "by_stage": dict(sorted(self._asked.items()))}
        )


@web.middleware
async def _shape_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except RequestError as error:
        return _json(write_error(error), error.status)
    except web.HTTPRequestEntityTooLarge as error:
        return _json(write_error(RequestError(413, f"the body is too large: {error.text}")), 413)
    except web.HTTPException as error:
        fault = RequestError(error.status, f"{request.method} {request.path}: {error.reason}")
        return _json(write_error(fault), error.status)


def _json(body: bytes, status: int = 200) -> web.Response:
    return web.Response(body=body, status=status, content_type="application/json")
