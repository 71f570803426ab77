"""Which machines a document may be fetched from: those that the whole internet can reach.

Whoever writes a leaf must not reach, through whoever reads it, into the reader's own network.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from urllib.parse import SplitResult, urlsplit

from feldspar.taxonomy.text_files import ReadFault

_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_DEFAULT_PORTS = {"http": 80, "https": 443}


def split_url(url: str, schemes: tuple[str, ...]) -> SplitResult:
    """The parts of a URL with one of these schemes, a host, and no credentials."""
    try:
        parts = urlsplit(url.strip())
        port = parts.port
    except ValueError as error:
        raise ReadFault("its URL is not one") from error
    if parts.scheme not in schemes:
        raise ReadFault(f"{parts.scheme or 'no scheme'}: only {' and '.join(schemes)} is fetched")
    if parts.username is not None or parts.password is not None:
        raise ReadFault("its URL holds a user name; leave it out, git's credential helper knows it")
    if not parts.hostname or port == 0 or re.search(r"[\s\x00-\x20\x7f\\]", url.strip()):
        raise ReadFault("its URL is not one")
    return parts


def port_of(parts: SplitResult) -> int:
    return parts.port or _DEFAULT_PORTS[parts.scheme]


def addresses_of(host: str, port: int, *, allows_private: bool) -> list[str]:
    """The addresses of a host, every one of them public. Raises ReadFault."""
    try:
        answers = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError) as error:
        raise ReadFault(f"the host {host} is not known here") from error
    addresses = list(dict.fromkeys(str(answer[4][0]) for answer in answers))
    private = [address for address in addresses if not is_public(address)]
    if private and not allows_private:
        raise ReadFault(f"the host {host} has the private address {private[0]}")
    return addresses


def is_public(address: str) -> bool:
    """Whether an address is reached over the internet; one that wraps another is as that one."""
    parsed = ipaddress.ip_address(address.partition("%")[0])
    if isinstance(parsed, ipaddress.IPv6Address):
        wrapped = [parsed.ipv4_mapped, parsed.sixtofour, *(parsed.teredo or ())]
        if parsed in _NAT64:
            wrapped.append(ipaddress.IPv4Address(int(parsed) & 0xFFFFFFFF))
        if any(inner is not None and not inner.is_global for inner in wrapped):
            return False
        if parsed.ipv4_mapped is not None:
            return parsed.ipv4_mapped.is_global and not parsed.ipv4_mapped.is_multicast
    return parsed.is_global and not parsed.is_multicast


def without_credentials(text: str) -> str:
    """The text with no user name or password before a host."""
    return re.sub(r"(\w+://)[^/\s]*@", r"\1", text)
