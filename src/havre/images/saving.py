"""Writes images out of the store: the tar of `docker save`, and OCI layouts of images that need not be stored."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, replace

from havre.images.index import ImageIndex
from havre.images.layout import KeptIndex, LaidOut, Layout, LayoutForm, layer_form, plan_layout
from havre.images.store import ImageStore
from havre.images.summaries import Publish
from havre.oci.digest import Digest
from havre.oci.platform import Platform
from havre.oci.reference import Reference
from havre.storage.store import Storage
from havre.wire.values import ImageId


@dataclass(frozen=True)
class _Chosen:
    """Images to save together, the index that their names refer to, if any, and those names."""

    ids: Sequence[ImageId]
    index: ImageIndex | None
    names: list[Reference]


class Saver:
    """Writes images of one store; their layers are held meanwhile."""

    def __init__(self, storage: Storage, store: ImageStore, publish: Publish) -> None:
        self._storage = storage
        self._store = store
        self._publish = publish

    def save(self, names: Sequence[str], platforms: Sequence[Platform]) -> AsyncGenerator[bytes, None]:
        """A tar of the images, both docker-archive and OCI layout; `NotFound` before its first byte.

        A name of several platforms is saved with those given, or with all that are present.
        """
        chosen: dict[object, _Chosen] = {}
        for name in names:
            refs = [(ref.canonical(), [ref]) for ref in self._store.names_meant(name)]  # all tags of a bare repository
            for text, named in refs or [(name, [])]:
                asked = [self._store.find(text, platform).id for platform in platforms]
                ref = self._store.named_text(text)
                index = self._store.index_of(ref) if ref is not None else None
                ids = tuple(dict.fromkeys(asked or self._store.platforms_of(text)))
                kept = chosen.setdefault((ids, index and index.digest), _Chosen(ids, index, [])).names
                kept += [ref for ref in named if ref not in kept]
        for each in chosen.values():
            self._publish("image", "save", each.ids[0], {"name": each.ids[0]})
        return self._saved(list(chosen.values()))

    async def _saved(self, chosen: Sequence[_Chosen]) -> AsyncGenerator[bytes, None]:
        images = [self._store.get(id) for each in chosen for id in each.ids]
        with self._storage.hold(*(layer for image in images for layer in image.layers)):
            laid = []
            for each in chosen:
                first, *others = [LaidOut(await self._storage.blobs.read(Digest(id))) for id in each.ids]
                kept = await self._kept(each.index) if each.index is not None else None
                laid.append(replace(first, names=each.names, others=others, kept=kept))
            with layer_form("uncompressed", self._storage.layers, self._storage.blobs.scratch) as layers:
                layout = await plan_layout(laid, layers, LayoutForm(for_docker=True))
                async with aclosing(layout.tar()) as tar:
                    async for chunk in tar:
                        yield chunk

    async def _kept(self, index: ImageIndex) -> KeptIndex:
        return KeptIndex(index, await self._storage.blobs.read(index.digest), await self._store.attested(index))

    @asynccontextmanager
    async def laid_out(self, image: LaidOut, form: LayoutForm) -> AsyncIterator[Layout]:
        """An image, stored or not, whose layers are present, as an OCI layout to be written during a block.

        `NotFound` for a missing layer, `InvalidInput` for an unknown form.
        """
        with (
            self._storage.hold(*(layer for part in (image, *image.others) for layer in part.layers)),
            layer_form(form.compression, self._storage.layers, self._storage.blobs.scratch) as layers,
        ):
            yield await plan_layout([image], layers, form)
