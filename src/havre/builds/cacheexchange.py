"""Imports and exports build caches: images in the store or in registries, and directories of the client.

    --cache-from --> document (`cachedocument`): records by key, layers by digest
                     a step is looked up by its key: only its layer is fetched, and recorded as if built here
                     (for a directory, `havre build` has sent all missing blobs before)
    --cache-to   <-- a document that lists the layers of the build's steps, pushed as an image or given to the client

A cache is an image that is never run, so every registry and image tool supports it. Only caches that the user names are
used, and layers are verified by digest (CVE-2024-24557).
"""

from __future__ import annotations

import logging
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial

from havre.builds.cachedocument import StepRecord, cache_document, read_records
from havre.builds.request import BuildRequest, CacheSource, CacheTarget, ContextSource
from havre.errors import InvalidInput, NotFound
from havre.images.images import Images
from havre.oci.digest import Digest, digest_of
from havre.oci.image import decode_image
from havre.oci.manifest import MAX_CONFIG, MAX_DOCUMENT, Descriptor, Manifest, decode_document
from havre.oci.platform import Platform
from havre.oci.reference import parse_reference
from havre.storage import Storage

log = logging.getLogger(__name__)

Bring = Callable[[Digest], Awaitable[None]]
Read = Callable[[Digest], AsyncGenerator[bytes, None]]


@dataclass(frozen=True)
class ForeignCache:
    """Steps of another engine by key; `bring` fetches one of their layers into the store, or raises `HavreError`."""

    records: Mapping[str, StepRecord]
    bring: Bring


class ForeignCaches:
    """Opens and writes caches."""

    def __init__(self, images: Images, storage: Storage) -> None:
        self._images = images
        self._storage = storage

    async def open(self, source: CacheSource, request: BuildRequest, client: ContextSource) -> ForeignCache:
        """Read a cache's records; fetches no layers. Raises `NotFound`, and `InvalidInput` if it is not a build cache.

        Of a multi-platform image, reads the request's platform; an image for one platform may have steps of several.
        """
        if source.store:
            return await self._of_client(source, client)
        wanted = request.platform or None
        for platform in (wanted, None):
            try:
                return _cache_of(await self._images.document(source.ref, platform), self._stays)
            except NotFound:
                pass  # missing, or the local image is for another platform
        auth = await client.credentials(parse_reference(source.ref).with_default_tag().registry)
        return _cache_of(*await self._images.remote_document(source.ref, auth=auth, platform=wanted, exact=False))

    async def _stays(self, layer: Digest) -> None:
        if self._storage.layers.get(layer) is None:
            raise NotFound(f"layer {layer} is not in the store")

    async def _of_client(self, source: CacheSource, client: ContextSource) -> ForeignCache:
        read = partial(client.blob, source.store)
        manifest = decode_document(await _document(read, Digest(source.digest), MAX_DOCUMENT))
        if not isinstance(manifest, Manifest):
            raise InvalidInput(f"{source.digest} is no manifest of a build cache")
        document = await _document(read, manifest.config.digest, MAX_CONFIG)
        blobs = dict(zip(decode_image(document).rootfs.diff_ids, manifest.layers, strict=False))
        return _cache_of(document, partial(self._ingest, read, blobs))

    async def _ingest(
        self,
        read: Read,
        blobs: Mapping[Digest, Descriptor],
        layer: Digest,
    ) -> None:
        if self._storage.layers.get(layer) is not None:
            return
        if layer not in blobs:
            raise NotFound(f"the cache has no layer {layer}")
        digest = blobs[layer].digest
        async with self._storage.layers.ingest(digest=digest, diff_id=layer) as sink, aclosing(read(digest)) as pieces:
            async for piece in pieces:
                await sink.write(piece)
            await sink.finish()

    async def push(
        self, target: CacheTarget, records: Sequence[StepRecord], platform: Platform, client: ContextSource
    ) -> None:
        """Push a cache of these steps to a registry."""
        auth = await client.credentials(parse_reference(target.ref).registry)
        await self._images.push_document(cache_document(records, platform), target.ref, auth)


def _cache_of(document: bytes, bring: Bring) -> ForeignCache:
    records = read_records(document, set(decode_image(document).rootfs.diff_ids))
    return ForeignCache({record.key: record for record in records}, bring)


async def _document(read: Read, digest: Digest, limit: int) -> bytes:
    gathered = bytearray()
    async with aclosing(read(digest)) as pieces:
        async for piece in pieces:
            gathered += piece
            if len(gathered) > limit:
                raise InvalidInput(f"a document of the build cache is larger than {limit} bytes")
    document = bytes(gathered)
    if digest_of(document) != digest:
        raise InvalidInput(f"the build cache's document {digest} does not match its digest")
    return document
