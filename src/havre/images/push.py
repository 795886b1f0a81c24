"""Pushes an image: each layer by the cheapest means, then the configuration, the manifest, and last the index.

    layer --> a form of it in this repository?              HEAD   "Layer already exists"
          --> one in another repository of the registry?    mount  "Mounted from a/b"
          --> else compress its tar (gzip, one pass, streamed) and upload it     "Pushing" ... "Pushed"

Compressed layers are not kept on disk; their digests are recorded as the layer's sources. If the digests equal those
of the manifest that the image was pulled with, that manifest is pushed unchanged and keeps its digest; likewise an
index whose manifests are all unchanged. Attestations are pushed with the index; their subject is set to the new
manifest.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from havre.errors import NotFound
from havre.images.catalog import Image
from havre.images.index import ImageIndex, rewrite_index
from havre.images.layout import Layout
from havre.images.progress import Progress, ProgressLine
from havre.images.store import BlobStore
from havre.oci import mediatypes
from havre.oci.attestation import Attested
from havre.oci.digest import Digest, digest_of, hex_of
from havre.oci.manifest import Descriptor, Manifest, decode_document, describe, render_manifest
from havre.oci.reference import Reference
from havre.registry import Auth
from havre.storage.layers import Layers, Source
from havre.storage.recompress import gzip_stream
from havre.wire.values import ImageId

UPLOADS = 2  # each compresses in several threads and buffers two chunks
_TICK_S = 0.1
_OCI_ONLY = (mediatypes.OCI_LAYER, mediatypes.OCI_LAYER_GZIP, mediatypes.OCI_LAYER_ZSTD)


class PushRegistry(Protocol):
    """The registry operations that pushes need."""

    async def has_manifest(self, ref: Reference, digest: Digest, auth: Auth | None = None) -> bool: ...
    async def has_blob(self, ref: Reference, digest: Digest, auth: Auth | None = None) -> bool: ...
    async def mount_blob(self, ref: Reference, digest: Digest, source: str, auth: Auth | None = None) -> bool: ...
    async def push_blob(
        self, ref: Reference, chunks: AsyncIterator[bytes], auth: Auth | None = None
    ) -> tuple[Digest, int]: ...
    async def push_document(self, ref: Reference, body: bytes, auth: Auth | None = None) -> Digest: ...
    async def push_manifest(self, ref: Reference, media_type: str, body: bytes, auth: Auth | None = None) -> Digest: ...


@dataclass(frozen=True, slots=True)
class _Original:
    """The manifest that an image was pulled with, and its layers' digests."""

    media_type: str
    body: bytes
    layers: list[Digest]


@dataclass(frozen=True, slots=True)
class PushedIndex:
    """An index as pushed, and the images pushed with it: configurations and manifests.

    `attested` are the attestations pushed with them.
    """

    body: bytes
    members: Sequence[tuple[bytes, bytes]]
    attested: Sequence[Attested]


