"""Networks: list, inspect, create, remove, prune, connect, disconnect.

Source: Docker Engine API, "Networks".
"""

from __future__ import annotations

from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router
from havre.engine.model import Value
from havre.engine.network import NetworkSpec
from havre.errors import Unsupported


class MembershipRequest(Value):
    """What the bodies of connect and disconnect have in common."""

    container: str = ""


async def _list(call: Call) -> web.StreamResponse:
    return call.json(call.services.networks.list(call.filters()))


async def _inspect(call: Call) -> web.StreamResponse:
    return call.json(call.services.networks.get(call.name))


async def _create(call: Call) -> web.StreamResponse:
    spec = await call.body(NetworkSpec)
    network = await call.settle(call.services.networks.create(spec))
    return call.json({"Id": network.id, "Warning": ""}, 201)


async def _remove(call: Call) -> web.StreamResponse:
    await call.settle(call.services.networks.remove(call.name))
    return call.nothing()


async def _prune(call: Call) -> web.StreamResponse:
    deleted = await call.settle(call.services.networks.prune(call.filters()))
    return call.json({"NetworksDeleted": list(deleted) or None})


async def _change_membership(call: Call) -> web.StreamResponse:
    request = await call.body(MembershipRequest)
    call.services.containers.get(request.container)
    call.services.networks.get(call.name)
    raise Unsupported(
        "this daemon cannot change the networks of a container", "name them with --network when the container is made"
    )


def register(router: Router) -> None:
    """Add the routes of networks."""
    router.add("GET", "/networks", _list)
    router.add("GET", "/networks/", _list)
    router.add("POST", "/networks/create", _create)
    router.add("POST", "/networks/prune", _prune)
    router.add("POST", "/networks/{name}/connect", _change_membership)
    router.add("POST", "/networks/{name}/disconnect", _change_membership)
    router.add("GET", "/networks/{name}", _inspect)
    router.add("DELETE", "/networks/{name}", _remove)
