"""Swarm's endpoints, as answered by a node that is not in a swarm."""

from __future__ import annotations

from typing import Any

from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router
from havre.errors import Unavailable

NOT_A_MANAGER = (
    'This node is not a swarm manager. Use "docker swarm init" or "docker swarm join" to connect this node to swarm '
    "and try again."
)
_WITH_BODY = ("/swarm/update", "/swarm/unlock", "/services/create", "/secrets/create", "/configs/create")
_ROUTES = """
GET /swarm
GET /swarm/unlockkey
GET /nodes
GET /nodes/{name}
DELETE /nodes/{name}
POST /nodes/{name}/update
GET /services
GET /services/{name}/logs
GET /services/{name}
DELETE /services/{name}
POST /services/{name}/update
GET /tasks
GET /tasks/{name}/logs
GET /tasks/{name}
GET /secrets
GET /secrets/{name}
DELETE /secrets/{name}
POST /secrets/{name}/update
GET /configs
GET /configs/{name}
DELETE /configs/{name}
POST /configs/{name}/update
"""


async def _not_a_manager(call: Call) -> web.StreamResponse:
    raise Unavailable(NOT_A_MANAGER)


async def _not_a_manager_for(call: Call) -> web.StreamResponse:
    await call.body(dict[str, Any])
    raise Unavailable(NOT_A_MANAGER)


async def _leave(call: Call) -> web.StreamResponse:
    raise Unavailable("This node is not part of a swarm")


async def _cannot_join(call: Call) -> web.StreamResponse:
    await call.body(dict[str, Any])
    raise Unavailable("swarm mode is not available on this daemon")


def register(router: Router) -> None:
    """Add swarm's routes."""
    for line in _ROUTES.split("\n"):
        if line:
            method, pattern = line.split()
            router.add(method, pattern, _not_a_manager)
    for path in _WITH_BODY:
        router.add("POST", path, _not_a_manager_for)
    router.add("POST", "/swarm/leave", _leave)
    router.add("POST", "/swarm/init", _cannot_join)
    router.add("POST", "/swarm/join", _cannot_join)
