"""Builds by `POST /build?version=2`: BuildKit for clients without gRPC, and docker's before version 23.

    POST /build?version=2&session=S&remote=client-session      directories by the session, as for Control.Solve
                          remote=https://...                   downloaded
                          (no remote), body = a tar            the context
                          remote=upload-request&buildid=B      the tar is in the body of another request:
    POST /build?version=2&buildid=upload-request:B, body = a tar
      --> {"id": "moby.buildkit.trace", "aux": base64(StatusResponse)} ...  {"id": "moby.image.id", "aux": {"ID": ...}}

Source: moby builder/builder-next/builder.go, api/server/router/build; docker/cli 20.10.
"""

from __future__ import annotations

import asyncio
import base64
import secrets
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web
from grpclib.exceptions import GRPCError

from havre.api.buildkit import messages as m
from havre.api.buildkit.control import Control
from havre.api.buildkit.options import FRONTEND, UPLOAD
from havre.api.buildkit.protobuf import encode
from havre.api.call import Call
from havre.api.progress_stream import stream_progress
from havre.builds.request import BuildRequest
from havre.errors import Failed, InvalidInput, NotFound
from havre.golang import gojson
from havre.images.progress import Progress, ProgressLine

_SESSION, _UPLOADED = "client-session", "upload-request"
_TRACE, _IMAGE = "moby.buildkit.trace", "moby.image.id"
_WAIT_S = 5.0  # for the other one of two requests


class _Output(msgspec.Struct, rename="pascal"):
    """An output, as in the API."""

    type: str = ""
    attrs: dict[str, str] | None = None


class _Upload:
    """A context uploaded by one request for another: received, wanted, no longer needed."""

    def __init__(self) -> None:
        self.brought: asyncio.Future[Call] = asyncio.get_running_loop().create_future()
        self.wanted, self.over = asyncio.Event(), asyncio.Event()


class Posted:
    """Such builds of one daemon, on one `Control`."""

    def __init__(self, control: Control) -> None:
        self._control = control
        self._uploads: dict[str, _Upload] = {}

    async def build(self, call: Call, request: BuildRequest) -> web.StreamResponse:
        """Run a build whose query is already parsed."""
        if request.id.startswith(f"{_UPLOADED}:"):
            return await self._receive(call, request.id.removeprefix(f"{_UPLOADED}:"))
        exporters = exporters_of(call.text("outputs"), request.tags)

        async def work(progress: Progress) -> None:
            attrs = attributes_of(request)
            token, remote = secrets.token_hex(16), call.text("remote")
            try:
                if remote in ("", _UPLOADED):
                    body = call if not remote else await self._uploaded(request.id)
                    attrs["context"], self._control.bodies[token] = f"{UPLOAD}{token}", body.upload()
                elif remote != _SESSION:
                    attrs["context"] = remote
                asked = m.SolveRequest(
                    ref=request.id or token,
                    session=call.text("session"),
                    frontend=FRONTEND,
                    frontend_attrs=attrs,
                    exporters=exporters,
                    entitlements=sorted(request.entitlements),
                )
                await self._solve(asked, progress, quiet=call.flag("q"))
            finally:
                self._control.bodies.pop(token, None)
                if (upload := self._uploads.pop(request.id, None)) is not None:
                    upload.over.set()

        return await stream_progress(call, work)

    async def _solve(self, request: m.SolveRequest, progress: Progress, *, quiet: bool) -> None:
        solving = asyncio.ensure_future(self._control.solve(request, {}))
        try:
            async for message in self._control.status(m.StatusRequest(request.ref), {}):
                if not quiet:
                    progress(ProgressLine(id=_TRACE, aux=base64.b64encode(encode(message)).decode()))
            told = (await solving).exporter_response
        except GRPCError as error:
            raise Failed(error.message or error.status.name) from error
        finally:
            solving.cancel()
            await asyncio.gather(solving, return_exceptions=True)
        if (id := told.get("containerimage.config.digest")) is not None:
            progress(ProgressLine(stream=f"{id}\n") if quiet else ProgressLine(id=_IMAGE, aux={"ID": id}))

    async def _uploaded(self, id: str) -> Call:
        """The request with the context of a build."""
        upload = self._uploads.setdefault(id, _Upload())
        upload.wanted.set()
        try:
            async with asyncio.timeout(_WAIT_S):
                return await asyncio.shield(upload.brought)
        except TimeoutError:
            raise NotFound(f"no upload has come for the build {id}") from None

    async def _receive(self, call: Call, id: str) -> web.StreamResponse:
        """Lend this request's body to the build that waits for it, until the build ends."""
        upload = self._uploads.setdefault(id, _Upload())
        if upload.brought.done():
            raise InvalidInput(f"there is an upload for the build {id} already")
        upload.brought.set_result(call)
        try:
            async with asyncio.timeout(_WAIT_S):
                await upload.wanted.wait()
        except TimeoutError:
            raise NotFound(f"no build {id} wants the upload") from None
        finally:
            if not upload.wanted.is_set():
                self._uploads.pop(id, None)
        await upload.over.wait()
        return call.nothing(200)


def attributes_of(request: BuildRequest) -> dict[str, str]:
    """The options of the Dockerfile frontend for a classic query."""
    texts = {
        "filename": request.dockerfile,
        "target": request.target,
        "platform": request.platform,
        "force-network-mode": request.network,
        "cgroup-parent": request.cgroup_parent,
        "cache-from": ",".join(source.ref for source in request.cache_from),
        "add-hosts": ",".join(request.extra_hosts),
        "shm-size": str(request.shm_size or ""),
        "ulimit": ",".join(f"{each.name}={each.soft}:{each.hard}" for each in request.ulimits),
        "image-resolve-mode": "pull" if request.pull else "",
    }
    attrs = {name: text for name, text in texts.items() if text}
    attrs |= {f"build-arg:{name}": value for name, value in request.build_args.items() if value is not None}
    attrs |= {f"label:{name}": value for name, value in request.labels.items()}
    return attrs | ({"no-cache": ""} if request.no_cache else {})


def exporters_of(text: str, tags: tuple[str, ...]) -> list[m.Exporter]:
    """The exporter in the query's `outputs`; only the first counts. InvalidInput."""
    given = text.strip() not in ("", "null")
    outputs = gojson.decode(text, list[_Output], "invalid outputs specified") if given else []
    first = outputs[0] if outputs else _Output("moby")
    if first.type == "cacheonly":
        return []
    attrs: Mapping[str, Any] = first.attrs or {}
    named = {"name": ",".join(tags)} if tags and first.type in ("moby", "image") else {}
    return [m.Exporter(first.type, {**attrs, **named})]
