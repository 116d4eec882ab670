"""Keeping URLs that users give from reaching into our own network (server-side request forgery).

Source: OWASP Server-Side Request Forgery Prevention; the address classes are those of IANA's special-purpose
registries as `ipaddress` knows them.
"""

from __future__ import annotations

import asyncio
import socket
from ipaddress import IPv4Address, IPv6Address, IPv6Network, ip_address
from urllib.parse import urlsplit

from core.errors import BadInput, Unavailable

Address = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")


def check_url(url: str, *, field: str | None = None) -> tuple[str, int]:
    """Host and port of an http(s) URL; raises BadInput for anything else, and for credentials in it."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as error:
        raise BadInput(f"This is not a URL: {error}.", field=field) from None
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise BadInput("A URL begins with https:// or http:// and a host.", field=field)
    if parts.username is not None or parts.password is not None:
        raise BadInput("Put credentials in a header, not in the URL.", field=field)
    return parts.hostname, port or (443 if parts.scheme == "https" else 80)


async def resolve(host: str, port: int, *, allow_private: bool, field: str | None = None) -> list[Address]:
    """The addresses of `host`, best first; connect to these and to no others, for names can be rebound.

    Raises BadInput where any of its addresses is one that users' URLs may not reach, and Unavailable
    where there is none.
    """
    try:
        found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):
        raise Unavailable(f"The host {host!r} has no address.", field=field) from None
    addresses = [ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]
    if not allow_private:
        for address in addresses:
            if is_private(address):
                raise BadInput(
                    f"{host!r} leads to {address}, inside a private network. An operator can allow that with "
                    "QUARTERDECK_ALLOW_PRIVATE_NETWORKS=true.",
                    field=field,
                )
    return addresses


def is_private(address: Address) -> bool:
    """Loopback, link-local (cloud metadata), private, shared, multicast or reserved, also inside IPv6."""
    if isinstance(address, IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour or (address.teredo[1] if address.teredo else None)
        if inner is None and address in _NAT64:
            inner = IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_private(inner)
    return not address.is_global or address.is_multicast
