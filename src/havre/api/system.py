"""The daemon: ping, version, info, events, login.

Source: Docker Engine API, "System".
"""

from __future__ import annotations

import time
from typing import Any

import msgspec
from aiohttp import web

from havre.api.call import Call
from havre.api.router import Router
from havre.errors import InvalidInput
from havre.events import Event
from havre.registry import Auth
from havre.wire.queries import parse_time
from havre.wire.versions import NEWEST, OLDEST

_PING = {
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Pragma": "no-cache",
    "Swarm": "inactive",
}


async def _ping(call: Call) -> web.StreamResponse:
    call.headers |= _PING | {"Builder-Version": call.services.system.builder_version}
    if call.request.method == "HEAD":
        call.headers["Content-Length"] = "0"
        return call.respond(b"", "text/plain; charset=utf-8")
    return call.respond(b"OK", "text/plain; charset=utf-8")


async def _version(call: Call) -> web.StreamResponse:
    return call.json(await call.services.system.version(str(NEWEST), str(OLDEST)))


async def _info(call: Call) -> web.StreamResponse:
    return call.json(await call.services.system.info())


async def _check(call: Call) -> web.StreamResponse:
    return call.json(await call.services.images.check(repair=call.flag("repair")))


async def _login(call: Call) -> web.StreamResponse:
    identity = await call.services.images.login(await call.body(Auth))
    return call.json({"IdentityToken": identity, "Status": "Login Succeeded"})


async def _events(call: Call) -> web.StreamResponse:
    since, until = _moment(call, "since"), _moment(call, "until")
    if since is not None and until is not None and since > until:
        given = f"`since` time ({call.text('since')}) cannot be after `until` time ({call.text('until')})"
        raise InvalidInput(given)
    stream = call.services.events.subscribe(call.filters(), since, until)
    try:
        response = await call.stream()
        async for event in stream:
            await response.write(msgspec.json.encode(present_event(event)) + b"\n")
    finally:
        stream.close()
    return response


def _moment(call: Call, name: str) -> float | None:
    value = call.text(name)
    return parse_time(value, name, time.time()) if value else None


def present_event(event: Event) -> dict[str, Any]:
    """An event as Docker shows it up to 1.51: for containers and images, some fields are repeated at the top level."""
    plain: dict[str, Any] = msgspec.to_builtins(event)
    if event.type not in ("container", "image"):
        return plain
    front = {"status": event.action, "id": event.actor.id}
    if event.type == "container":
        front["from"] = event.actor.attributes.get("image", "")
    return front | plain


def register(router: Router) -> None:
    """Add the routes of the system."""
    router.add("GET", "/_ping", _ping)
    router.add("HEAD", "/_ping", _ping)
    router.add("GET", "/version", _version)
    router.add("GET", "/info", _info)
    router.add("POST", "/auth", _login)
    router.add("POST", "/system/check", _check)
    router.add("GET", "/events", _events)
