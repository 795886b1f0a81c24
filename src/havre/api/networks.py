"""Networks: list, inspect, create, remove, prune, connect, disconnect.

Source: Docker Engine API, "Networks".
"""

from __future__ import annotations

from aiohttp import web
from msgspec import UNSET
from msgspec.structs import replace

from havre.api.call import Call
from havre.api.router import Router
from havre.networks.spec import Network, NetworkSpec
from havre.wire import versions
from havre.wire.networks import ConnectRequest, DisconnectRequest, NetworkCreated, NetworksPruned


async def _list(call: Call) -> web.StreamResponse:
    networks = call.services.networks
    listed = networks.list(call.filters())
    if versions.networks_list_containers(call.version):
        listed = [networks.get(network.id) for network in listed]
    return call.json([_shown(network, call) for network in listed])


async def _inspect(call: Call) -> web.StreamResponse:
    networks = call.services.networks
    network = _shown(networks.get(call.name), call)
    if versions.networks_tell_of_their_use(call.version):
        network = replace(network, status=networks.status(network.id))
    return call.json(network)


def _shown(network: Network, call: Call) -> Network:
    """A network as the client's version knows it."""
    return network if versions.networks_tell_of_ipv4(call.version) else replace(network, enable_ipv4=UNSET)


async def _create(call: Call) -> web.StreamResponse:
    spec = await call.body(NetworkSpec)
    if not versions.networks_tell_of_ipv4(call.version):
        spec.enable_ipv4 = None
    network = await call.settle(call.services.networks.create(spec))
    return call.json(NetworkCreated(id=network.id), 201)


async def _remove(call: Call) -> web.StreamResponse:
    await call.settle(call.services.networks.remove(call.name))
    return call.nothing()


async def _prune(call: Call) -> web.StreamResponse:
    deleted = await call.settle(call.services.networks.prune(call.prune_filters()))
    return call.json(NetworksPruned(networks_deleted=deleted or None))


async def _connect(call: Call) -> web.StreamResponse:
    request = await call.body(ConnectRequest)
    await call.settle(call.services.membership.connect(call.name, request.container, request.endpoint_config))
    return call.nothing(200)


async def _disconnect(call: Call) -> web.StreamResponse:
    request = await call.body(DisconnectRequest)
    await call.settle(call.services.membership.disconnect(call.name, request.container, request.force))
    return call.nothing(200)


def register(router: Router) -> None:
    """Add the routes of networks."""
    router.add("GET", "/networks", _list)
    router.add("GET", "/networks/", _list)
    router.add("POST", "/networks/create", _create)
    router.add("POST", "/networks/prune", _prune)
    router.add("POST", "/networks/{name}/connect", _connect)
    router.add("POST", "/networks/{name}/disconnect", _disconnect)
    router.add("GET", "/networks/{name}", _inspect)
    router.add("DELETE", "/networks/{name}", _remove)
