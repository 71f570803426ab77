"""One document over HTTP: redirects are checked too, nothing is unpacked, no proxy is used."""

from __future__ import annotations

import http.client
import socket
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import PurePosixPath
from typing import NamedTuple
from urllib.parse import SplitResult, urljoin

from feldspar.taxonomy.documents.addresses import addresses_of, port_of, split_url
from feldspar.taxonomy.text_files import MAX_DOCUMENT_BYTES, READ_SUFFIXES, ReadFault

MAX_REDIRECTS = 5
PATIENCE_SECONDS = 20.0
"""For each word of the server's."""
MAX_SECONDS = 60.0
"""For a document, with all redirects."""
_REDIRECTS = (301, 302, 303, 307, 308)
_PIECE_BYTES = 1 << 16
_SUFFIX_OF_TYPE = {
    "text/html": ".html",
    "application/xhtml+xml": ".html",
    "text/markdown": ".md",
    "text/plain": ".txt",
    "application/pdf": ".pdf",
}


class Fetched(NamedTuple):
    data: bytes
    suffix: str
    """What kind of document it is: `.md`, `.html`, ..."""


def fetch_url(
    url: str,
    *,
    allows_private: bool,
    max_bytes: int = MAX_DOCUMENT_BYTES,
    max_seconds: float = MAX_SECONDS,
) -> Fetched:
    """Get a document. Raises ReadFault with the reason where it is refused or cannot be had."""
    deadline = time.monotonic() + max_seconds
    for _ in range(MAX_REDIRECTS + 1):
        parts = split_url(url, ("http", "https"))
        addresses = addresses_of(
            parts.hostname or "", port_of(parts), allows_private=allows_private
        )
        try:
            with closing(_connection(parts, addresses)) as connection:
                connection.connect()
                with _clock(connection, deadline), closing(_asked(connection, parts)) as answer:
                    if answer.status not in _REDIRECTS:
                        return _document(answer, parts, max_bytes, deadline)
                    url = urljoin(url, answer.headers.get("Location", ""))
        except (OSError, http.client.HTTPException, ValueError) as error:
            raise ReadFault(f"no document from {parts.hostname}: {_reason(error)}") from error
    raise ReadFault(f"more than {MAX_REDIRECTS} redirects")


class _Plain(http.client.HTTPConnection):
    """Goes to an address that was checked, whatever the name says by now."""

    def __init__(self, host: str, port: int, addresses: list[str]) -> None:
        super().__init__(host, port, timeout=PATIENCE_SECONDS)
        self.addresses = addresses

    def connect(self) -> None:
        self.sock = _dial(self.addresses, self.port)


class _Secure(http.client.HTTPSConnection):
    def __init__(self, host: str, port: int, addresses: list[str]) -> None:
        self.secured_by = ssl.create_default_context()
        super().__init__(host, port, timeout=PATIENCE_SECONDS, context=self.secured_by)
        self.addresses = addresses

    def connect(self) -> None:
        plain = _dial(self.addresses, self.port)
        try:
            self.sock = self.secured_by.wrap_socket(plain, server_hostname=self.host)
        except BaseException:
            plain.close()
            raise


def _connection(parts: SplitResult, addresses: list[str]) -> http.client.HTTPConnection:
    kind = _Secure if parts.scheme == "https" else _Plain
    return kind(parts.hostname or "", port_of(parts), addresses)


def _dial(addresses: list[str], port: int) -> socket.socket:
    fault: OSError | None = None
    for address in addresses:
        try:
            return socket.create_connection((address, port), PATIENCE_SECONDS)
        except OSError as error:
            fault = error
    assert fault is not None, addresses
    raise fault


def _asked(connection: http.client.HTTPConnection, parts: SplitResult) -> http.client.HTTPResponse:
    target = f"{parts.path or '/'}{f'?{parts.query}' if parts.query else ''}"
    headers = {"Accept-Encoding": "identity", "User-Agent": "feldspar"}
    connection.request("GET", target, headers=headers)
    return connection.getresponse()


@contextmanager
def _clock(connection: http.client.HTTPConnection, deadline: float) -> Iterator[None]:
    """Hang up at the deadline: a server may send a byte at a time, even of its headers."""
    # Kept here, since an answer that ends with the connection takes the socket away from it.
    sock = connection.sock
    timer = threading.Timer(max(0.0, deadline - time.monotonic()), _hang_up, [sock])
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _hang_up(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        # It ended by itself meanwhile.
        return


def _document(
    answer: http.client.HTTPResponse, parts: SplitResult, max_bytes: int, deadline: float
) -> Fetched:
    if answer.status != 200:
        raise ReadFault(f"{parts.hostname} answers {answer.status}")
    packing = answer.headers.get("Content-Encoding", "identity").lower()
    if packing not in ("", "identity"):
        raise ReadFault(f"{parts.hostname} answers packed as {packing}, which is not unpacked")
    kind = answer.headers.get_content_type()
    suffix = PurePosixPath(parts.path).suffix.lower()
    if suffix not in READ_SUFFIXES:
        suffix = _SUFFIX_OF_TYPE.get(kind, "")
    if not suffix:
        raise ReadFault(f"{kind} is no document that can be read")
    if (answer.length or 0) > max_bytes:
        raise ReadFault(f"it has {answer.length} bytes; {max_bytes} are read at most")
    data = bytearray()
    while piece := answer.read1(_PIECE_BYTES):
        data += piece
        if len(data) > max_bytes:
            raise ReadFault(f"it has more than {max_bytes} bytes, which are read at most")
        if time.monotonic() > deadline:
            break
    if answer.length or time.monotonic() > deadline:
        raise ReadFault(f"{parts.hostname} took too long, or broke off")
    return Fetched(bytes(data), suffix)


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error) or type(error).__name__
