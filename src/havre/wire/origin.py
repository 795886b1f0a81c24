"""Whether a browser has sent a request on behalf of a page that is not the server's own. Pure.

    Sec-Fetch-Site: cross-site | same-site     foreign      (same-origin and none are not)
    Origin: X                                  foreign unless X is the host that was asked

A page cannot lie about either. Programs send neither.

Source: Fetch Metadata Request Headers (W3C); RFC 6454, "The Web Origin Concept".
"""

from __future__ import annotations

from collections.abc import Mapping

_OWN_SITES = ("", "same-origin", "none")
_PORTS = {"http": ":80", "https": ":443"}


def is_foreign_page(headers: Mapping[str, str]) -> bool:
    """By the headers of a request, whose names are found in any case."""
    if headers.get("Sec-Fetch-Site", "").strip().lower() not in _OWN_SITES:
        return True
    return "Origin" in headers and not _is_own(headers["Origin"], headers.get("Host", ""))


def _is_own(origin: str, host: str) -> bool:
    scheme, _, authority = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    if port is None or not authority:
        return False
    return authority.removesuffix(port) == host.lower().removesuffix(port)
