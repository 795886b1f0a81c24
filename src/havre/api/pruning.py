"""Havre's own: pruning by plan. `GET /system/prune` returns a plan, `POST /system/prune?plan=ID` executes it.

kinds=container,image      the kinds; by default those of `system prune`: all but volumes
all=1 volumes=1 filters=   as for `system prune`
reserved-space=BYTES       and max-used-space, min-free-space as for `builder prune`; keep-storage is the older name
"""

from __future__ import annotations

from aiohttp import web

from havre.api.build import kept_bytes
from havre.api.call import Call
from havre.api.router import Router
from havre.system.pruning import KINDS, Pruning, Scope


async def _pruning(call: Call) -> tuple[Pruning, Scope]:
    services = call.services
    kinds = [kind for kind in KINDS if kind != "volume" or call.flag("volumes")]
    if asked := call.text("kinds"):
        kinds = asked.split(",")
    scope = Scope(kinds=kinds, all=call.flag("all"), keep_bytes=await kept_bytes(call), filters=call.filters())
    pruning = Pruning(services.containers, services.volumes, services.networks, services.images, services.builder)
    return pruning, scope


async def _show(call: Call) -> web.StreamResponse:
    pruning, scope = await _pruning(call)
    return call.json(await pruning.plan(scope))


async def _carry_out(call: Call) -> web.StreamResponse:
    pruning, scope = await _pruning(call)
    return call.json(await call.settle(pruning.carry_out(scope, call.text("plan"))))


def register(router: Router) -> None:
    """Add the routes of plans."""
    router.add("GET", "/system/prune", _show)
    router.add("POST", "/system/prune", _carry_out)
