"""Serving the studio until it is interrupted."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

from aiohttp import web

from feldspar.errors import RunError
from feldspar.studio.access import new_token
from feldspar.studio.app import make_studio

HOST = "127.0.0.1"


async def serve_studio(
    folder: Path, *, port: int, read_only: bool, reviewer: str, say: Callable[[str], None]
) -> None:
    """Serve the runs of a folder; `say` is told the address with its token.

    Raises RunError where the port is taken.
    """
    token = new_token()
    app = make_studio(folder, token, read_only=read_only, reviewer=reviewer)
    # A browser that goes away ends the answer that it was reading.
    runner = web.AppRunner(app, access_log=None, handler_cancellation=True, shutdown_timeout=1.0)
    await runner.setup()
    try:
        try:
            await web.TCPSite(runner, HOST, port).start()
        except OSError as error:
            raise RunError(
                f"{HOST}:{port} cannot be listened on: {error.strerror}; name another --port"
            ) from error
        say(f"http://{HOST}:{runner.addresses[0][1]}/?token={token}")
        await asyncio.Event().wait()
    finally:
        await runner.cleanup()
