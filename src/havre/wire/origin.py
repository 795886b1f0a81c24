"""Detects requests that a browser sends for another site's page (cross-origin). Pure.

    Sec-Fetch-Site: cross-site | same-site     foreign      (same-origin and none are not)
    Origin: X                                  foreign unless X is the requested host

A page cannot forge either. Programs send neither.

Source: Fetch Metadata Request Headers (W3C); RFC 6454, "The Web Origin Concept".
"""

from __future__ import annotations

from collections.abc import Mapping

_OWN_SITES = ("", "same-origin", "none")
_PORTS = {"http": ":80", "https": ":443"}


def is_foreign_page(headers: Mapping[str, str]) -> bool:
    """Decide by a request's headers, looked up without regard to case."""
    if headers.get("Sec-Fetch-Site", "").strip().lower() not in _OWN_SITES:
        return True
    return "Origin" in headers and not _is_own(headers["Origin"], headers.get("Host", ""))


def _is_own(origin: str, host: str) -> bool:
    scheme, _, authority = origin.lower().partition("://")
    port = _PORTS.get(scheme)
    if port is None or not authority:
        return False
    return authority.removesuffix(port) == host.lower().removesuffix(port)
