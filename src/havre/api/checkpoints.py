"""Checkpoints of containers. Source: Docker's "Checkpoint and restore" (experimental), moby's api/server/router."""

from __future__ import annotations

import msgspec
from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router


class CheckpointRequest(msgspec.Struct):
    """The body of a creation."""

    id: str = msgspec.field(name="CheckpointID", default="")
    directory: str = msgspec.field(name="CheckpointDir", default="")
    exit: bool = msgspec.field(name="Exit", default=False)


async def _create(call: Call) -> web.StreamResponse:
    wanted = await call.body(CheckpointRequest)
    work = call.services.checkpoints.create(call.name, wanted.id, wanted.directory, exit=wanted.exit)
    await call.settle(work)
    return call.nothing(201)


async def _list(call: Call) -> web.StreamResponse:
    names = await call.services.checkpoints.list(call.name, call.text("dir"))
    return call.json([{"Name": name} for name in names])


async def _remove(call: Call) -> web.StreamResponse:
    await call.services.checkpoints.remove(call.name, call.fields["checkpoint"], call.text("dir"))
    return call.nothing()


def register(router: Router) -> None:
    """Add the routes of checkpoints, before those of containers, whose `{name}` would match them."""
    router.add("GET", "/containers/{name}/checkpoints", _list)
    router.add("POST", "/containers/{name}/checkpoints", _create)
    router.add("DELETE", "/containers/{name}/checkpoints/{checkpoint}", _remove)
