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
from havre.wire import versions
from havre.wire.accept import match_accepted
from havre.wire.queries import parse_time
from havre.wire.versions import NEWEST, Version

_JSON, _LINES, _NEWLINES = "application/json", "application/jsonl", "application/x-ndjson"
_SEQUENCE = "application/json-seq"
"""Records that each begin with the byte RS (RFC 7464)."""
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
    return call.json(await call.services.system.version(str(NEWEST)))


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
    plain = _JSON if versions.events_repeat_fields(call.version) else _LINES
    content_type = match_accepted(call.request.headers.getall("Accept", []), (_LINES, _NEWLINES, _SEQUENCE)) or plain
    before = b"\x1e" if content_type == _SEQUENCE else b""
    stream = call.services.events.subscribe(call.filters(), since, until)
    try:
        response = await call.stream(content_type)
        async for event in stream:
            if (shown := present_event(event, call.version)) is not None:
                await response.write(before + msgspec.json.encode(shown) + b"\n")
    finally:
        stream.close()
    return response


def _moment(call: Call, name: str) -> float | None:
    value = call.text(name)
    return parse_time(value, name, time.time()) if value else None


def present_event(event: Event, version: Version) -> dict[str, Any] | None:
    """An event as Docker shows it; None if the version does not know it.

    Up to 1.51 some fields of containers' and images' events are repeated at the top level.
    """
    created_image = (event.type, event.action) == ("image", "create")
    if created_image and not versions.events_tell_of_created_images(version):
        return None
    plain: dict[str, Any] = msgspec.to_builtins(event)
    if not versions.events_repeat_fields(version) or event.type not in ("container", "image"):
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
