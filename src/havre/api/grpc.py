"""The endpoints of BuildKit's gRPC, used by buildx and compose.

    POST /grpc     Upgrade: h2c    the client calls Control and LLBBridge on the connection
    POST /session  Upgrade: h2c    we call the client: its files, credentials, secrets

The services are imported at the first build, as many daemons never run one and gRPC costs megabytes.

Source: moby's api/server/router/grpc and session; moby/buildkit session/manager.go.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from aiohttp import web

from havre.api.call import Call
from havre.api.hijack import Taken, give_over
from havre.api.router import Router
from havre.errors import InvalidInput

if TYPE_CHECKING:
    from havre.api.buildkit.control import Control
    from havre.api.buildkit.posted import Posted
    from havre.api.buildkit.sessions import Sessions
    from havre.api.services import Services
    from havre.builds.request import BuildRequest

_PROTOCOL = "h2c"
_HEAD = b"HTTP/1.1 101 UPGRADED\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
_EXPOSED = "X-Docker-Expose-Session-"


class Doors:
    """The handlers, and the state shared by the connections of one daemon."""

    def __init__(self) -> None:
        self._behind: tuple[Control, Sessions, Posted] | None = None

    def _open(self, services: Services) -> tuple[Control, Sessions, Posted]:
        if self._behind is None:
            from havre.api.buildkit.control import Control
            from havre.api.buildkit.posted import Posted
            from havre.api.buildkit.sessions import Sessions

            sessions = Sessions()
            control = Control(services.builder, services.images, services.contexts, services.outputs, sessions)
            self._behind = control, sessions, Posted(control)
        return self._behind

    async def posted(self, call: Call, request: BuildRequest) -> web.StreamResponse:
        """Run a `POST /build?version=2`."""
        return await self._open(call.services)[2].build(call, request)

    async def grpc(self, call: Call) -> web.StreamResponse:
        """Serve the client's calls until the connection closes."""
        _check_upgrade(call)
        await call.announce(101, "")
        control, *_ = self._open(call.services)
        from havre.api.buildkit.http2 import server_protocol

        return await _hold(call, server_protocol(control.routes()))

    async def session(self, call: Call) -> web.StreamResponse:
        """Keep the client's session, on which builds call it, until the connection closes."""
        _check_upgrade(call)
        await call.announce(101, "")  # before a build can find the session, which must be connected then
        _, sessions, _ = self._open(call.services)
        from havre.api.buildkit.http2 import Channel
        from havre.api.buildkit.sessions import Session

        headers = call.request.headers
        channel = Channel()
        session = Session(
            headers.get(_EXPOSED + "Uuid", ""),
            headers.get(_EXPOSED + "Sharedkey", ""),
            headers.getall(_EXPOSED + "Grpc-Method", []),
            channel,
        )
        try:
            async with sessions.opened(session):
                return await _hold(call, channel.make_protocol())
        finally:
            channel.close()


def _check_upgrade(call: Call) -> None:
    asked = call.request.headers.get("Upgrade")
    if not asked:
        raise InvalidInput("no upgrade proto in request")
    if asked != _PROTOCOL:
        raise InvalidInput(f"protocol {asked} not supported")


async def _hold(call: Call, protocol: Any) -> web.StreamResponse:
    """Hand the connection to `protocol`. Cancelled when the client disconnects."""
    transport = give_over(call.request, _HEAD, protocol)
    try:
        await asyncio.get_running_loop().create_future()
    finally:
        transport.close()
    return Taken()


def register(router: Router, doors: Doors) -> None:
    """Add the two endpoints."""
    router.add("POST", "/session", doors.session)
    router.add("POST", "/grpc", doors.grpc)
