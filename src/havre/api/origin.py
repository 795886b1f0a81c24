"""Requests that a browser sends on behalf of a page which is not the daemon's.

A page of any site can make its visitor's browser send requests to a listener on the visitor's machine. It cannot read
the answers, but `POST /build` needs none. Browsers say whose page it is (`wire.origin`): a foreign one's is refused.

On plain TCP, `Host` must be an address or a name of this machine. That is against DNS rebinding, where a page's own
name is made to point at the victim: a browser then takes page and daemon for one site. An address as `Host` is safe,
since no DNS is asked about it. Over TLS a certificate for the page's name would be needed, and a unix socket is reached
by no browser.

Source: RFC 9110, "Host and :authority"; RFC 6761, section 6.3 (localhost).
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web

from havre.errors import Forbidden
from havre.wire.origin import is_foreign_page

Kind = Literal["unix", "tcp", "tls"]


def check_origin(request: web.BaseRequest, names: Collection[str]) -> None:
    """Refuse, with Forbidden, what a foreign page makes a browser send.

    `names` are those of this daemon besides its addresses and localhost, in small letters.
    """
    check_headers(request.headers, kind_of(request), names)


def check_headers(headers: Mapping[str, str], kind: Kind, names: Collection[str]) -> None:
    """As `check_origin`, of values."""
    # Go's clients of web sockets say that they are http://localhost, whatever they are connected to.
    from_go = kind == "unix" and headers.get("Origin") == "http://localhost" and not headers.get("Sec-Fetch-Site")
    if is_foreign_page(headers) and not from_go:
        raise Forbidden("a page of another site may not use this API")
    host = headers.get("Host", "")
    if kind == "tcp" and host and not _is_known(host, names):
        raise Forbidden(
            f"the host {host} is no name of this daemon",
            "use one of the machine's addresses, or allow the name with --allowed-host",
        )


def kind_of(request: web.BaseRequest) -> Kind:
    """What the request came through."""
    transport = request.transport
    if transport is not None and transport.get_extra_info("sslcontext") is not None:
        return "tls"
    connection = None if transport is None else transport.get_extra_info("socket")
    return "tcp" if connection is None or connection.family != socket.AF_UNIX else "unix"


def own_names(listening: Collection[str], allowed: Collection[str]) -> frozenset[str]:
    """The names by which this daemon may be asked: the machine's, those it listens on, those that are `allowed`."""
    return frozenset(name.rstrip(".").lower() for name in (socket.gethostname(), *listening, *allowed) if name)


def _is_known(host: str, names: Collection[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    name = name.rstrip(".")
    # No web site has a name without a dot (`docker` of docker-in-docker), nor one below .localhost (RFC 6761) and
    # .internal (kept for private use by ICANN): no page can be made to have it.
    if (name.isascii() and name and not set(name) & set(".:")) or name.endswith((".localhost", ".internal")):
        return True
    if name in names:
        return True
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
