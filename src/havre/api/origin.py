"""Requests that a browser sends on behalf of a page which is not the daemon's.

A page of any site can make its visitor's browser send requests to a listener on the visitor's machine. It cannot read
the answers, but `POST /build` needs none. Browsers say whose page it is, and a page cannot lie about that:

    Sec-Fetch-Site: cross-site | same-site     refused      (same-origin and none are not a foreign page's)
    Origin: X                                  refused unless X is the host that was asked
    Host: N                                    on plain TCP: refused unless N is an address or a name of this machine

The last one is against DNS rebinding, where a page's own name is made to point at the victim: a browser then takes
page and daemon for one site. An address as `Host` is safe, since no DNS is asked about it. Over TLS a certificate for
the page's name would be needed, and a unix socket is reached by no browser.

Source: Fetch Metadata Request Headers (W3C); RFC 6454, "The Web Origin Concept"; RFC 6761, section 6.3 (localhost).
"""

from __future__ import annotations

import socket
from collections.abc import Collection, Mapping
from ipaddress import ip_address
from typing import Literal
from urllib.parse import urlsplit

from aiohttp import web

from havre.errors import Forbidden

Kind = Literal["unix", "tcp", "tls"]

_OWN_SITES = ("", "same-origin", "none")
_PORTS = {"http": ":80", "https": ":443"}


def check_origin(request: web.BaseRequest, names: Collection[str]) -> None:
    """Refuse, with Forbidden, what a foreign page makes a browser send.

    `names` are those of this daemon besides its addresses and localhost, in small letters.
    """
    check_headers(request.headers, kind_of(request), names)


def check_headers(headers: Mapping[str, str], kind: Kind, names: Collection[str]) -> None:
    """As `check_origin`, of values."""
    host = headers.get("Host", "")
    if headers.get("Sec-Fetch-Site", "").strip().lower() not in _OWN_SITES:
        raise Forbidden("a page of another site may not use this API")
    if "Origin" in headers and not _is_own(headers["Origin"], host, kind):
        raise Forbidden("a page of another site may not use this API")
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


def _is_own(origin: str, host: str, kind: Kind) -> bool:
    """Go's clients of web sockets say that they are http://localhost, whatever they are connected to."""
    if kind == "unix" and origin == "http://localhost":
        return True
    scheme, _, authority = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    if port is None or not authority:
        return False
    return authority.removesuffix(port) == host.lower().removesuffix(port)


def _is_known(host: str, names: Collection[str]) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return False
    name = name.rstrip(".")
    if name == "localhost" or name.endswith(".localhost") or name in names:
        return True
    try:
        ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True
