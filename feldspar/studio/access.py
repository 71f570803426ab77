"""Who may use the studio: whoever has its address with the token in it, from this machine.

The token comes once, in the address that the command prints, and then in a cookie that no other
site's page can send. What pages may do is in their headers: no script and no style but our files.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Awaitable, Callable

from aiohttp import web
from aiohttp.typedefs import Middleware

COOKIE = "feldspar-studio"
_Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
}


def new_token() -> str:
    """Not to be guessed."""
    return secrets.token_urlsafe(24)


def only_with(token: str) -> Middleware:
    """Refuse what has neither the token nor the cookie; an address with it becomes one without.

    Raises web.HTTPForbidden.
    """
    expected = token.encode()

    @web.middleware
    async def check(request: web.Request, handler: _Handler) -> web.StreamResponse:
        given = request.query.get("token")
        if given is not None and request.method == "GET" and _equal(given, expected):
            response = web.HTTPSeeOther(request.rel_url.without_query_params("token"))
            # Cookies know no ports: each studio's has a name of its own.
            response.set_cookie(
                cookie_name(request), token, httponly=True, samesite="Strict", path="/"
            )
            raise response
        if not _equal(request.cookies.get(cookie_name(request), ""), expected):
            raise web.HTTPForbidden(reason="open the address that feldspar studio printed")
        return await handler(request)

    return check


def cookie_name(request: web.Request) -> str:
    """By the port that was asked, so that two studios do not shut each other out."""
    return f"{COOKIE}-{request.url.port}"


@web.middleware
async def with_headers(request: web.Request, handler: _Handler) -> web.StreamResponse:
    """Say to browsers what pages may do, also with what is refused."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(HEADERS)
        raise
    if not response.prepared:
        response.headers.update(HEADERS)
        response.headers.setdefault("Cache-Control", "no-store")
    return response


def _equal(given: str, expected: bytes) -> bool:
    return hmac.compare_digest(given.encode(errors="surrogateescape"), expected)
