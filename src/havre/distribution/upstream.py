"""A pull-through cache: content that is missing here is fetched from another registry, verified, stored and served.

    client --manifest by tag--> requested from upstream each time; the stored one serves when upstream is unreachable
           --manifest, blob by digest--> requested from upstream once

Clients that want the same blob share one download (`Incoming`), which continues without them.
Source: distribution's "registry as a pull through cache".
"""

from __future__ import annotations

import logging

from havre.aio import in_thread, spawn
from havre.distribution.incoming import Fetch, Incoming
from havre.distribution.repositories import ManifestRow, RegistryRefusal, Repositories
from havre.distribution.uploads import Upload, Uploads
from havre.errors import HavreError, NotFound
from havre.oci.digest import Digest, parse_any_digest
from havre.oci.manifest import Descriptor, Manifest, decode_document
from havre.oci.reference import Reference
from havre.registry import Registry

log = logging.getLogger(__name__)


class Upstream:
    """The upstream registry `host` (a name such as docker.io, or host:port), cached in `repositories`."""

    def __init__(self, registry: Registry, host: str, repositories: Repositories, uploads: Uploads) -> None:
        self._registry = registry
        self._host = host
        self._repositories = repositories
        self._uploads = uploads
        self._fetching: dict[Digest, Fetch] = {}

    async def refresh_manifest(self, name: str, reference: str) -> None:
        """Update the stored manifest from upstream; `RegistryRefusal` when neither has it."""
        by_digest = ":" in reference
        known = self._knows(name, reference)
        if by_digest and known:
            return
        ref = Reference(self._host, name, None if by_digest else reference, Digest(reference) if by_digest else None)
        try:
            fetched = await self._registry.manifest(ref)
        except HavreError as error:
            if known and not isinstance(error, NotFound):
                log.warning("serving the stored %s, as upstream failed: %s", ref.familiar(), error)
                return
            raise RegistryRefusal(404, "MANIFEST_UNKNOWN", error.message) from error
        row = ManifestRow.of(fetched.body, fetched.media_type)
        async with self._repositories.turns.writing():
            await self._repositories.blobs.add(fetched.body)
            self._repositories.put_manifest(name, fetched.digest, row, None if by_digest else reference)

    async def lacking(self, name: str, digest: Digest) -> Descriptor | None:
        """The descriptor, from the repository's manifests, of a blob that is missing here; None if it is present."""
        if self._repositories.holds_blob(name, digest) and self._repositories.blobs.has(digest):
            return None
        descriptor = await in_thread(self._describe, name, digest)
        if descriptor is None:
            raise RegistryRefusal(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return descriptor

    def fetch(self, name: str, descriptor: Descriptor) -> Incoming:
        """Start to fetch the blob, or join a running download."""
        digest = descriptor.digest
        if (running := self._fetching.get(digest)) is None:
            upload = self._uploads.begin(name)
            upload.file.touch()
            running = Fetch(upload, spawn(self._bring(upload, descriptor), f"fetch blob {digest}"))
            self._fetching[digest] = running
            running.task.add_done_callback(lambda _: self._fetching.pop(digest, None))
        return Incoming(self._repositories, name, descriptor, running)

    async def _bring(self, upload: Upload, descriptor: Descriptor) -> None:
        try:
            chunks = self._registry.blob(Reference(self._host, upload.name), descriptor)
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
        """A blob's descriptor from a manifest of the repository."""
        for digest in self._repositories.manifests(name):
            document = decode_document(self._repositories.blobs.path(digest).read_bytes(), parse=parse_any_digest)
            if isinstance(document, Manifest):
                for blob in (document.config, *document.layers):
                    if blob.digest == wanted:
                        return blob
        return None
