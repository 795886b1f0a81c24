"""Managed plugins, which are not supported: the list is empty."""

from __future__ import annotations

from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router
from havre.errors import NotFound, Unsupported


async def _list(call: Call) -> web.StreamResponse:
    call.filters()
    return call.json([])


async def _missing(call: Call) -> web.StreamResponse:
    raise NotFound(f'plugin "{call.name}" not found')


async def _unsupported(call: Call) -> web.StreamResponse:
    raise Unsupported("managed plugins are not supported by this daemon")


def register(router: Router) -> None:
    """Add the routes of plugins."""
    router.add("GET", "/plugins", _list)
    for method, pattern in (("GET", "/plugins/privileges"), ("POST", "/plugins/pull"), ("POST", "/plugins/create")):
        router.add(method, pattern, _unsupported)
    router.add("POST", "/plugins/{name}/upgrade", _unsupported)
    router.add("GET", "/plugins/{name}/json", _missing)
    router.add("DELETE", "/plugins/{name}", _missing)
    for action in ("enable", "disable", "push", "set"):
        router.add("POST", f"/plugins/{{name}}/{action}", _missing)
