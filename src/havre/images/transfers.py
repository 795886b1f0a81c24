"""Images between the store and registries: pulls all tags of a name, pushes an image, an index, or what was just built.

`pull` and `push` transfer one image; here is what of a name is transferred, and which names and events that leaves.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from functools import partial

import msgspec
from msgspec.structs import replace

from havre.errors import Conflict, InvalidInput, NotFound
from havre.images.catalog import Image, ImageRow
from havre.images.index import ImageIndex
from havre.images.layout import LaidOut, LayoutForm
from havre.images.progress import Progress, ProgressLine, unobserved
from havre.images.pull import DOWNLOADS, Puller
from havre.images.push import UPLOADS, Pusher
from havre.images.saving import Saver
from havre.images.store import ImageStore
from havre.images.summaries import Publish, event_attributes
from havre.oci.attestation import Attested
from havre.oci.digest import Digest, digest_of
from havre.oci.image import decode_image
from havre.oci.manifest import Descriptor, describe
from havre.oci.platform import Platform, parse_platform
from havre.oci.reference import Reference
from havre.registry import Auth, Policy, PublicKey, Registry
from havre.storage.store import Storage
from havre.wire.values import ImageId


class Transfers:
    """Pulls to and pushes from one store. `policy`: the signatures that pulled images need."""

    def __init__(
        self,
        storage: Storage,
        registry: Registry,
        store: ImageStore,
        publish: Publish,
        saver: Saver,
        policy: Policy | None,
    ) -> None:
        self._storage = storage
        self._registry = registry
        self._store = store
        self._publish = publish
        self._saver = saver
        self._puller = Puller(registry, store, storage.layers, storage.hold, store.platform, policy)
        self._pusher = Pusher(registry, storage.blobs, storage.layers)

    def limit(self, downloads: int, uploads: int) -> None:
        """Limit concurrent layer transfers (0: the default); those under way are not affected."""
        self._puller.slots = asyncio.Semaphore(downloads or DOWNLOADS)
        self._pusher.slots = asyncio.Semaphore(uploads or UPLOADS)

    async def pull(
        self, ref: Reference, wanted: Platform | None, auth: Auth | None, key: PublicKey | None, progress: Progress
    ) -> ImageId:
        """Pull `ref`, or every tag if it has neither tag nor digest. Returns the ID of the last image pulled."""
        refs = [ref] if ref.tag or ref.digest else [ref.with_tag(tag) for tag in await self._registry.tags(ref, auth)]
        if not refs:
            raise NotFound(f"no tags of {ref.familiar()} to pull")
        changed = False
        for one in refs:
            image, is_new = await self._puller.pull(one, auth, wanted, progress, key)
            changed = changed or is_new
            self._publish("image", "pull", one.familiar(), event_attributes(image, one.familiar_name))
        state = "Downloaded newer image for" if changed else "Image is up to date for"
        progress(ProgressLine(f"Status: {state} {ref.familiar()}"))
        return image.id

    async def pull_again(self, ref: Reference, platform: Platform | None) -> None:
        """Pull a damaged image again, without credentials, events and progress."""
        await self._puller.pull(ref, None, platform, unobserved)

    async def push(
        self, ref: Reference, platform: str | None, auth: Auth | None, progress: Progress, *, insecure: bool
    ) -> list[Descriptor]:
        """Push `ref`, or every tag of its repository that is present. Returns the descriptors of what was pushed."""
        if ref.digest is not None:
            raise InvalidInput("cannot push a digest reference")
        progress(ProgressLine(f"The push refers to repository [{ref.name}]"))
        refs = [ref] if ref.tag else self._store.names_in(ref)
        pushed = []
        async with self._pusher_for(ref, insecure=insecure) as pusher:
            for one in refs:
                if self._store.named(one) is None:
                    raise NotFound(f"An image does not exist locally with the tag: {one.familiar_name}")
                wanted = parse_platform(platform) if platform else None
                pushed.append(await self._push_one(pusher, one, wanted, auth, progress))
        if not refs:
            raise NotFound(f"An image does not exist locally with the tag: {ref.familiar_name}")
        return pushed

    async def push_laid_out(
        self, image: LaidOut, form: LayoutForm, ref: Reference, auth: Auth | None, *, by_digest: bool, insecure: bool
    ) -> Descriptor:
        """Push an image, stored or not, whose layers are present, in the given form. Returns the descriptor pushed."""
        async with self._pusher_for(ref, insecure=insecure) as pusher, self._saver.laid_out(image, form) as layout:
            return await pusher.push_layout(ref, layout, auth, by_digest=by_digest)

    @asynccontextmanager
    async def _pusher_for(self, ref: Reference, *, insecure: bool) -> AsyncIterator[Pusher]:
        """A pusher for the registry of `ref`; `insecure` permits plain HTTP for this push only."""
        if not insecure:
            yield self._pusher
            return
        registry = self._registry.trusting(ref.registry)
        try:
            yield Pusher(registry, self._storage.blobs, self._storage.layers)
        finally:
            await registry.close()

    async def _push_one(
        self, pusher: Pusher, ref: Reference, wanted: Platform | None, auth: Auth | None, progress: Progress
    ) -> Descriptor:
        index = self._store.index_of(ref)
        attested = await self._store.attested(index) if index is not None else {}
        if index is None or wanted is not None:
            pushed = await self._push_image(pusher, ref, self._store.find_named(ref, wanted), index, auth, progress)
        elif await pusher.has_the_rest(ref, index, attested, auth):
            pushed = await self._push_index(pusher, ref, index, attested, auth, progress)
        elif len(index.images) > 1 and index.choose(self._store.platform) is None:
            raise Conflict(
                "multiple matching manifests found but no specific platform requested", "choose one with --platform"
            )
        else:
            image = self._store.find_named(ref)
            pushed = await self._push_image(pusher, ref, image, index, auth, progress)
            note = {
                "manifestPushedInsteadOfIndex": True,
                "originalIndex": msgspec.to_builtins(index.descriptor),
                "selectedManifest": msgspec.to_builtins(replace(pushed, platform=image.config.platform)),
            }
            progress(ProgressLine(aux=note))
        self._publish("image", "push", ref.familiar(), {"name": ref.familiar_name})
        return pushed

    async def _push_image(
        self,
        pusher: Pusher,
        ref: Reference,
        image: Image,
        index: ImageIndex | None,
        auth: Auth | None,
        progress: Progress,
    ) -> Descriptor:
        with self._storage.hold(*image.layers):
            pushed = await pusher.push(ref, image, auth, progress, index)
        async with self._store.changing:
            if self._store.named(ref) == image.id:
                await self._store.set_name(ref.with_digest(pushed.digest), image.id)
        return pushed

    async def _push_index(
        self,
        pusher: Pusher,
        ref: Reference,
        index: ImageIndex,
        attested: Mapping[Digest, Attested],
        auth: Auth | None,
        progress: Progress,
    ) -> Descriptor:
        """Push a whole index. If it had to be rewritten, the name refers to the new one afterwards."""
        images = {id: self._store.get(id) for id in index.images.values()}
        with self._storage.hold(*(layer for image in images.values() for layer in image.layers)):
            pushed = await pusher.push_index(ref, index, images.__getitem__, attested, auth, progress)
            now = self._store.index_of(ref)
            if now is not None and now.digest == index.digest:
                names = [ref.with_digest(digest_of(pushed.body)), ref]
                await self._store.keep_index(pushed.body, pushed.members, names, pushed.attested)
        return describe(index.document.media_type, pushed.body)

    async def remote_document(
        self, ref: Reference, wanted: Platform | None, auth: Auth | None, *, exact: bool
    ) -> tuple[bytes, Callable[[Digest], Awaitable[None]]]:
        """The configuration of an image in its registry, and a function that fetches a layer of it."""
        found = await self._puller.resolve(ref, auth, wanted, unobserved, exact=exact)
        return found.config_body, partial(self._puller.fetch, ref, found, auth)

    async def push_document(self, document: bytes, ref: Reference, auth: Auth | None) -> None:
        """Push an image that is not stored, but whose layers are."""
        image = Image(ImageId(digest_of(document)), decode_image(document), ImageRow(added_at=0))
        digest = Digest(image.id)
        try:
            with self._storage.hold(digest, *image.layers):
                async with self._store.changing:  # otherwise another task may remove it before the push
                    await self._storage.blobs.add(document)
                await self._pusher.push(ref, image, auth, unobserved)
        finally:
            async with self._store.changing:
                if image.id not in self._store and digest not in self._storage.held():
                    await self._storage.blobs.remove(digest)
