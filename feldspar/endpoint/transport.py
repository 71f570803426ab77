"""HTTP to a model's servers: JSON out, JSON back, and a fault for whatever else comes.

One deadline for a whole call, a bound on a reply's bytes (unpacked ones too), no redirects, no
cookies, and connections that are kept open between calls.
"""

from __future__ import annotations

import asyncio
import json
import urllib.parse
import urllib.request
import zlib
from collections.abc import Coroutine, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any, NamedTuple, TypeVar

import aiohttp

from feldspar.endpoint.calls import Json, sound_text
from feldspar.endpoint.faults import (
    ErrorBody,
    Fault,
    fault_of,
    one_line,
    read_error_body,
)

_HTML = "text/html"
T = TypeVar("T")

CONNECT_SECONDS = 10.0
MAX_BODY_BYTES = 1 << 26
_JSON = {"Content-Type": "application/json", "Accept": "application/json"}
# Packed replies are not asked for: answers are small, and unpacking is work at both ends.
_PLAIN = {"Accept-Encoding": "identity", "User-Agent": "feldspar"}


class HttpReply(NamedTuple):
    """A reply with a status of 200 to 299, decoded."""

    body: object


class _Raw(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class Transport:
    """Connections to one or several servers, open while `async with transport:` runs."""

    def __init__(self, timeout_seconds: float, *, is_proxied: bool = True) -> None:
        """`is_proxied`: by the proxy that the environment names for an address, if it does."""
        self._is_proxied = is_proxied
        self._timeout = aiohttp.ClientTimeout(
            total=timeout_seconds, sock_connect=min(CONNECT_SECONDS, timeout_seconds)
        )
        self._session: aiohttp.ClientSession | None = None
        self._proxies: dict[str, str | None] = {}

    async def __aenter__(self) -> Transport:
        self._session = aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=0, ttl_dns_cache=300),
            timeout=self._timeout,
            headers=_PLAIN,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )
        return self

    async def __aexit__(self, *_: object) -> None:
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def post(self, url: str, body: Json, headers: Mapping[str, str]) -> HttpReply | Fault:
        """Send JSON. The fault of an error reply may name one of the body's fields."""
        text = json.dumps(body, ensure_ascii=False, separators=(",", ":"))
        raw = await self._send("POST", url, {**_JSON, **headers}, sound_text(text).encode())
        return raw if isinstance(raw, Fault) else _read(raw, tuple(body))

    async def get(self, url: str, headers: Mapping[str, str]) -> HttpReply | Fault:
        raw = await self._send("GET", url, headers, None)
        return raw if isinstance(raw, Fault) else _read(raw, ())

    async def _send(
        self, method: str, url: str, headers: Mapping[str, str], data: bytes | None
    ) -> _Raw | Fault:
        assert self._session is not None, "ask inside `async with`"
        try:
            async with self._session.request(
                method,
                url,
                data=data,
                headers=headers,
                allow_redirects=False,
                proxy=self._proxy(url),
            ) as response:
                body = await self._body(response)
                return (
                    body
                    if isinstance(body, Fault)
                    else _Raw(response.status, response.headers, body)
                )
        except TimeoutError:
            return Fault("push back", "no answer in time", is_connection=True)
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            return Fault("stop", f"no address: {one_line(str(error))}", why="address")
        except aiohttp.ClientPayloadError as error:
            return Fault("retry", f"a reply that was cut off: {one_line(str(error))}")
        except (aiohttp.ClientConnectionError, OSError) as error:
            why = one_line(str(error)) or type(error).__name__
            return Fault("retry", f"connection lost: {why}", is_connection=True)
        except (aiohttp.ClientError, ValueError) as error:
            return Fault("retry", f"no readable answer: {one_line(str(error))}")

    async def _body(self, response: aiohttp.ClientResponse) -> bytes | Fault:
        """The reply's bytes, unpacked; never more than the bound."""
        most = MAX_BODY_BYTES
        encoding = response.headers.get("Content-Encoding", "identity").strip().lower()
        if encoding not in ("identity", "gzip", "deflate", ""):
            return Fault(
                "refused", f"a reply packed as {one_line(encoding)}, which was not asked for"
            )
        chunks, size = [], 0
        async for chunk in response.content.iter_any():
            size += len(chunk)
            if size > most:
                return _too_large(most)
            chunks.append(chunk)
        body = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        if encoding in ("identity", "") or not body:
            return body
        # 32 more tells gzip from zlib by the header.
        packed = zlib.decompressobj(zlib.MAX_WBITS | 32)
        try:
            body = packed.decompress(body, most + 1)
        except zlib.error as error:
            return Fault("retry", f"no readable answer: {one_line(str(error))}")
        return _too_large(most) if len(body) > most else body

    def _proxy(self, url: str) -> str | None:
        """By the environment, as other clients do; looked up once for an address."""
        if not self._is_proxied:
            return None
        if url not in self._proxies:
            parts = urllib.parse.urlsplit(url)
            found = urllib.request.getproxies().get(parts.scheme)
            is_bypassed = not parts.hostname or urllib.request.proxy_bypass(parts.hostname)
            self._proxies[url] = None if is_bypassed else found
        return self._proxies[url]


def run_apart(work: Coroutine[Any, Any, T]) -> T:
    """A coroutine's result, for callers without `await`, within a running loop or not."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(work)
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def is_web_page(fault: Fault) -> bool:
    """Whether what answered well is a page for browsers: no server of models."""
    return 0 < fault.status < 300 and _HTML in fault.reason


def _too_large(most: int) -> Fault:
    return Fault("retry", f"a reply of more than {most / 1e6:.0f} MB")


def _read(raw: _Raw, sent: tuple[str, ...]) -> HttpReply | Fault:
    status, headers = raw.status, raw.headers
    if 300 <= status < 400:
        place = one_line(headers.get("Location", "")) or "nowhere"
        return Fault("stop", place, why="redirect", status=status)
    wait = headers.get("Retry-After")
    try:
        body: object = json.loads(raw.body)
    except (ValueError, RecursionError):
        words = one_line(raw.body[:2000].decode("utf-8", "replace"))
        if status < 300:
            kind = one_line(headers.get("Content-Type", "")) or "no kind"
            hint = "; an `endpoint` is a URL that ends in /v1" if _HTML in kind else ""
            return Fault(
                "retry", f"no readable answer ({kind}){hint}: {words}"[:200], status=status
            )
        return fault_of(status, ErrorBody(words), wait)
    error = read_error_body(body)
    if status >= 400:
        return fault_of(status, error or ErrorBody(one_line(json.dumps(body))), wait, sent)
    if error is not None:
        # An error under 200, as proxies send them: by the status that it names, else a passing one.
        return fault_of(error.status or 500, error, wait, sent)
    return HttpReply(body)
