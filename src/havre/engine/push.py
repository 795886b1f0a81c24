"""Pushing an image: each layer as cheaply as it goes, then the configuration, then the manifest.

    layer --> a form of it that this repository holds?     HEAD   "Layer already exists"
          --> one in another repository of the registry?   mount  "Mounted from a/b"
          --> else compress its tar (gzip, one pass, streamed) and upload it     "Pushing" ... "Pushed"

Compressed forms are not kept on disk; their digests are remembered as the layer's sources. If the layers' digests come
out as in the manifest that the image was pulled with, that very manifest is pushed, so its digest stays the same.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Sequence
from typing import Protocol

from havre.engine.compress import gzip_stream
from havre.engine.imagestore import BlobStore, Image
from havre.engine.progress import Progress, ProgressLine
from havre.errors import NotFound
from havre.oci import mediatypes
from havre.oci.digest import Digest, hex_of
from havre.oci.manifest import Descriptor, Manifest, decode_document, describe, render_manifest
from havre.oci.reference import Reference
from havre.registry import Auth
from havre.storage.layers import Layers, Source

UPLOADS = 2  # each compresses in several threads and has two chunks in memory
_TICK_S = 0.1
_OCI_ONLY = (mediatypes.OCI_LAYER, mediatypes.OCI_LAYER_GZIP, mediatypes.OCI_LAYER_ZSTD)


class PushRegistry(Protocol):
    """The registry's face, as far as pushes need it."""

    async def has_blob(self, ref: Reference, digest: Digest, auth: Auth | None = None) -> bool: ...
    async def mount_blob(self, ref: Reference, digest: Digest, source: str, auth: Auth | None = None) -> bool: ...
    async def push_blob(
        self, ref: Reference, chunks: AsyncIterator[bytes], auth: Auth | None = None
    ) -> tuple[Digest, int]: ...
    async def push_document(self, ref: Reference, body: bytes, auth: Auth | None = None) -> Digest: ...
    async def push_manifest(self, ref: Reference, media_type: str, body: bytes, auth: Auth | None = None) -> Digest: ...


