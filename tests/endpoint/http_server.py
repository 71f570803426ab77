"""A server in a thread whose replies are functions that a test gives; it keeps what it was sent."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web


@dataclass
class Request:
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: Any
    raw: bytes


@dataclass
class Answer:
    """`body` is sent as JSON, or as it is where it is bytes."""

    body: Any
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Server:
    url: str
    requests: list[Request]


@contextmanager
def serving(reply: Callable[[Request], Answer]) -> Iterator[Server]:
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    requests: list[Request] = []

    async def handle(http: web.Request) -> web.Response:
        raw = await http.read()
        body = json.loads(raw) if raw else None
        request = Request(http.path, dict(http.query), dict(http.headers), body, raw)
        requests.append(request)
        answer = reply(request)
        is_raw = isinstance(answer.body, bytes)
        return web.Response(
            status=answer.status,
            headers={"Content-Type": "application/json", **answer.headers},
            body=answer.body if is_raw else json.dumps(answer.body).encode(),
        )

    async def start() -> web.AppRunner:
        app = web.Application()
        app.router.add_route("*", "/{tail:.*}", handle)
        runner = web.AppRunner(app, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        return runner

    runner = asyncio.run_coroutine_threadsafe(start(), loop).result()
    try:
        yield Server(f"http://127.0.0.1:{runner.addresses[0][1]}/v1", requests)
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result()
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()
