"""Refuses requests that a browser sends for web pages of other sites.

Any page can make its visitor's browser send requests to listeners on the visitor's machine (CSRF). It cannot read
the responses, but `POST /build` does harm without that. Browsers state the page's origin (`wire.origin`); foreign
origins are refused.

On plain TCP, `Host` must be an address or a name of this machine, against DNS rebinding: a page's own name is made
to resolve to the victim, so that the browser takes the page and the daemon for one site. An address as `Host` is
safe, as it involves no DNS. Over TLS an attacker would need a certificate for the name, and browsers cannot reach
unix sockets.

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
    """Raise Forbidden for requests of foreign pages.

    `names` are the daemon's names besides its addresses and localhost, in lower case.
    """
    check_headers(request.headers, kind_of(request), names)


def check_headers(headers: Mapping[str, str], kind: Kind, names: Collection[str]) -> None:
    """As `check_origin`, on values."""
    # Go's WebSocket clients send the origin http://localhost, whatever they are connected to.
    from_go = kind == "unix" and headers.get("Origin") == "http://localhost" and not headers.get("Sec-Fetch-Site")
    if is_foreign_page(headers) and not from_go:
        raise Forbidden("requests from web pages of other sites are refused")
    host = headers.get("Host", "")
    if kind == "tcp" and host and not _is_known(host, names):
        raise Forbidden(
            f"the host {host} is not a name of this daemon",
            "use one of the machine's addresses, or allow the name with --allowed-host",
        )


def kind_of(request: web.BaseRequest) -> Kind:
    """The kind of connection of a request."""
    transport = request.transport
    if transport is not None and transport.get_extra_info("sslcontext") is not None:
        return "tls"
    connection = None if transport is None else transport.get_extra_info("socket")
    return "tcp" if connection is None or connection.family != socket.AF_UNIX else "unix"


def own_names(listening: Collection[str], allowed: Collection[str]) -> frozenset[str]:
    """The daemon's names: the machine's, those it listens on, and the `allowed` ones."""
    return frozenset(name.rstrip(".").lower() for name in (socket.gethostname(), *listening, *allowed) if name)


def _is_known(host: str, names: Collection[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    name = name.rstrip(".")
    # No web site has a name without a dot (`docker` of docker-in-docker), or below .localhost (RFC 6761) or .internal
    # (reserved for private use by ICANN), so no page can have one of these.
    if (name.isascii() and name and not set(name) & set(".:")) or name.endswith((".localhost", ".internal")):
        return True
    if name in names:
        return True
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
