"""Pruning by plan, which Docker has not: `GET /system/prune` shows one, `POST /system/prune?plan=ID` carries it out.

Both take `all`, `volumes` and `filters`, as `system prune` does.
"""

from __future__ import annotations

from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router
from havre.engine.pruning import Pruning, Scope


def _pruning(call: Call) -> tuple[Pruning, Scope]:
    services = call.services
    scope = Scope(all=call.flag("all"), volumes=call.flag("volumes"), filters=call.filters())
    return Pruning(services.containers, services.volumes, services.networks, services.images), scope


async def _show(call: Call) -> web.StreamResponse:
    pruning, scope = _pruning(call)
    return call.json(await pruning.plan(scope))


async def _carry_out(call: Call) -> web.StreamResponse:
    pruning, scope = _pruning(call)
    return call.json(await call.settle(pruning.carry_out(scope, call.text("plan"))))


def register(router: Router) -> None:
    """Add the routes of plans."""
    router.add("GET", "/system/prune", _show)
    router.add("POST", "/system/prune", _carry_out)
