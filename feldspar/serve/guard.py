"""Who may use a server on this machine: its own clients and pages, and no page of another site.

A browser sends requests for any page that it shows, also to 127.0.0.1. What tells them apart: a
page of another origin sends its `Origin`; a name that was made to point here (DNS rebinding)
stands in `Host`; and without asking first a page can send only forms, never JSON.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Middleware

LOOPBACK = frozenset(["127.0.0.1", "::1", "localhost"])
_WITH_BODY = ("POST", "PUT", "PATCH")
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


def guard(*, any_host: bool = False) -> Middleware:
    """Refuse what a page of another site could send.

    Raises web.HTTPForbidden for another origin, and for a `Host` that is not this machine's unless
    `any_host`, which is for servers that ask for a key; web.HTTPUnsupportedMediaType for a body
    that does not say that it is JSON.
    """

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        host = request.headers.get("Host", "")
        if not any_host and _name(host) not in LOOPBACK:
            shown = json.dumps(host)
            raise web.HTTPForbidden(reason=f"Host {shown} is not this machine: use 127.0.0.1")
        origin = request.headers.get("Origin")
        if origin is not None and origin not in (f"http://{host}", f"https://{host}"):
            raise web.HTTPForbidden(reason="requests from pages of another origin are refused")
        if request.method in _WITH_BODY and request.content_type != "application/json":
            raise web.HTTPUnsupportedMediaType(reason="send Content-Type: application/json")
        return await handler(request)

    return check


def _name(host: str) -> str:
    """The host's name without its port; empty where it cannot be read."""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""
