"""Volumes: list, inspect, create, remove, prune.

Source: Docker Engine API, "Volumes".
"""

from __future__ import annotations

from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router
from havre.engine.model import Value
from havre.errors import Unavailable


class VolumeRequest(Value):
    """The body of `POST /volumes/create`; without a name the volume is anonymous."""

    name: str = ""
    driver: str = ""
    driver_opts: dict[str, str] | None = None
    labels: dict[str, str] | None = None


async def _list(call: Call) -> web.StreamResponse:
    return call.json({"Volumes": call.services.volumes.list(call.filters()), "Warnings": None})


async def _inspect(call: Call) -> web.StreamResponse:
    return call.json(call.services.volumes.get(call.name))


async def _create(call: Call) -> web.StreamResponse:
    request = await call.optional_body(VolumeRequest)
    volumes = call.services.volumes
    work = volumes.create(request.name or None, request.driver, request.driver_opts, request.labels)
    return call.json(await call.settle(work), 201)


async def _update(call: Call) -> web.StreamResponse:
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def _remove(call: Call) -> web.StreamResponse:
    await call.settle(call.services.volumes.remove(call.name, force=call.flag("force")))
    return call.nothing()


async def _prune(call: Call) -> web.StreamResponse:
    filters = call.filters()
    if call.version < (1, 42):  # named volumes were pruned, too
        filters.setdefault("all", ["true"])
    pruned = await call.settle(call.services.volumes.prune(filters))
    return call.json({"VolumesDeleted": list(pruned.deleted), "SpaceReclaimed": pruned.reclaimed})


def register(router: Router) -> None:
    """Add the routes of volumes."""
    router.add("GET", "/volumes", _list)
    router.add("POST", "/volumes/create", _create)
    router.add("POST", "/volumes/prune", _prune)
    router.add("GET", "/volumes/{name}", _inspect)
    router.add("PUT", "/volumes/{name}", _update)
    router.add("DELETE", "/volumes/{name}", _remove)
