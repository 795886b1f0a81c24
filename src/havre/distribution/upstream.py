"""A pull-through cache: what is asked for and not here is fetched from another registry, verified, kept and served.

    client --manifest by tag--> asked of the upstream each time; what is here serves when it cannot be reached
           --manifest, blob by digest--> asked of the upstream once

Two clients that want the same blob wait for one download. Source: distribution's "registry as a pull through cache".
"""

from __future__ import annotations

import asyncio
import logging

from havre.aio import in_thread, spawn
from havre.distribution.repositories import ManifestRow, RegistryRefusal, Repositories
from havre.distribution.uploads import Uploads
from havre.errors import HavreError, NotFound
from havre.oci.digest import Digest
from havre.oci.manifest import Descriptor, Manifest, decode_document
from havre.oci.reference import Reference
from havre.registry import Registry

log = logging.getLogger(__name__)


class Upstream:
    """The registry `host` (a name such as docker.io, or host:port), seen through `repositories`."""

    def __init__(self, registry: Registry, host: str, repositories: Repositories, uploads: Uploads) -> None:
        self._registry = registry
        self._host = host
        self._repositories = repositories
        self._uploads = uploads
        self._fetching: dict[Digest, asyncio.Task[None]] = {}

    async def refresh_manifest(self, name: str, reference: str) -> None:
        """Have the manifest here as the upstream has it; `RegistryRefusal` when neither has it."""
        by_digest = reference.startswith("sha256:")
        known = self._knows(name, reference)
        if by_digest and known:
            return
        ref = Reference(self._host, name, None if by_digest else reference, Digest(reference) if by_digest else None)
        try:
            fetched = await self._registry.manifest(ref)
        except HavreError as error:
            if known and not isinstance(error, NotFound):
                log.warning("serving %s as it was: %s", ref.familiar(), error)
                return
            raise RegistryRefusal(404, "MANIFEST_UNKNOWN", error.message) from error
        row = ManifestRow.of(fetched.body, fetched.media_type)
        async with self._repositories.turns.writing():
            await self._repositories.blobs.add(fetched.body)
            self._repositories.put_manifest(name, fetched.digest, row, None if by_digest else reference)

    async def ensure_blob(self, name: str, digest: Digest) -> None:
        """Have a blob here that a manifest of the repository names."""
        if self._repositories.holds_blob(name, digest) and self._repositories.blobs.has(digest):
            return
        descriptor = await in_thread(self._describe, name, digest)
        if descriptor is None:
            raise RegistryRefusal(404, "BLOB_UNKNOWN", "blob unknown to registry")
        if (running := self._fetching.get(digest)) is None:
            running = self._fetching[digest] = spawn(self._fetch(name, descriptor), f"fetch blob {digest}")
            running.add_done_callback(lambda _: self._fetching.pop(digest, None))
        await asyncio.shield(running)
        async with self._repositories.turns.writing():
            self._repositories.link_blob(name, digest)

    async def _fetch(self, name: str, descriptor: Descriptor) -> None:
        upload = self._uploads.begin(name)
        try:
            chunks = self._registry.blob(Reference(self._host, name), descriptor)
            await self._uploads.append(upload, chunks, None)
            await self._uploads.finish(upload, descriptor.digest)
        except BaseException:
            self._uploads.cancel(upload)
            raise

    def _knows(self, name: str, reference: str) -> bool:
        try:
            self._repositories.resolve(name, reference)
        except RegistryRefusal:
            return False
        return True

    def _describe(self, name: str, wanted: Digest) -> Descriptor | None:
        """What a manifest of the repository says of a blob."""
        for digest in self._repositories.manifests(name):
            document = decode_document(self._repositories.blobs.path(digest).read_bytes())
            if isinstance(document, Manifest):
                for blob in (document.config, *document.layers):
                    if blob.digest == wanted:
                        return blob
        return None
