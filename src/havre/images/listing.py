"""Stored images as clients see them: the list with sizes and users, details, history, and the manifests of names.

What is shown is computed in `summaries` and `manifests`; here it is collected from the store.
"""

from __future__ import annotations

import builtins  # `list` is a method below
from collections.abc import Callable, Iterator, Sequence

from msgspec import UNSET

from havre.images import summaries
from havre.images.catalog import Image
from havre.images.deletion import Users
from havre.images.index import ImageIndex, local_manifest
from havre.images.manifests import Facts, summarize_image, summarize_index
from havre.images.store import ImageStore
from havre.images.summaries import ImageUser
from havre.oci import mediatypes
from havre.oci.digest import Digest
from havre.oci.image import decode_image
from havre.oci.manifest import Descriptor, decode_document, describe
from havre.storage.store import Storage
from havre.wire.filters import Filters
from havre.wire.images import HistoryItem, ImageDetails, ImageSummary
from havre.wire.values import ImageId


class Listing:
    """Shows one store. `users` are an image's containers, `all_users` also those of its other platforms."""

    def __init__(
        self, storage: Storage, store: ImageStore, users: Users, all_users: Callable[[Image], Sequence[ImageUser]]
    ) -> None:
        self._storage = storage
        self._store = store
        self._users = users
        self._all_users = all_users
        self._manifests: dict[ImageId, Descriptor] = {}

    def list(self, filters: Filters, *, all: bool, shared_size: bool, containers: bool) -> builtins.list[ImageSummary]:
        """The images that match the filters, newest first; counts are -1 unless asked for."""
        summaries.check_list_filters(filters)
        names = {image.id: self._store.names_of(image.id) for image in self._store}
        shown = (image for image in self._store if not self._store.is_sibling(image))
        images = [image for image in shown if all or names[image.id] or not self._store.children_of(image.id)]
        layers = {image.id: self._store.layers_of(image) for image in images}
        shared = summaries.shared_layers(layers.values()) if shared_size else set()
        rows = []
        for image in summaries.select(images, names, filters, self._store.find):
            size = sum(map(self._size, layers[image.id]))
            row = summaries.summarize(image, summaries.names_shown(names[image.id], filters), size)
            if shared_size:
                row.shared_size = sum(self._size(layer) for layer in layers[image.id] if layer in shared)
            if containers:
                row.containers = len(self._all_users(image))
            rows.append(row)
        return rows

    def describe(self, image: Image) -> ImageDetails:
        """The details of one image."""
        return summaries.describe(image, self._store.names_with(image.id), self._size, self._storage.driver)

    def recount(self, image: Image) -> builtins.list[HistoryItem]:
        """The history of one image, newest step first."""
        return summaries.recount(image, self._store.names_with(image.id), self._size)

    def size(self, id: ImageId) -> int:
        """Bytes of an image's layers; 0 if there is no image with this ID."""
        return summaries.size_of(self._store.get(id), self._size) if id in self._store else 0

    def unused_size(self) -> int:
        """Bytes of the layers that only images without containers have, each counted once."""
        layers: dict[bool, set[Digest]] = {True: set(), False: set()}
        for image in self._store:
            layers[bool(self._all_users(image))].update(self._store.layers_of(image))
        return sum(map(self._size, layers[False] - layers[True]))

    async def show_descriptor(self, shown: ImageSummary | ImageDetails, *, of_platform: bool = False) -> None:
        """Add to a summary or details what the image's name refers to, an index or a manifest.

        `of_platform`: the image's own manifest, also of an index.
        """
        image = self._store.get(ImageId(shown.id))
        if of_platform:
            for index in self._store.indexes_with(image.id):
                shown.descriptor = index.manifest_of(image.id)
                return
        for index in self._indexes_of(image):
            shown.descriptor = index.descriptor
            return
        shown.descriptor = await self._manifest_of(image)

    async def show_manifests(self, shown: ImageSummary | ImageDetails, *, identity: bool = False) -> None:
        """Add to a summary or details the manifests of the image's names, each with what is present of it.

        `identity`: and where it came from.
        """
        image = self._store.get(ImageId(shown.id))
        indexes = {index.digest: index for index in self._indexes_of(image)}
        facts = Facts(
            find=self._store.get,
            layer_size=self._size,
            document_size=self._storage.blobs.size,
            users=lambda id: [user.id for user in self._users(id)],
            identity=lambda id: summaries.identify(self._store.names_with(id)) if identity else UNSET,
        )
        if not indexes:
            shown.descriptor = await self._manifest_of(image)
            shown.manifests = [summarize_image(shown.descriptor, image, facts)]
            return
        found = [one for index in indexes.values() for one in summarize_index(index, facts)]
        shown.manifests = builtins.list({one.id: one for one in found}.values())
        shown.descriptor = next(iter(indexes.values())).descriptor

    def local_manifest(self, config: bytes) -> bytes:
        """The manifest that `save` would write for the image of this configuration."""
        return local_manifest(config, [(layer, self._size(layer)) for layer in decode_image(config).rootfs.diff_ids])

    def _indexes_of(self, image: Image) -> Iterator[ImageIndex]:
        return (index for ref in self._store.names_of(image.id) if (index := self._store.index_of(ref)))

    async def _manifest_of(self, image: Image) -> Descriptor:
        """The manifest that an image was pulled with, otherwise the one that `save` would write."""
        known = self._manifests.get(image.id)
        if known is None or image.row.manifest not in ("", known.digest):
            known = await self._read_manifest(image)
            self._manifests = {id: each for id, each in self._manifests.items() if id in self._store}
            self._manifests[image.id] = known
        return known

    async def _read_manifest(self, image: Image) -> Descriptor:
        if image.row.manifest:
            body = await self._storage.blobs.read(Digest(image.row.manifest))
            return describe(decode_document(body).media_type, body)
        config = await self._storage.blobs.read(Digest(image.id))
        return describe(mediatypes.OCI_MANIFEST, self.local_manifest(config))

    def _size(self, diff_id: Digest) -> int:
        layer = self._storage.layers.get(diff_id)
        return layer.size if layer is not None else 0