class Pusher:
    """Pushes images from the stores. `slots` limits concurrent layer uploads and may be replaced at any time."""

    def __init__(self, registry: PushRegistry, blobs: BlobStore, layers: Layers) -> None:
        self._registry = registry
        self._blobs = blobs
        self._layers = layers
        self.slots = asyncio.Semaphore(UPLOADS)

    async def push(
        self, ref: Reference, image: Image, auth: Auth | None, progress: Progress, index: ImageIndex | None = None
    ) -> Descriptor:
        """Push `image` (of `index`, if given) as `ref`. Returns the descriptor of its manifest."""
        manifest = index.manifest_of(image.id).digest if index is not None else image.row.manifest
        original = await self._original(manifest)
        media_type, body, _ = await self._content(ref, image, original, auth, progress)
        await self._registry.push_manifest(ref, media_type, body, auth)
        _report_pushed(ref, body, progress)
        return describe(media_type, body)

    async def has_the_rest(
        self, ref: Reference, index: ImageIndex, attested: Mapping[Digest, Attested], auth: Auth | None
    ) -> bool:
        """Report whether the repository has every manifest of an index that is not present here."""
        missing = (entry.digest for entry in index.document.manifests if entry.digest not in {*index.images, *attested})
        for digest in missing:
            if not await self._registry.has_manifest(ref, digest, auth):
                return False
        return True

    async def push_index(
        self,
        ref: Reference,
        index: ImageIndex,
        find: Callable[[ImageId], Image],
        attested: Mapping[Digest, Attested],
        auth: Auth | None,
        progress: Progress,
    ) -> PushedIndex:
        """Push the present images of an index and their attestations, then the index as `ref`.

        The registry must have the remaining manifests.
        """
        members, moved = [], {}
        for entry, id in index.here():
            original = await self._original(entry.digest)
            oci = index.document.media_type == mediatypes.OCI_INDEX
            media_type, body, config = await self._content(ref, find(id), original, auth, progress, oci=oci)
            moved[entry.digest] = pushed = describe(media_type, body)
            await self._registry.push_manifest(ref.with_digest(pushed.digest), media_type, body, auth)
            members.append((config, body))
        new = rewrite_index(index.document, await self._blobs.read(index.digest), moved, attested)
        for each in new.attested:
            await self._push_attested(ref, each, auth)
        await self._registry.push_manifest(ref, index.document.media_type, new.body, auth)
        _report_pushed(ref, new.body, progress)
        return PushedIndex(new.body, members, new.attested)

    async def push_layout(self, ref: Reference, layout: Layout, auth: Auth | None, *, by_digest: bool) -> Descriptor:
        """Push a layout unchanged, as `ref` or by digest only. Returns the top descriptor."""
        top = layout.tops[0]
        await self._push_tree(ref.with_digest(top.digest) if by_digest else ref, top, layout, auth)
        return top

    async def _push_tree(self, ref: Reference, entry: Descriptor, layout: Layout, auth: Auth | None) -> None:
        """Push a manifest or index as `ref`, after everything that it refers to."""
        body = layout.document(entry.digest)
        assert body is not None
        document = decode_document(body)
        if isinstance(document, Manifest):
            for part in (document.config, *document.layers):
                await self._push_blob(ref, part, layout, auth)
        else:
            for each in document.manifests:
                await self._push_tree(ref.with_digest(each.digest), each, layout, auth)
        await self._registry.push_manifest(ref, entry.media_type, body, auth)

    async def _push_blob(self, ref: Reference, blob: Descriptor, layout: Layout, auth: Auth | None) -> None:
        if (body := layout.document(blob.digest)) is not None:
            await self._registry.push_document(ref, body, auth)
        elif not await self._registry.has_blob(ref, blob.digest, auth):
            async with self.slots:
                await self._registry.push_blob(ref, layout.content(blob.digest), auth)

    async def _push_attested(self, ref: Reference, attested: Attested, auth: Auth | None) -> None:
        *documents, body = attested.documents
        for document in documents:
            await self._registry.push_document(ref, document, auth)
        manifest = attested.manifest
        await self._registry.push_manifest(ref.with_digest(manifest.digest), manifest.media_type, body, auth)

    async def _content(
        self,
        ref: Reference,
        image: Image,
        original: _Original | None,
        auth: Auth | None,
        progress: Progress,
        *,
        oci: bool = False,
    ) -> tuple[str, bytes, bytes]:
        """Push layers and configuration. Returns the manifest's media type and body, and the configuration's body.

        A new manifest is OCI's if `oci` or the media type of a layer requires it.
        """
        for diff_id in reversed(image.layers):
            progress(ProgressLine("Preparing", _short(diff_id)))
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
        if original is not None and original.layers == [layer.digest for layer in layers]:
            return original.media_type, original.body, config
        media_type, body = _render(config, layers, oci=oci)
        return media_type, body, config

    async def _original(self, digest: str) -> _Original | None:
        """The manifest that an image was pulled with, if any."""
        if not digest:
            return None
        try:
            body = await self._blobs.read(Digest(digest))
        except NotFound:
            return None
        document = decode_document(body)
        if not isinstance(document, Manifest):
            return None
        return _Original(document.media_type, body, [layer.digest for layer in document.layers])

    async def _layer(
        self, ref: Reference, diff_id: Digest, original: _Original | None, auth: Auth | None, progress: Progress
    ) -> Descriptor:
        """Push one layer to the repository of `ref`."""
        id = _short(diff_id)
        if self.slots.locked():
            progress(ProgressLine("Waiting", id))
        async with self.slots:
            wanted = set(original.layers) if original else set()
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
        tar = _with_progress(self._layers.open_tar(diff_id), id, layer.size, progress)
        digest, size = await self._registry.push_blob(ref, gzip_stream(tar), auth)
        progress(ProgressLine("Pushed", id))
        return await self._placed(ref, diff_id, Source(digest, size, mediatypes.DOCKER_LAYER_GZIP))

    async def _placed(self, ref: Reference, diff_id: Digest, source: Source) -> Descriptor:
        """Record that the repository has this form of the layer."""
        here = Source(source.digest, source.size, source.media_type, ref.registry, ref.repository)
        await self._layers.add_source(diff_id, here)
        return Descriptor(source.media_type, source.digest, source.size)


