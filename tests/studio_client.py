"""A client of a studio that a test starts."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

from aiohttp import CookieJar
from aiohttp.test_utils import TestClient, TestServer

from feldspar.studio.app import make_studio

TOKEN = "the-token"
Client = TestClient


def in_studio(
    folder: Path,
    use: Callable[[Client], Awaitable[None]],
    *,
    read_only: bool = False,
    reviewer: str = "",
) -> None:
    async def main() -> None:
        server = TestServer(make_studio(folder, TOKEN, read_only=read_only, reviewer=reviewer))
        jar = CookieJar(unsafe=True)
        async with TestClient(server, cookie_jar=jar) as client:
            await use(client)

    asyncio.run(main())


async def enter(client: Client) -> None:
    reply = await client.get("/", params={"token": TOKEN})
    assert reply.status == 200
    assert "token" not in str(reply.url)
