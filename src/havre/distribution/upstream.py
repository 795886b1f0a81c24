"""A pull-through cache: what is asked for and not here is fetched from another registry, verified, kept and served.

    client --manifest by tag--> asked of the upstream each time; what is here serves when it cannot be reached
           --manifest, blob by digest--> asked of the upstream once

Two clients that want the same blob follow one download (`Incoming`), which goes on without them.
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
    """The registry `host` (a name such as docker.io, or host:port), seen through `repositories`."""

    def __init__(self, registry: Registry, host: str, repositories: Repositories, uploads: Uploads) -> None:
        self._registry = registry
        self._host = host
        self._repositories = repositories
        self._uploads = uploads
        self._fetching: dict[Digest, Fetch] = {}

    async def refresh_manifest(self, name: str, reference: str) -> None:
        """Have the manifest here as the upstream has it; `RegistryRefusal` when neither has it."""
        by_digest = ":" in reference
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

    async def lacking(self, name: str, digest: Digest) -> Descriptor | None:
        """What a manifest of the repository says of a blob that is not here yet; None if it is here."""
        if self._repositories.holds_blob(name, digest) and self._repositories.blobs.has(digest):
            return None
        descriptor = await in_thread(self._describe, name, digest)
        if descriptor is None:
            raise RegistryRefusal(404, "BLOB_UNKNOWN", "blob unknown to registry")
        return descriptor

    def fetch(self, name: str, descriptor: Descriptor) -> Incoming:
        """Have the blob brought here; it can be followed on its way."""
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
        """What a manifest of the repository says of a blob."""
        for digest in self._repositories.manifests(name):
            document = decode_document(self._repositories.blobs.path(digest).read_bytes(), parse=parse_any_digest)
            if isinstance(document, Manifest):
                for blob in (document.config, *document.layers):
                    if blob.digest == wanted:
                        return blob
        return None