def _render(config: bytes, layers: Sequence[Descriptor], *, oci: bool) -> tuple[str, bytes]:
    """A new manifest: its media type and body."""
    if oci or any(layer.media_type in _OCI_ONLY for layer in layers):
        renamed = [Descriptor(oci_type(layer.media_type), layer.digest, layer.size) for layer in layers]
        described = describe(mediatypes.OCI_CONFIG, config)
        return mediatypes.OCI_MANIFEST, render_manifest(described, renamed, mediatypes.OCI_MANIFEST)
    described = describe(mediatypes.DOCKER_CONFIG, config)
    return mediatypes.DOCKER_MANIFEST, render_manifest(described, layers, mediatypes.DOCKER_MANIFEST)


def _report_pushed(ref: Reference, body: bytes, progress: Progress) -> None:
    digest = digest_of(body)
    progress(ProgressLine(f"{ref.tag}: digest: {digest} size: {len(body)}"))
    progress(ProgressLine(aux={"Tag": ref.tag, "Digest": digest, "Size": len(body)}))


def order_sources(sources: Sequence[Source], ref: Reference, wanted: set[Digest]) -> list[Source]:
    """The known forms of a layer by likelihood: in this repository, in the original manifest, in this registry.

    Each digest is tried once, where it was seen last. Foreign layers are uploaded like others.
    """
    ranked = sorted(
        (source for source in reversed(sources) if not mediatypes.is_foreign(source.media_type)),
        key=lambda source: (
            (source.registry, source.repository) != (ref.registry, ref.repository),
            source.digest not in wanted,
            source.registry != ref.registry,
        ),
    )
    return list({source.digest: source for source in reversed(ranked)}.values())[::-1]


def oci_type(media_type: str) -> str:
    """The OCI media type of a layer."""
    return {
        mediatypes.DOCKER_LAYER: mediatypes.OCI_LAYER,
        mediatypes.DOCKER_LAYER_GZIP: mediatypes.OCI_LAYER_GZIP,
        mediatypes.DOCKER_LAYER_ZSTD: mediatypes.OCI_LAYER_ZSTD,
    }.get(media_type, media_type)


async def _with_progress(chunks: AsyncIterator[bytes], id: str, total: int, progress: Progress) -> AsyncIterator[bytes]:
    """Yield `chunks` and report progress."""
    done, reported_s = 0, 0.0
    async for chunk in chunks:
        done += len(chunk)
        if done == total or time.monotonic() - reported_s > _TICK_S:
            reported_s = time.monotonic()
            progress(ProgressLine("Pushing", id, done, total))
        yield chunk


def _short(digest: Digest) -> str:
    return hex_of(digest)[:12]
