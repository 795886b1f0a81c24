"""The registry's HTTP server.

    GET              /v2/
    GET HEAD DELETE  /v2/NAME/blobs/DIGEST            POST  /v2/NAME/blobs/uploads/[?mount=&from= | ?digest=]
    GET PATCH PUT DELETE  /v2/NAME/blobs/uploads/ID   GET HEAD PUT DELETE  /v2/NAME/manifests/REFERENCE
    GET              /v2/NAME/tags/list               GET   /v2/NAME/referrers/DIGEST      GET  /v2/_catalog
    GET              /token (with token authentication)

Errors are the specification's JSON documents. Cross-origin requests of browsers are refused first, then the `gate`
decides. `read_only` refuses all changes, as does `upstream`, the registry from which missing content is fetched.

Source: OCI distribution specification 1.1; `_catalog` is Docker's.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Awaitable, Callable, Mapping
from contextlib import aclosing
from typing import Any

import msgspec
from aiohttp import web
from yarl import URL

from havre.aio import in_thread
from havre.distribution.gates import CATALOG, Gate, Scope, refused
from havre.distribution.incoming import Incoming
from havre.distribution.repositories import (
    ManifestRow,
    RegistryRefusal,
    Repositories,
    check_name,
    check_tag,
    missing,
    page_of,
)
from havre.distribution.tokens import TOKEN_PATH, TokenGate
from havre.distribution.uploads import Upload, Uploads
from havre.distribution.upstream import Upstream
from havre.errors import HavreError, InvalidInput
from havre.oci import mediatypes
from havre.oci.digest import SHA256, Digest, algorithm_of, digest_of, parse_any_digest
from havre.oci.manifest import MAX_DOCUMENT, Descriptor, Manifest, decode_document
from havre.registry import Registry
from havre.wire.origin import is_foreign_page

_PATH = re.compile(r"/v2/(?P<name>.+)/(?P<kind>blobs/uploads|blobs|manifests|tags|referrers)/(?P<rest>[^/]*)")
_READS = ("GET", "HEAD")
_OCTETS = "application/octet-stream"

log = logging.getLogger(__name__)

Handler = Callable[["Server", web.BaseRequest, str, str], Awaitable[web.StreamResponse]]


class Server:
    """Serves the repositories; pass `handle` to an aiohttp server."""

    def __init__(
        self,
        repositories: Repositories,
        *,
        read_only: bool = False,
        registry: Registry | None = None,
        upstream: str = "",
        gate: Gate | None = None,
    ) -> None:
        self._gate = gate
        self._repositories = repositories
        self._uploads = Uploads(repositories)
        self._read_only = read_only or bool(upstream)
        self._upstream = Upstream(registry, upstream, repositories, self._uploads) if registry and upstream else None

    async def handle(self, request: web.BaseRequest) -> web.StreamResponse:
        """Handle one request."""
        try:
            return await self._route(request)
        except RegistryRefusal as refusal:
            response = _refusal(refusal.http_status, refusal.code, refusal.message)
            response.headers.update(refusal.headers)
            return response
        except InvalidInput as error:
            return _refusal(400, "MANIFEST_INVALID", error.message)
        except HavreError as error:
            return _refusal(500, "UNKNOWN", error.message)

    async def _route(self, request: web.BaseRequest) -> web.StreamResponse:
        path, method = request.path, request.method
        if is_foreign_page(request.headers):
            raise RegistryRefusal(403, "DENIED", "cross-origin requests are refused")
        match = _PATH.fullmatch(path)
        if isinstance(self._gate, TokenGate) and (path, method) == (TOKEN_PATH, "GET"):
            return _answer(200, await self._gate.issue(request))
        if self._gate is not None:
            needed = _needed(request, match["name"] if match else "")
            if not await self._gate.allows(request, needed):
                raise refused(self._gate.challenge(request, needed))
        if self._read_only and method not in _READS:
            raise RegistryRefusal(405, "UNSUPPORTED", "this registry is read-only")
        if path in ("/v2", "/v2/"):
            return _answer(200, {})
        if path == "/v2/_catalog":
            names = await in_thread(self._repositories.names)
            return _page(request, "repositories", {}, names)
        handler = _ROUTES.get((match["kind"], method)) if match else None
        if match is None or handler is None:
            raise RegistryRefusal(404 if match is None else 405, "UNSUPPORTED", "the operation is unsupported")
        return await handler(self, request, check_name(match["name"]), match["rest"])

    # -- blobs

    async def _get_blob(self, request: web.BaseRequest, name: str, text: str) -> web.StreamResponse:
        digest = _digest(text)
        if self._upstream is not None:
            if (lacking := await self._upstream.lacking(name, digest)) is not None:
                if request.method == "HEAD":
                    return web.Response(headers={**_blob_headers(digest), "Content-Length": str(lacking.size)})
                incoming = self._upstream.fetch(name, lacking)
                if "Range" not in request.headers:
                    return await _pass_on(request, incoming, lacking)
                await incoming.whole()
        elif request.method == "HEAD" and not self._read_only:
            async with self._repositories.turns.writing():
                self._repositories.touch_blob(name, digest)
        file = self._repositories.require_blob(name, digest)
        return web.FileResponse(file, headers=_blob_headers(digest))

    async def _delete_blob(self, request: web.BaseRequest, name: str, text: str) -> web.StreamResponse:
        async with self._repositories.turns.writing():
            self._repositories.unlink_blob(name, _digest(text))
        return _answer(202)

    async def _begin_upload(self, request: web.BaseRequest, name: str, text: str) -> web.StreamResponse:
        query = request.query
        if "mount" in query:
            digest, source = _digest(query["mount"]), query.get("from", "")
            if source and await self._mount(request, name, check_name(source), digest):
                return _created(f"/v2/{name}/blobs/{digest}", digest)
        upload = self._uploads.begin(name)
        if "digest" in query:
            return await self._complete(request, upload, _digest(query["digest"]))
        return _progress(202, upload)

    async def _mount(self, request: web.BaseRequest, name: str, source: str, digest: Digest) -> bool:
        """Link a blob of `source` to `name`; returns False if it is missing or not readable, so that the client
        uploads it."""
        if self._gate is not None and not await self._gate.allows(request, [Scope.of("GET", source)]):
            return False
        async with self._repositories.turns.writing():
            if held := self._repositories.holds_blob(source, digest):
                self._repositories.link_blob(name, digest)
        return held

    async def _patch_upload(self, request: web.BaseRequest, name: str, id: str) -> web.StreamResponse:
        upload = self._uploads.find(name, id)
        await self._uploads.append(upload, request.content.iter_any(), _start(request))
        return _progress(202, upload)

    async def _put_upload(self, request: web.BaseRequest, name: str, id: str) -> web.StreamResponse:
        return await self._complete(request, self._uploads.find(name, id), _digest(request.query.get("digest", "")))

    async def _get_upload(self, request: web.BaseRequest, name: str, id: str) -> web.StreamResponse:
        return _progress(204, self._uploads.find(name, id))

    async def _delete_upload(self, request: web.BaseRequest, name: str, id: str) -> web.StreamResponse:
        self._uploads.cancel(self._uploads.find(name, id))
        return _answer(204)

    async def _complete(self, request: web.BaseRequest, upload: Upload, digest: Digest) -> web.StreamResponse:
        await self._uploads.append(upload, request.content.iter_any(), _start(request))
        await self._uploads.finish(upload, digest)
        return _created(f"/v2/{upload.name}/blobs/{digest}", digest)

    # -- manifests

    async def _get_manifest(self, request: web.BaseRequest, name: str, reference: str) -> web.StreamResponse:
        reference = _reference(reference)
        if self._upstream is not None:
            await self._upstream.refresh_manifest(name, reference)
        digest, row = self._repositories.resolve(name, reference)
        headers = {"Docker-Content-Digest": digest, "Content-Type": row.media_type, "ETag": f'"{digest}"'}
        if request.method == "HEAD":
            return web.Response(headers={**headers, "Content-Length": str(row.size)})
        return web.Response(body=await self._repositories.blobs.read(digest), headers=headers)

    async def _put_manifest(self, request: web.BaseRequest, name: str, reference: str) -> web.StreamResponse:
        reference = _reference(reference)
        body = await _read(request)
        by_digest = ":" in reference
        algorithm = algorithm_of(Digest(reference)) if by_digest else SHA256
        digest = digest_of(body, algorithm)
        if by_digest and reference != digest:
            raise RegistryRefusal(400, "DIGEST_INVALID", "provided digest did not match uploaded content")
        document = decode_document(body, request.headers.get("Content-Type", ""), parse_any_digest)
        row = ManifestRow.of(body, document.media_type)
        async with self._repositories.turns.writing():
            self._check_parts(name, document)
            await self._repositories.blobs.add(body, algorithm)
            self._repositories.put_manifest(name, digest, row, None if by_digest else reference)
        response = _created(f"/v2/{name}/manifests/{digest}", digest)
        if row.subject:
            response.headers["OCI-Subject"] = row.subject
        return response

    def _check_parts(self, name: str, document: Any) -> None:
        """Refuse a manifest whose blobs, or an index whose manifests, are missing."""
        if isinstance(document, Manifest):
            blobs = [
                one.digest for one in (document.config, *document.layers) if not mediatypes.is_foreign(one.media_type)
            ]
            if lacking := missing(self._repositories, name, blobs):
                raise RegistryRefusal(404, "MANIFEST_BLOB_UNKNOWN", f"blob unknown to registry: {lacking[0]}")
            return
        for entry in document.manifests:
            self._repositories.resolve(name, entry.digest)

    async def _delete_manifest(self, request: web.BaseRequest, name: str, reference: str) -> web.StreamResponse:
        reference = _reference(reference)
        async with self._repositories.turns.writing():
            if ":" in reference:
                self._repositories.remove_manifest(name, Digest(reference))
            else:
                self._repositories.remove_tag(name, reference)
        return _answer(202)

    async def _tags(self, request: web.BaseRequest, name: str, text: str) -> web.StreamResponse:
        if text != "list":
            raise RegistryRefusal(404, "UNSUPPORTED", "the operation is unsupported")
        return _page(request, "tags", {"name": name}, self._repositories.tags(name))

    async def _referrers(self, request: web.BaseRequest, name: str, text: str) -> web.StreamResponse:
        wanted = request.query.get("artifactType", "")
        found = [
            Descriptor(row.media_type, digest, row.size, annotations=row.annotations, artifact_type=row.artifact_type)
            for digest, row in self._repositories.referrers(name, _digest(text))
            if wanted in ("", row.artifact_type)
        ]
        index = {"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": found}
        response = _answer(200, index, content_type=mediatypes.OCI_INDEX)
        if wanted:
            response.headers["OCI-Filters-Applied"] = "artifactType"
        return response


_ROUTES: Mapping[tuple[str, str], Handler] = {
    ("blobs", "GET"): Server._get_blob,
    ("blobs", "HEAD"): Server._get_blob,
    ("blobs", "DELETE"): Server._delete_blob,
    ("blobs/uploads", "POST"): Server._begin_upload,
    ("blobs/uploads", "PATCH"): Server._patch_upload,
    ("blobs/uploads", "PUT"): Server._put_upload,
    ("blobs/uploads", "GET"): Server._get_upload,
    ("blobs/uploads", "DELETE"): Server._delete_upload,
    ("manifests", "GET"): Server._get_manifest,
    ("manifests", "HEAD"): Server._get_manifest,
    ("manifests", "PUT"): Server._put_manifest,
    ("manifests", "DELETE"): Server._delete_manifest,
    ("tags", "GET"): Server._tags,
    ("referrers", "GET"): Server._referrers,
}


def _blob_headers(digest: Digest) -> dict[str, str]:
    return {"Docker-Content-Digest": digest, "Content-Type": _OCTETS}


async def _pass_on(request: web.BaseRequest, incoming: Incoming, blob: Descriptor) -> web.StreamResponse:
    """Stream a blob that is still arriving; if its download fails, abort the response."""
    response = web.StreamResponse(headers={**_blob_headers(blob.digest), "Content-Length": str(blob.size)})
    async with aclosing(incoming.pieces()) as pieces:
        first = await anext(pieces)
        await response.prepare(request)
        try:
            await response.write(first)
            async for piece in pieces:
                await response.write(piece)
        except HavreError as error:
            log.warning("streaming blob %s failed: %s", blob.digest, error)
            if request.transport is not None:
                request.transport.abort()
            return response
    await response.write_eof()
    return response


def _needed(request: web.BaseRequest, name: str) -> list[Scope]:
    """The scopes of a request; none for /v2/, which only needs an account."""
    if name:
        return [Scope.of(request.method, name)]
    return [CATALOG] if request.path == "/v2/_catalog" else []


def _digest(text: str) -> Digest:
    try:
        return parse_any_digest(text)
    except InvalidInput as error:
        raise RegistryRefusal(400, "DIGEST_INVALID", error.message) from error


def _reference(text: str) -> str:
    return _digest(text) if ":" in text else check_tag(text)


def _start(request: web.BaseRequest) -> int | None:
    """The start of a chunk (`Content-Range: 0-99`); None without the header."""
    value = request.headers.get("Content-Range", "").removeprefix("bytes ")
    if not value:
        return None
    start = value.partition("-")[0]
    if not start.isdecimal() or len(start) > 15:
        raise RegistryRefusal(400, "BLOB_UPLOAD_INVALID", f"malformed Content-Range {value[:100]!r}")
    return int(start)


async def _read(request: web.BaseRequest) -> bytes:
    body = bytearray()
    async for chunk in request.content.iter_any():
        body += chunk
        if len(body) > MAX_DOCUMENT:
            raise RegistryRefusal(
                413, "MANIFEST_INVALID", f"manifests of more than {MAX_DOCUMENT} bytes are not accepted"
            )
    return bytes(body)


def _page(request: web.BaseRequest, key: str, head: dict[str, Any], entries: list[str]) -> web.Response:
    """A listing by `n` and `last`, with a Link to the next page."""
    wish = request.query.get("n", "")
    if wish and not (wish.isdecimal() and len(wish) < 8):
        raise RegistryRefusal(400, "PAGINATION_NUMBER_INVALID", f"invalid number of results requested: {wish[:100]!r}")
    shown, more = page_of(entries, request.query.get("last", ""), int(wish) if wish else None)
    response = _answer(200, {**head, key: shown})
    if more and shown:
        onward = URL.build(path=request.path, query={"last": shown[-1], "n": wish})
        response.headers["Link"] = f'<{onward}>; rel="next"'
    return response


def _progress(status: int, upload: Upload) -> web.Response:
    headers = {
        "Location": f"/v2/{upload.name}/blobs/uploads/{upload.id}",
        "Range": f"0-{max(upload.size - 1, 0)}",
        "Docker-Upload-UUID": upload.id,
    }
    return web.Response(status=status, headers=headers)


def _created(location: str, digest: Digest) -> web.Response:
    return web.Response(status=201, headers={"Location": location, "Docker-Content-Digest": digest})


def _answer(status: int, value: Any = None, *, content_type: str = "application/json") -> web.Response:
    body = b"" if value is None else msgspec.json.encode(value)
    headers = {"Content-Type": content_type, "Docker-Distribution-API-Version": "registry/2.0"}
    return web.Response(status=status, body=body, headers=headers)


def _refusal(status: int, code: str, message: str) -> web.Response:
    return _answer(status, {"errors": [{"code": code, "message": message, "detail": None}]})
