"""Volumes: list, inspect, create, remove, prune; and havre's own: rename, clone, export, import.

Source: Docker Engine API, "Volumes".
"""

from __future__ import annotations

from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router
from havre.api.swarm import NOT_A_MANAGER
from havre.errors import Unavailable
from havre.volumes.copies import VolumeCopies
from havre.wire.volumes import VolumeList, VolumeRequest, VolumesPruned


async def _list(call: Call) -> web.StreamResponse:
    volumes, warnings = await call.services.volumes.list(call.filters())
    return call.json(VolumeList(volumes=volumes, warnings=warnings or None))


async def _inspect(call: Call) -> web.StreamResponse:
    return call.json(await call.services.volumes.inspect(call.name))


async def _create(call: Call) -> web.StreamResponse:
    request = await call.optional_body(VolumeRequest)
    if request.cluster_volume_spec is not None and call.version >= (1, 42):
        raise Unavailable(NOT_A_MANAGER)
    volumes = call.services.volumes
    work = volumes.create(request.name or None, request.driver, request.driver_opts, request.labels)
    volume, _ = await call.settle(work)
    return call.json(volume, 201)


async def _update(call: Call) -> web.StreamResponse:
    raise Unavailable("volume update only valid for cluster volumes, but swarm is unavailable")


async def _remove(call: Call) -> web.StreamResponse:
    await call.settle(call.services.volumes.remove(call.name, force=call.flag("force")))
    return call.nothing()


async def _prune(call: Call) -> web.StreamResponse:
    filters = call.filters()
    if call.version < (1, 42):  # before 1.42 named volumes were pruned, too
        filters.setdefault("all", ["true"])
    pruned = await call.settle(call.services.volumes.prune(filters))
    return call.json(VolumesPruned(volumes_deleted=pruned.deleted, space_reclaimed=pruned.reclaimed))


async def _rename(call: Call) -> web.StreamResponse:
    return call.json(await call.settle(call.services.volumes.rename(call.name, call.text("name"))))


async def _clone(call: Call) -> web.StreamResponse:
    copies = VolumeCopies(call.services.volumes)
    return call.json(await call.settle(copies.clone(call.name, call.text("name"))), 201)


async def _export(call: Call) -> web.StreamResponse:
    zstd = call.flag("zstd")
    async with VolumeCopies(call.services.volumes).exporting(call.name, zstd=zstd) as pieces:
        response = await call.stream("application/zstd" if zstd else "application/x-tar")
        async for piece in pieces:
            await response.write(piece)
    return response


async def _import(call: Call) -> web.StreamResponse:
    return call.json(await VolumeCopies(call.services.volumes).import_(call.name, call.upload()), 201)


def register(router: Router) -> None:
    """Add the routes of volumes."""
    router.add("GET", "/volumes", _list)
    router.add("POST", "/volumes/create", _create)
    router.add("POST", "/volumes/prune", _prune)
    router.add("POST", "/volumes/{name}/rename", _rename)
    router.add("POST", "/volumes/{name}/clone", _clone)
    router.add("GET", "/volumes/{name}/export", _export)
    router.add("POST", "/volumes/{name}/import", _import)
    router.add("GET", "/volumes/{name}", _inspect)
    router.add("PUT", "/volumes/{name}", _update)
    router.add("DELETE", "/volumes/{name}", _remove)
