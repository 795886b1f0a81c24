"""The registry client: manifests, blobs, tags, uploads and logins, by the OCI distribution specification.

Everything fetched is verified: a manifest by its digest, a blob's length by its descriptor (its receiver verifies the
digest while it streams). Interrupted downloads are resumed. Nothing is written to disk.

Source: OCI distribution specification 1.1.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TypeVar

import aiohttp
import msgspec
from yarl import URL

from havre.errors import Failed, HavreError, InvalidInput, NotFound, Unauthorized
from havre.golang import gojson
from havre.oci import mediatypes
from havre.oci.digest import Digest, digest_of
from havre.oci.manifest import MAX_DOCUMENT, Descriptor, Index, decode_document
from havre.oci.reference import Reference
from havre.registry.auth import Auth
from havre.registry.endpoints import Endpoint, RegistryConfig, endpoints_for, host_of_address, parse_url
from havre.registry.limits import Limits
from havre.registry.search import FoundRepository, search_index, split_term
from havre.registry.transport import (
    RegistryError,
    Target,
    Transport,
    as_asked,
    backoff_s,
    in_words,
    read_document,
)
from havre.registry.upload import Uploads

_ACCEPT = ", ".join((*mediatypes.MANIFESTS, *mediatypes.INDEXES, *mediatypes.SCHEMA1))
_PAGE = 1000
_MAX_PAGES = 1000
_MAX_LISTING = 64 << 20  # total of all pages, in bytes: about a million tags
_MIN_PROGRESS = 64 << 10  # progress, in bytes, that resets the retry count
_NEXT = re.compile(r"\s*<([^>]*)>\s*;\s*rel=\"?next\"?\s*")

T = TypeVar("T")


class _TooSlow(Failed):
    """A download below the minimum rate."""


@dataclass(frozen=True, slots=True)
class Fetched:
    """A manifest or index as received: digest, declared media type, bytes."""

    digest: Digest
    media_type: str
    body: bytes


class _Tags(msgspec.Struct):
    tags: list[str] | None = None


class _Catalog(msgspec.Struct):
    repositories: list[str] | None = None


class Registry:
    """Client of all registries: each reference names its own."""

    def __init__(self, config: RegistryConfig) -> None:
        self._config = config
        self._transport = Transport(config)
        self.uploads = Uploads(self._transport)

    def reconfigure(self, config: RegistryConfig) -> None:
        """Change mirrors and insecure registries for later requests."""
        self._config = config

    def trusting(self, registry: str) -> Registry:
        """A client, to be closed, that also trusts `registry` without TLS or with any certificate."""
        return Registry(replace(self._config, insecure=(*self._config.insecure, registry)))

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.close()

    async def manifest(self, ref: Reference, auth: Auth | None = None, *, once: bool = False) -> Fetched:
        """Fetch and verify the manifest or index of `ref`. Raises `NotFound` in Docker's words, `Unauthorized`,
        `Failed`.

        `once`: no retries.
        """
        fetched = await self._from_any(ref, auth, lambda target: self._manifest(replace(target, once=once), ref))
        if ref.digest is not None and fetched.digest != ref.digest:
            raise Failed(f"manifest verification failed for digest {ref.digest}", "the registry sent other content")
        return fetched

    async def document(
        self, ref: Reference, descriptor: Descriptor, auth: Auth | None, limit: int, *, once: bool = False
    ) -> bytes:
        """Fetch and verify a small blob (an image configuration) of at most `limit` bytes; `once` as for manifests."""
        if descriptor.size > limit:
            raise InvalidInput(f"blob {descriptor.digest} of {descriptor.size} bytes", f"at most {limit} are accepted")
        body = b"".join([chunk async for chunk in self.blob(ref, descriptor, auth, once=once)])
        if digest_of(body) != descriptor.digest:
            raise Failed(f"filesystem layer verification failed for digest {descriptor.digest}")
        return body

    async def blob(
        self, ref: Reference, descriptor: Descriptor, auth: Auth | None = None, *, once: bool = False
    ) -> AsyncGenerator[bytes, None]:
        """Yield the `descriptor.size` bytes of a blob; resumes interrupted downloads while they make progress."""
        target = await self._holder(ref, descriptor, auth, once=once)
        path: str | URL = f"{ref.repository}/blobs/{descriptor.digest}"
        done, failures = 0, 0
        while done < descriptor.size:
            before = done
            try:
                async for chunk in self._read(target, path, descriptor, done):
                    done += len(chunk)
                    yield chunk
            except _TooSlow:
                raise
            except Failed:
                failures = 1 if done - before >= _MIN_PROGRESS else failures + 1
                if once or failures >= self._config.limits.attempts:
                    raise
                await asyncio.sleep(backoff_s(failures))
            except RegistryError as error:
                elsewhere = _foreign_url(descriptor)
                if error.http_status != 404 or elsewhere is None or path == elsewhere:
                    raise as_asked(error, f"fetching blob {descriptor.digest}") from error
                path, target = elsewhere, _stranger(elsewhere)

    async def has_blob(self, ref: Reference, digest: Digest, auth: Auth | None = None) -> bool:
        """Report whether the repository of `ref` has the blob."""
        target, path = Target(self._own(ref), _push(ref), auth), f"{ref.repository}/blobs/{digest}"
        with in_words(f"asking for blob {digest}"):
            async with self._transport.open("HEAD", target, path, ok=(200, 404)) as response:
                return response.status == 200

    async def has_manifest(self, ref: Reference, digest: Digest, auth: Auth | None = None) -> bool:
        """Report whether the repository of `ref` (no mirror) has the manifest."""
        target, path = Target(self._own(ref), _push(ref), auth), f"{ref.repository}/manifests/{digest}"
        with in_words(f"asking for manifest {digest}"):
            async with self._transport.open(
                "HEAD", target, path, ok=(200, 404), headers={"Accept": _ACCEPT}
            ) as response:
                return response.status == 200

    async def mount_blob(self, ref: Reference, digest: Digest, source: str, auth: Auth | None = None) -> bool:
        """Mount the blob of the repository `source` into the repository of `ref`; False if the registry does not."""
        return await self.uploads.mount(self._target(ref, auth, source), ref.repository, digest, source)

    async def push_blob(
        self, ref: Reference, chunks: AsyncIterator[bytes], auth: Auth | None = None
    ) -> tuple[Digest, int]:
        """Upload `chunks`; returns their digest and size."""
        return await self.uploads.stream(self._target(ref, auth), ref.repository, chunks)

    async def push_document(self, ref: Reference, body: bytes, auth: Auth | None = None) -> Digest:
        """Upload a small blob in one request, unless it is present."""
        digest = digest_of(body)
        if not await self.has_blob(ref, digest, auth):
            await self.uploads.whole(self._target(ref, auth), ref.repository, digest, body)
        return digest

    async def push_manifest(self, ref: Reference, media_type: str, body: bytes, auth: Auth | None = None) -> Digest:
        """Put a manifest under the tag or digest of `ref`."""
        path, headers = f"{ref.repository}/manifests/{ref.target}", {"Content-Type": media_type}
        target = self._target(ref, auth)
        with in_words():
            async with self._transport.open("PUT", target, path, headers=headers, data=body, ok=(200, 201)):
                return digest_of(body)

    async def tags(self, ref: Reference, auth: Auth | None = None) -> list[str]:
        """All tags of a repository."""
        pages = await self._from_any(ref, auth, lambda target: self._pages(target, f"{ref.repository}/tags/list"))
        return [tag for page in pages for tag in gojson.decode(page, _Tags, "invalid list of tags").tags or ()]

    async def referrers(
        self, ref: Reference, subject: Digest, artifact_type: str, auth: Auth | None = None
    ) -> list[Descriptor]:
        """The manifests of one type whose subject is `subject`; works without support for the referrers API, too."""
        target = Target(self._own(ref), _pull(ref), auth)
        query = URL.build(query={"artifactType": artifact_type}).raw_query_string
        path = f"{ref.repository}/referrers/{subject}?{query}"
        with in_words(f"asking for referrers of {subject}"):
            async with self._transport.open("GET", target, path, ok=(200, 404)) as response:
                body = await read_document(response, MAX_DOCUMENT)
                known = response.status == 200
        if not known:
            try:
                body = (await self.manifest(ref.with_tag(subject.replace(":", "-")), auth)).body
            except NotFound:
                return []
        document = decode_document(body)
        found = document.manifests if isinstance(document, Index) else ()
        return [one for one in found if one.artifact_type == artifact_type]

    async def catalog(self, registry: str, auth: Auth | None = None) -> list[str]:
        """All repositories of a registry that supports `_catalog`."""
        target = Target(endpoints_for(registry, self._config)[-1], "registry:catalog:*", auth)
        pages = await self._pages(target, "_catalog")
        return [name for page in pages for name in gojson.decode(page, _Catalog, "invalid catalog").repositories or ()]

    async def search(self, term: str, limit: int, auth: Auth | None = None) -> list[FoundRepository]:
        """At most `limit` repositories found by `term` (`term`, or `host/term`)."""
        registry, words = split_term(term)
        found = await search_index(self._transport, self._config, registry, words, limit, auth)
        if found is not None:
            return found
        names = [name for name in await self.catalog(registry, auth) if words in name]
        return [FoundRepository(name) for name in names[:limit]]

    async def login(self, auth: Auth) -> str:
        """Verify credentials with their registry, or raise `Unauthorized`.

        Returns the identity token to store instead of the password, "" where the registry gives none.
        """
        endpoint = endpoints_for(host_of_address(auth.server_address), self._config)[-1]
        try:
            return await self._transport.login(Target(endpoint, "", auth))
        except RegistryError as error:
            url = f"{await self._transport.base(endpoint)}/v2/"
            if error.http_status == 401:
                raise Unauthorized(f"login attempt to {url} failed with status: 401 Unauthorized") from error
            raise as_asked(error, f"login attempt to {url} failed") from error

    async def _manifest(self, target: Target, ref: Reference) -> Fetched:
        path = f"{ref.repository}/manifests/{ref.target}"
        async with self._transport.open("GET", target, path, headers={"Accept": _ACCEPT}) as response:
            body = await read_document(response, MAX_DOCUMENT)
            media_type = response.headers.get("Content-Type", "").partition(";")[0].strip()
            said = response.headers.get("Docker-Content-Digest", "")
        digest = digest_of(body)
        if said.startswith("sha256:") and said != digest:
            raise Failed(f"manifest verification failed for digest {said}", "the registry sent other content")
        return Fetched(digest, media_type, body)

    async def _read(self, target: Target, path: str | URL, descriptor: Descriptor, offset: int) -> AsyncIterator[bytes]:
        """Yield the blob from `offset` on, until the connection ends."""
        headers = {"Range": f"bytes={offset}-"} if offset else {}
        async with self._transport.open("GET", target, path, headers=headers, ok=(200, 206)) as response:
            skip = offset if response.status == 200 else 0
            done = offset - skip
            pace = _Pace(descriptor, self._config.limits)
            async for chunk in response.content.iter_any():
                done += len(chunk)
                pace.note(len(chunk))
                if done > descriptor.size:
                    raise InvalidInput(f"blob {descriptor.digest} is longer than the announced {descriptor.size} bytes")
                fresh = chunk[skip:]
                skip -= len(chunk) - len(fresh)
                if fresh:
                    yield fresh
        if done < descriptor.size:
            raise Failed(f"blob {descriptor.digest} ended after {done} of {descriptor.size} bytes")

    async def _holder(self, ref: Reference, descriptor: Descriptor, auth: Auth | None, *, once: bool) -> Target:
        """The target to read a blob from: the first mirror that has it, else the registry."""
        *mirrors, own = endpoints_for(ref.registry, self._config)
        for mirror in mirrors:
            target = Target(mirror, _pull(ref), auth, once=once)
            try:
                async with self._transport.open("HEAD", target, f"{ref.repository}/blobs/{descriptor.digest}"):
                    return target
            except HavreError:
                continue
        return Target(own, _pull(ref), auth, once=once)

    async def _from_any(self, ref: Reference, auth: Auth | None, ask: Callable[[Target], Awaitable[T]]) -> T:
        """Ask the mirrors, whose failures are ignored, and then the registry."""
        *mirrors, own = endpoints_for(ref.registry, self._config)
        for mirror in mirrors:
            try:
                return await ask(Target(mirror, _pull(ref), auth))
            except HavreError:
                continue
        try:
            return await ask(Target(own, _pull(ref), auth))
        except RegistryError as error:
            raise _not_pulled(ref, error) from error
        except Unauthorized as error:
            raise _not_asked_again(error) from error

    async def _pages(self, target: Target, path: str) -> list[bytes]:
        """The pages of a listing, following `Link` headers within the registry."""
        pages: list[bytes] = []
        here: str | URL = f"{path}?n={_PAGE}"
        for _ in range(_MAX_PAGES):
            with in_words(f"listing {path}"):
                async with self._transport.open("GET", target, here) as response:
                    pages.append(await read_document(response, MAX_DOCUMENT))
                    base, link = response.url, _next_page(response)
            if sum(map(len, pages)) > _MAX_LISTING:
                raise InvalidInput(f"registry's listing {path} has more than {_MAX_LISTING} bytes")
            if link is None:
                return pages
            here = base.join(parse_url(link))
            if here.origin() != base.origin():
                raise Failed(f"registry continues its listing {path} at another host")
        raise Failed(f"registry's listing {path} has more than {_MAX_PAGES} pages")

    def _own(self, ref: Reference) -> Endpoint:
        return endpoints_for(ref.registry, self._config)[-1]

    def _target(self, ref: Reference, auth: Auth | None, source: str = "") -> Target:
        scope = _push(ref) + (f" repository:{source}:pull" if source else "")
        return Target(self._own(ref), scope, auth)


class _Pace:
    """Measures a blob's download rate. It includes the receiver's processing time, so the minimum is low."""

    def __init__(self, descriptor: Descriptor, limits: Limits) -> None:
        self._descriptor, self._limits = descriptor, limits
        self._since, self._bytes = time.monotonic(), 0

    def note(self, size_bytes: int) -> None:
        """Count bytes received. Raises `Failed` below the minimum rate."""
        self._bytes += size_bytes
        passed_s = time.monotonic() - self._since
        if passed_s >= self._limits.patience_s:
            if self._bytes < self._limits.min_rate * passed_s:
                raise _TooSlow(
                    f"blob {self._descriptor.digest} is downloaded too slowly: {self._bytes} bytes in {passed_s:.0f} s",
                    "the registry or the line to it is overloaded; try again later",
                )
            self._since, self._bytes = time.monotonic(), 0


def _next_page(response: aiohttp.ClientResponse) -> str | None:
    """The target of a `Link` header that says rel="next" (the only one that registries send)."""
    match = _NEXT.fullmatch(response.headers.get("Link", ""))
    return match.group(1) if match else None


def _pull(ref: Reference) -> str:
    return f"repository:{ref.repository}:pull"


def _push(ref: Reference) -> str:
    return f"repository:{ref.repository}:pull,push"


def _foreign_url(descriptor: Descriptor) -> URL | None:
    """The URL of a foreign layer, which the registry does not have."""
    urls = (parse_url(url) for url in descriptor.urls if mediatypes.is_foreign(descriptor.media_type))
    return next((url for url in urls if url.scheme == "https" and url.host), None)


def _stranger(url: URL) -> Target:
    """A host named only by a manifest: it gets no credentials."""
    return Target(Endpoint(url.authority, (url.origin(),), insecure=False, mirror=True), "", None)


def _not_asked_again(error: Unauthorized) -> Failed:
    """A wrong password as a 500: a 401 makes docker's command line ask for one, even where nobody can type it."""
    return Failed(error.message, error.hint or "log in to the registry again")


def _not_pulled(ref: Reference, error: RegistryError) -> HavreError:
    """A rejected manifest request, in dockerd's words."""
    if error.http_status == 404:
        words = error.message if error.code else "manifest unknown: manifest unknown"
        return NotFound(f"manifest for {ref.familiar()} not found: {words}")
    if error.password_of:
        return _not_asked_again(Unauthorized(f"{error.password_of}: unauthorized: authentication required"))
    if error.http_status in (401, 403):
        return NotFound(
            f"pull access denied for {ref.familiar_name}, repository does not exist or may require 'docker login'"
            f": {error.message if error.code else 'denied: requested access to the resource is denied'}"
        )
    return as_asked(error, f"fetching the manifest of {ref.familiar()}")
