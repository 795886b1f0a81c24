"""Authorization plugins: they approve each request before it is handled, and each response before it is sent.

    client --request--> AuthZPlugin.AuthZReq of each plugin --> handler --> AuthZPlugin.AuthZRes of each --> client
                         anything but {"Allow": true} refuses                   likewise: 403 replaces the response

Fails closed: a plugin that is missing, times out, fails or returns invalid data refuses. JSON bodies are shown in
full, and the handler reads exactly the bytes shown (`Call.show_body`). A body above the limit is refused without
asking (CVE-2024-41110 and CVE-2026-34040 were bodies that plugins did not see), as is, when read, one with a
duplicate key, which a plugin might parse differently. Other bodies, such as build contexts, and those of /auth,
which have a password, are not shown, as with dockerd.

Streamed responses and hijacked connections are approved before their head is sent, without the body; dockerd asks
when they are complete, when a refusal has no effect. gRPC calls of BuildKit clients on the connection of `POST
/grpc` are not shown, as with dockerd; a policy for builds has to refuse that request.

Source: Docker's documentation, "Access authorization plugin"; moby's pkg/authorization.
"""

from __future__ import annotations

import logging
import ssl
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from aiohttp import web

from havre.api.call import JSON, Call
from havre.api.router import Handler
from havre.errors import Failed, Forbidden, HavreError
from havre.plugins import Plugins
from havre.wire.decode import is_json

log = logging.getLogger(__name__)

KIND = "authz"
_UNSHOWN_HEADERS = ("authorization", "x-registry-config", "x-registry-auth")
_NOT_HEADERS = ("host", "transfer-encoding")  # not in the Header map of Go's http.Request

Shown: TypeAlias = dict[str, Any]


class Authorization:
    """The daemon's chain of plugins."""

    def __init__(self, plugins: Plugins, names: Sequence[str]) -> None:
        self._plugins = plugins
        self._names: tuple[str, ...] = ()
        self.use(names)

    @property
    def active(self) -> bool:
        """Report whether any plugin is configured."""
        return bool(self._names)

    def use(self, names: Sequence[str]) -> None:
        """Use these plugins from now on, in this order."""
        self._names = tuple(dict.fromkeys(names))

    async def check(self, names: Sequence[str]) -> None:
        """Check that each plugin exists and responds. Failed, naming it."""
        for name in names:
            try:
                await self._plugins.get(name, KIND)
            except HavreError as error:
                raise Failed(
                    f"failed to validate authorization plugin: {name}: {error.message}",
                    error.hint or "without its plugins the daemon would refuse all requests",
                ) from error

    async def handle(self, call: Call, path: str, handler: Handler) -> web.StreamResponse:
        """The handler's response, if all plugins allow the request and the response. Forbidden, Failed."""
        shown = await _describe(call, path)
        await self._ask("AuthZPlugin.AuthZReq", shown)
        asked = False

        async def approve(status: int, headers: Mapping[str, str], body: bytes = b"") -> None:
            nonlocal asked
            asked = True
            await self._ask("AuthZPlugin.AuthZRes", _with_answer(shown, path, status, headers, body))

        call.approve = approve
        try:
            answer = await handler(call)
        except HavreError as error:
            if not asked:
                await _of_failure(approve, call, error)
            raise
        if not asked:
            body = answer.body if isinstance(answer, web.Response) and isinstance(answer.body, bytes) else b""
            await approve(answer.status, answer.headers, body)
        return answer

    async def _ask(self, method: str, shown: Shown) -> None:
        for name in self._names:
            try:
                plugin = await self._plugins.get(name, KIND)
                verdict = await plugin.call(method, shown)
            except HavreError as error:
                log.error("%s of %s %s: %s", method, shown["RequestMethod"], shown["RequestUri"], error)
                raise Failed(f"plugin {name} failed with error: {error.message}", error.hint) from error
            folded = {key.lower(): value for key, value in verdict.items()}
            if folded.get("allow") is not True:
                raise Forbidden(f"authorization denied by plugin {name}: {folded.get('msg') or ''}")


async def _of_failure(approve: Any, call: Call, error: HavreError) -> None:
    """Report an error to the plugins. As with dockerd, their verdict cannot replace it."""
    body = msgspec.json.encode({"message": error.message}) + b"\n"
    try:
        await approve(error.status, call.headers | {"Content-Type": JSON}, body)
    except HavreError as refused:
        log.info("%s %s failed, and %s", call.request.method, call.request.path, refused.message)


async def _describe(call: Call, path: str) -> Shown:
    request = call.request
    shown: Shown = {
        **_peer(request),
        "RequestMethod": request.method,
        "RequestUri": _as_text(request.raw_path),
        "RequestHeaders": _headers(request.headers),
    }
    if path == "/auth":
        call.may_read_unseen = True
    elif is_json(request.headers.get("Content-Type", "")) and (body := await call.show_body()):
        shown["RequestBody"] = body
    return shown


def _with_answer(shown: Shown, path: str, status: int, headers: Mapping[str, str], body: bytes) -> Shown:
    told = shown | {"ResponseStatusCode": status, "ResponseHeaders": _headers(headers)}
    if body and path != "/auth" and is_json(headers.get("Content-Type", "")):
        told["ResponseBody"] = body
    return told


def _headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Header names as Go spells them; the last of repeated ones counts, credentials are omitted."""
    return {
        "-".join(part.capitalize() for part in name.split("-")): _as_text(value)
        for name, value in headers.items()
        if name.lower() not in _UNSHOWN_HEADERS + _NOT_HEADERS
    }


def _as_text(value: str) -> str:
    """Replace invalid UTF-8, as Go's JSON encoder does."""
    return value.encode("utf-8", "surrogateescape").decode("utf-8", "replace")


def _peer(request: web.BaseRequest) -> Shown:
    """The client's certificates and the common name; empty without TLS."""
    transport = request.transport
    connection = None if transport is None else transport.get_extra_info("ssl_object")
    if connection is None or not (certificate := connection.getpeercert(True)):
        return {}
    names = [value for each in (connection.getpeercert() or {}).get("subject", ()) for key, value in each
             if key == "commonName"]  # fmt: skip
    pem = ssl.DER_cert_to_PEM_cert(certificate).encode()
    return {"User": names[-1] if names else "", "UserAuthNMethod": "TLS", "RequestPeerCertificates": [pem]}
