"""Changing a container's limits and restart policy. Source: Docker Engine API, "ContainerUpdate"."""

from __future__ import annotations

from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router
from havre.wire.config import UpdateRequest
from havre.wire.containers import ContainerUpdated
from havre.wire.conversion import lift


async def _update(call: Call) -> web.StreamResponse:
    asked = lift(await call.body(UpdateRequest), call.version)
    warnings = await call.settle(call.services.updates.update(call.name, asked))
    return call.json(ContainerUpdated(warnings=list(warnings) or None))


def register(router: Router) -> None:
    """Add the route of updates."""
    router.add("POST", "/containers/{name}/update", _update)