class Pusher:
    """Pushes images out of the stores. `slots` are for layers that go out at once, and may be exchanged at any time."""

    def __init__(self, registry: PushRegistry, blobs: BlobStore, layers: Layers) -> None:
        self._registry = registry
        self._blobs = blobs
        self._layers = layers
        self.slots = asyncio.Semaphore(UPLOADS)

    async def push(self, ref: Reference, image: Image, auth: Auth | None, progress: Progress) -> Digest:
        """Push `image` as `ref`; the manifest's digest."""
        for diff_id in reversed(image.layers):
            progress(ProgressLine("Preparing", _short(diff_id)))
        original = await self._original(image)
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    diff_id: group.create_task(self._layer(ref, diff_id, original, auth, progress))
                    for diff_id in reversed(image.layers)
                }
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None
        layers = [tasks[diff_id].result() for diff_id in image.layers]
        config = await self._blobs.read(Digest(image.id))
        await self._registry.push_document(ref, config, auth)
        media_type, body = await self._manifest(image, config, layers, original)
        digest = await self._registry.push_manifest(ref, media_type, body, auth)
        progress(ProgressLine(f"{ref.tag}: digest: {digest} size: {len(body)}"))
        progress(ProgressLine(aux={"Tag": ref.tag, "Digest": digest, "Size": len(body)}))
        return digest

    async def _original(self, image: Image) -> Manifest | None:
        """The manifest that the image was pulled with, if it was."""
        if not image.row.manifest:
            return None
        try:
            document = decode_document(await self._blobs.read(Digest(image.row.manifest)))
        except NotFound:
            return None
        return document if isinstance(document, Manifest) else None

    async def _layer(
        self, ref: Reference, diff_id: Digest, original: Manifest | None, auth: Auth | None, progress: Progress
    ) -> Descriptor:
        """Bring one layer into the repository of `ref`."""
        id = _short(diff_id)
        if self.slots.locked():
            progress(ProgressLine("Waiting", id))
        async with self.slots:
            wanted = {layer.digest for layer in original.layers} if original else set()
            for source in order_sources(self._layers.sources(diff_id), ref, wanted):
                if await self._registry.has_blob(ref, source.digest, auth):
                    progress(ProgressLine("Layer already exists", id))
                    return await self._placed(ref, diff_id, source)
                mountable = source.registry == ref.registry and source.repository != ref.repository
                if mountable and await self._registry.mount_blob(ref, source.digest, source.repository, auth):
                    progress(ProgressLine(f"Mounted from {source.repository}", id))
                    return await self._placed(ref, diff_id, source)
            return await self._upload(ref, diff_id, auth, progress)

    async def _upload(self, ref: Reference, diff_id: Digest, auth: Auth | None, progress: Progress) -> Descriptor:
        layer = self._layers.get(diff_id)
        if layer is None:
            raise NotFound(f"layer {diff_id} is not in the store", "pull or load the image again")
        id = _short(diff_id)
        tar = _watched(self._layers.open_tar(diff_id), id, layer.size, progress)
        digest, size = await self._registry.push_blob(ref, gzip_stream(tar), auth)
        progress(ProgressLine("Pushed", id))
        return await self._placed(ref, diff_id, Source(digest, size, mediatypes.DOCKER_LAYER_GZIP))

    async def _placed(self, ref: Reference, diff_id: Digest, source: Source) -> Descriptor:
        """Remember that the repository holds this form of the layer."""
        here = Source(source.digest, source.size, source.media_type, ref.registry, ref.repository)
        await self._layers.add_source(diff_id, here)
        return Descriptor(source.media_type, source.digest, source.size)

    async def _manifest(
        self, image: Image, config: bytes, layers: Sequence[Descriptor], original: Manifest | None
    ) -> tuple[str, bytes]:
        """The manifest to push: the original one if it says the same, else a new one."""
        if original is not None and [layer.digest for layer in original.layers] == [layer.digest for layer in layers]:
            return original.media_type, await self._blobs.read(Digest(image.row.manifest))
        if any(layer.media_type in _OCI_ONLY for layer in layers):
            oci = [Descriptor(oci_type(layer.media_type), layer.digest, layer.size) for layer in layers]
            return mediatypes.OCI_MANIFEST, render_manifest(
                describe(mediatypes.OCI_CONFIG, config), oci, mediatypes.OCI_MANIFEST
            )
        return mediatypes.DOCKER_MANIFEST, render_manifest(
            describe(mediatypes.DOCKER_CONFIG, config), layers, mediatypes.DOCKER_MANIFEST
        )


def order_sources(sources: Sequence[Source], ref: Reference, wanted: set[Digest]) -> list[Source]:
    """The known forms of a layer, the likeliest first: in this repository, of the original manifest, in this registry.

    Each digest is tried once. Foreign layers are uploaded like any other.
    """
    ranked = sorted(
        (source for source in sources if not mediatypes.is_foreign(source.media_type)),
        key=lambda source: (
            (source.registry, source.repository) != (ref.registry, ref.repository),
            source.digest not in wanted,
            source.registry != ref.registry,
        ),
    )
    return list({source.digest: source for source in reversed(ranked)}.values())[::-1]


def oci_type(media_type: str) -> str:
    """The OCI name of a layer's media type."""
    return {
        mediatypes.DOCKER_LAYER: mediatypes.OCI_LAYER,
        mediatypes.DOCKER_LAYER_GZIP: mediatypes.OCI_LAYER_GZIP,
        mediatypes.DOCKER_LAYER_ZSTD: mediatypes.OCI_LAYER_ZSTD,
    }.get(media_type, media_type)


async def _watched(chunks: AsyncIterator[bytes], id: str, total: int, progress: Progress) -> AsyncIterator[bytes]:
    """Pass `chunks` on and tell how far they got."""
    done, told = 0, 0.0
    async for chunk in chunks:
        done += len(chunk)
        if done == total or time.monotonic() - told > _TICK_S:
            told = time.monotonic()
            progress(ProgressLine("Pushing", id, done, total))
        yield chunk


def _short(digest: Digest) -> str:
    return hex_of(digest)[:12]
