"""Builds: their endpoints say clearly that this daemon does not build yet."""

from __future__ import annotations

from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router
from havre.errors import InvalidInput, Unsupported


async def _unsupported(call: Call) -> web.StreamResponse:
    raise Unsupported("this daemon does not build images", "build elsewhere and bring the image here with load or pull")


async def _session(call: Call) -> web.StreamResponse:
    if not call.request.headers.get("Upgrade"):
        raise InvalidInput("no upgrade proto in request")
    return await _unsupported(call)


async def _prune(call: Call) -> web.StreamResponse:
    call.filters()
    return call.json({"CachesDeleted": None, "SpaceReclaimed": 0})


async def _cancel(call: Call) -> web.StreamResponse:
    return call.nothing(200)


def register(router: Router) -> None:
    """Add the routes of builds."""
    router.add("POST", "/build", _unsupported)
    router.add("POST", "/build/prune", _prune)
    router.add("POST", "/build/cancel", _cancel)
    router.add("POST", "/session", _session)
    router.add("POST", "/grpc", _session)
