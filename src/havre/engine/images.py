"""Images, as the rest of the daemon knows them: find, list, pull, push, tag, remove, load, save, import.

This is the face; the work is in the modules beside it:

    imagestore    which images and names there are      imagelist     list, inspect, history, filters (pure)
    imageindex    names for several platforms (pure)    manifestlist  what of them is here (pure)
    pull, push    to and from registries                imageremoval  docker's rules for removing (pure)
    archive       tars of images                        imagechanges  Dockerfile instructions on a configuration (pure)

Platforms are texts (`linux/arm64`). A name that stands for several means the host's, else the first that is here.
"""

from __future__ import annotations

import asyncio
import builtins  # `list` is a method below
import dataclasses
import platform as host
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from contextlib import AbstractContextManager, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol

import msgspec
from msgspec.structs import replace

from havre.engine import imagelist
from havre.engine.archive import Loader
from havre.engine.filters import Filters
from havre.engine.imageimport import import_root
from havre.engine.imageindex import ImageIndex, IndexRow, local_manifest
from havre.engine.imagelist import HistoryItem, ImageDetails, ImageSummary, ImageUser
from havre.engine.imageremoval import RemovalFacts, RemovedItem, plan_removal
from havre.engine.imagesearch import RemoteImage, check_limit, describe_remote, select_found
from havre.engine.imagestore import Image, ImageRow, ImageStore, NameRow, Tables
from havre.engine.integrity import Finding, Integrity
from havre.engine.layout import LaidOut, Layout, LayoutForm, layer_form, plan_layout
from havre.engine.manifestlist import Facts, summarize_image, summarize_index
from havre.engine.model import Config, ImageId, Value
from havre.engine.progress import Progress, ProgressLine, unobserved
from havre.engine.pull import DOWNLOADS, Puller
from havre.engine.push import UPLOADS, Pusher
from havre.errors import Conflict, InvalidInput, NotFound
from havre.oci import mediatypes
from havre.oci.digest import Digest, digest_of
from havre.oci.image import chain_ids, decode_image
from havre.oci.manifest import Descriptor, decode_document, describe, render_index
from havre.oci.platform import Platform, parse_platform, platform_of_machine
from havre.oci.reference import Reference, parse_reference, parse_repository
from havre.registry import Auth, FoundRepository, Policy, PublicKey, Registry
from havre.storage.gc import collect, plan_collection
from havre.storage.store import Storage

Users = Callable[[ImageId], Sequence[ImageUser]]


class Publish(Protocol):
    """The event bus, as far as images need it."""

    def __call__(self, type: str, action: str, id: str, attributes: Mapping[str, str] | None = None) -> None: ...


class RunImage(msgspec.Struct, frozen=True):
    """What a container is made from: the image's ID, its defaults, its layers (base first), its architecture."""

    id: ImageId
    config: Config
    layers: tuple[Digest, ...]
    architecture: str


class Pruned(Value):
    """What `prune` removed, and the bytes that are free now."""

    images_deleted: list[RemovedItem] | None = None
    space_reclaimed: int = 0


@dataclass(slots=True)
class _Removal:
    """What a removal has removed so far, and the bytes that freed."""

    items: list[RemovedItem] = field(default_factory=list)
    freed: int = 0


@dataclass(frozen=True, slots=True)
class Prunable:
    """An image, or a record of the build cache, that would go, its names, and the bytes that would go with it."""

    id: str
    names: tuple[str, ...]
    size: int


class Images:
    """All images. `users` tells which containers use an image."""

    def __init__(
        self,
        storage: Storage,
        registry: Registry,
        store: ImageStore,
        publish: Publish,
        users: Users,
        policy: Policy | None = None,
    ) -> None:
        self._storage = storage
        self._registry = registry
        self._store = store
        self._publish = publish
        self._users = users
        self._platform = store.platform
        self._puller = Puller(registry, store, storage.layers, storage.hold, self._platform, policy)
        self._pusher = Pusher(registry, storage.blobs, storage.layers)
        self.also_needed: Callable[[], set[Digest]] = set  # layers that others need: the builder sets it

    @classmethod
    async def open(
        cls, storage: Storage, registry: Registry, publish: Publish, users: Users, policy: Policy | None = None
    ) -> Images:
        """Read what images there are. `policy` says whose signatures pulled ones must have."""
        tables = Tables(
            storage.db.table("images", ImageRow),
            storage.db.table("image_names", NameRow),
            storage.db.table("image_indexes", IndexRow),
        )
        store = ImageStore(storage.blobs, tables, storage.hold, platform_of_machine(host.machine()))
        await store.load()
        return cls(storage, registry, store, publish, users, policy)

    def limit_transfers(self, downloads: int, uploads: int) -> None:
        """How many layers come in and go out at once (0: the default), of those that begin from now on."""
        self._puller.slots = asyncio.Semaphore(downloads or DOWNLOADS)
        self._pusher.slots = asyncio.Semaphore(uploads or UPLOADS)

    # -- finding

    def resolve(self, name: str) -> ImageId:
        """The ID of the image that `name` means (name, digest, ID or its beginning); `NotFound` "No such image: x"."""
        return self._store.find(name).id

    def platforms_of(self, name: str) -> builtins.list[ImageId]:
        """The IDs of all images that `name` stands for, the one that it means first."""
        ref = self._store.named_text(name)
        return [image.id for image in (self._store.all_of(ref) if ref is not None else [self._store.find(name)])]

    async def acquire(self, name: str, platform: str | None = None) -> RunImage:
        """The image to make a container from; `NotFound` also when it is not here for the platform asked for."""
        image = self._store.find(name, _wanted(platform))
        return RunImage(image.id, imagelist.image_config(image), image.layers, image.config.architecture)

    def hold(self, layers: Sequence[Digest]) -> AbstractContextManager[None]:
        """Keep layers that were just acquired from being collected during a block."""
        return self._storage.hold(*layers)

    def familiar_name(self, id: str) -> str:
        """A name to show for an image: its first tag, else its ID."""
        tags = [name for name in self._store.names_with(ImageId(id)) if name.digest is None]
        return tags[0].familiar() if tags else id

    def list(
        self,
        filters: Filters | None = None,
        *,
        all: bool = False,
        shared_size: bool = False,
        containers: bool = False,
    ) -> builtins.list[ImageSummary]:
        """The images that pass the filters, newest first; counts are -1 unless asked for.

        Nameless images that others were made from are left out unless `all`.
        """
        filters = filters or {}
        imagelist.check_list_filters(filters)
        names = {image.id: self._store.names_of(image.id) for image in self._store}
        shown = (image for image in self._store if not self._is_sibling(image))
        images = [image for image in shown if all or names[image.id] or not self._store.children_of(image.id)]
        layers = {image.id: self._layers_of(image) for image in images}
        shared = imagelist.shared_layers(layers.values()) if shared_size else set()
        rows = []
        for image in imagelist.select(images, names, filters, self._store.find):
            size = sum(map(self._size, layers[image.id]))
            row = imagelist.summarize(image, imagelist.names_shown(names[image.id], filters), size)
            if shared_size:
                row.shared_size = sum(self._size(layer) for layer in layers[image.id] if layer in shared)
            if containers:
                row.containers = len(self._users_of(image))
            rows.append(row)
        return rows

    def _is_sibling(self, image: Image) -> bool:
        """Whether an image is here only as one of the platforms of names that mean another."""
        return not self._store.names_of(image.id) and bool(self._store.names_with(image.id))

    def _layers_of(self, image: Image) -> builtins.list[Digest]:
        """The layers of an image and of the other platforms of its names."""
        siblings = self._store.siblings_of(image.id)
        more = dict.fromkeys(layer for sibling in siblings for layer in sibling.layers if layer not in image.layers)
        return [*image.layers, *more]

    def _users_of(self, image: Image) -> builtins.list[ImageUser]:
        """The containers made from an image or from other platforms of its names."""
        return [user for one in (image, *self._store.siblings_of(image.id)) for user in self._users(one.id)]

    def inspect(self, name: str, platform: str | None = None) -> ImageDetails:
        """The details of one image."""
        image = self._store.find(name, _wanted(platform))
        return imagelist.describe(image, self._store.names_with(image.id), self._size, self._storage.driver)

    def history(self, name: str, platform: str | None = None) -> builtins.list[HistoryItem]:
        """How the image came to be, newest step first."""
        image = self._store.find(name, _wanted(platform))
        return imagelist.recount(image, self._store.names_with(image.id), self._size)

    async def show_manifests(self, shown: ImageSummary | ImageDetails) -> None:
        """Add to a row or to details the manifests of the names that mean this image, each with what is here of it."""
        image = self._store.get(ImageId(shown.id))
        indexes = {
            index.digest: index for ref in self._store.names_of(image.id) if (index := self._store.index_of(ref))
        }
        facts = Facts(
            find=self._store.get,
            layer_size=self._size,
            document_size=lambda digest: self._storage.blobs.path(digest).stat().st_size,
            users=lambda id: [user.id for user in self._users(id)],
        )
        if not indexes:
            shown.descriptor = await self._manifest_of(image)
            shown.manifests = [summarize_image(shown.descriptor, image, facts)]
            return
        found = [one for index in indexes.values() for one in summarize_index(index, facts)]
        shown.manifests = builtins.list({one.id: one for one in found}.values())
        shown.descriptor = next(iter(indexes.values())).descriptor

    async def _manifest_of(self, image: Image) -> Descriptor:
        """The manifest that an image came by, else the one that it would be saved with."""
        if image.row.manifest:
            body = await self._storage.blobs.read(Digest(image.row.manifest))
            return describe(decode_document(body).media_type, body)
        config = await self._storage.blobs.read(Digest(image.id))
        return describe(mediatypes.OCI_MANIFEST, self._local_manifest(config))

    def layers_size(self) -> int:
        """Bytes of all layers, each counted once."""
        return sum(layer.size for layer in self._storage.layers.all())

    # -- registries

    async def pull(
        self,
        name: str,
        tag: str = "",
        *,
        auth: Auth | None = None,
        platform: str | None = None,
        verify: str = "",
        progress: Progress = unobserved,
    ) -> ImageId:
        """Pull `name` at `tag` (a tag or digest), every tag if neither says one; the ID of the last image pulled.

        `verify` is a public key (PEM) that it must be signed by, besides what the daemon's policy demands.
        """
        key = PublicKey(verify, "given") if verify else None
        wanted = _wanted(platform)
        ref = parse_repository(name, tag)
        refs = [ref] if ref.tag or ref.digest else [ref.with_tag(tag) for tag in await self._registry.tags(ref, auth)]
        if not refs:
            raise NotFound(f"no tags of {ref.familiar()} to pull")
        changed = False
        for one in refs:
            image, is_new = await self._puller.pull(one, auth, wanted, progress, key)
            changed = changed or is_new
            self._publish("image", "pull", one.familiar(), self._attributes(image, one.familiar_name))
        state = "Downloaded newer image for" if changed else "Image is up to date for"
        progress(ProgressLine(f"Status: {state} {ref.familiar()}"))
        return image.id

    async def push(
        self,
        name: str,
        tag: str = "",
        *,
        auth: Auth | None = None,
        platform: str | None = None,
        progress: Progress = unobserved,
    ) -> None:
        """Push `name` at `tag`, or every tag of the repository that is here; `NotFound` if there is none.

        A name for several platforms goes whole if all of its index is here or there, else (or with `platform`) one
        image of it; `Conflict` where none of several is the host's.
        """
        ref = parse_repository(name, tag)
        if ref.digest is not None:
            raise InvalidInput("cannot push a digest reference")
        progress(ProgressLine(f"The push refers to repository [{ref.name}]"))
        refs = [ref] if ref.tag else self._store.names_in(ref)
        for one in refs:
            if self._store.named(one) is None:
                raise NotFound(f"An image does not exist locally with the tag: {one.familiar_name}")
            await self._push_one(one, _wanted(platform), auth, progress)
        if not refs:
            raise NotFound(f"An image does not exist locally with the tag: {ref.familiar_name}")

    async def _push_one(self, ref: Reference, wanted: Platform | None, auth: Auth | None, progress: Progress) -> None:
        index = self._store.index_of(ref)
        if index is None or wanted is not None:
            await self._push_image(ref, self._store.find_named(ref, wanted), index, auth, progress)
        elif await self._pusher.holds_the_rest(ref, index, auth):
            await self._push_index(ref, index, auth, progress)
        elif len(index.images) > 1 and index.choose(self._platform) is None:
            raise Conflict(
                "multiple matching manifests found but no specific platform requested", "choose one with --platform"
            )
        else:
            image = self._store.find_named(ref)
            pushed = await self._push_image(ref, image, index, auth, progress)
            note = {
                "manifestPushedInsteadOfIndex": True,
                "originalIndex": msgspec.to_builtins(index.descriptor),
                "selectedManifest": msgspec.to_builtins(replace(pushed, platform=image.config.platform)),
            }
            progress(ProgressLine(aux=note))
        self._publish("image", "push", ref.familiar(), {"name": ref.familiar_name})

    async def _push_image(
        self, ref: Reference, image: Image, index: ImageIndex | None, auth: Auth | None, progress: Progress
    ) -> Descriptor:
        with self._storage.hold(*image.layers):
            pushed = await self._pusher.push(ref, image, auth, progress, index)
        async with self._store.changing:
            if index is None and image.id in self._store:  # of an index, the digest of that is its name
                await self._store.set_name(ref.with_digest(pushed.digest), image.id)
        return pushed

    async def _push_index(self, ref: Reference, index: ImageIndex, auth: Auth | None, progress: Progress) -> None:
        """Push all of an index; where it had to be written anew, the name stands for the new one."""
        images = {id: self._store.get(id) for id in index.images.values()}
        with self._storage.hold(*(layer for image in images.values() for layer in image.layers)):
            pushed = await self._pusher.push_index(ref, index, images.__getitem__, auth, progress)
            names = [ref.with_digest(digest_of(pushed.body))]
            if self._store.index_of(ref) == index:
                names.append(ref)
            await self._store.keep_index(pushed.body, pushed.members, names)

    async def login(self, auth: Auth) -> str:
        """Check credentials with their registry, or `Unauthorized`; the identity token to keep instead, if any."""
        return await self._registry.login(auth)

    async def search(
        self, term: str, limit: int | None = None, filters: Filters | None = None, auth: Auth | None = None
    ) -> builtins.list[FoundRepository]:
        """The repositories that a registry (Docker Hub, or the host in `host/term`) finds for `term`."""
        select_found((), filters or {})  # refused before anyone is asked
        found = await self._registry.search(term, check_limit(limit), auth)
        return select_found(found, filters or {})

    async def describe_remote(self, name: str, auth: Auth | None = None) -> RemoteImage:
        """What `name` stands for in its registry; nothing is pulled."""
        return await describe_remote(self._registry, parse_reference(name).with_default_tag(), auth)

    async def remote_document(
        self, name: str, *, auth: Auth | None = None, platform: str | None = None
    ) -> tuple[bytes, Callable[[Digest], Awaitable[None]]]:
        """The document of an image in its registry, and what fetches a layer of it; nothing is pulled by this."""
        ref = parse_reference(name).with_default_tag()
        found = await self._puller.resolve(ref, auth, _wanted(platform), unobserved)
        return found.config_body, partial(self._puller.fetch, ref, found, auth)

    async def push_document(self, document: bytes, name: str, auth: Auth | None = None) -> None:
        """Push an image that is not kept here, but its layers are."""
        ref = parse_reference(name).with_default_tag()
        image = Image(ImageId(digest_of(document)), decode_image(document), ImageRow(added_at=0))
        with self._storage.hold(Digest(image.id), *image.layers):
            await self._storage.blobs.add(document)
            try:
                await self._pusher.push(ref, image, auth, unobserved)
            finally:
                if image.id not in self._store:
                    await self._storage.blobs.remove(Digest(image.id))

    # -- names

    async def tag(self, name: str, repository: str, tag: str = "") -> None:
        """Give what `name` stands for, an image for one or several platforms, another name."""
        ref = _new_name(repository, tag)
        async with self._store.changing:
            image, named = self._store.find(name), self._store.named_text(name)
            index = self._store.index_of(named) if named is not None else None
            await self._store.set_name(ref, image.id, index.digest if index is not None else None)
        self._publish("image", "tag", image.id, self._attributes(image, ref.familiar()))

    # -- removing

    async def remove(
        self, name: str, *, force: bool = False, prune: bool = True, platforms: Sequence[str] = ()
    ) -> builtins.list[RemovedItem]:
        """Untag and delete by docker's rules (see `imageremoval`); `prune` removes parents that nobody needs then.

        With `platforms`, only the images for these.
        """
        removal = _Removal()
        if platforms and not force:
            raise InvalidInput(
                "Content will be removed from all images referencing this variant. Use --force to force delete."
            )
        async with self._store.changing:
            for image in [self._store.find(name, parse_platform(text)) for text in platforms]:
                await self._remove_platform(name, image, removal)
            if not platforms:
                await self._remove_name(name, self._store.find(name), removal, force=force, prune=prune)
        return removal.items

    async def _remove_name(self, name: str, image: Image, removal: _Removal, *, force: bool, prune: bool) -> None:
        by_name = None if self._store.is_id(name, image.id) else self._store.named_text(name)
        plan = plan_removal(self._facts(image, by_name, force=force))
        siblings = self._store.siblings_of(image.id)
        for ref in plan.untag:
            await self._store.remove_name(ref)
            removal.items.append(RemovedItem(untagged=ref.familiar()))
            self._publish("image", "untag", image.id, self._attributes(image, image.id))
        if plan.delete:
            await self._delete(image, removal, prune=prune)
        await self._delete_unneeded(siblings, removal)

    async def _remove_platform(self, name: str, image: Image, removal: _Removal) -> None:
        """Delete the image that `name` has for one platform, unless another name needs it."""
        running = next((user for user in self._users(image.id) if user.running), None)
        if running is not None:
            raise Conflict(
                f"conflict: unable to delete {image.id[7:19]} (cannot be forced)"
                f" - image is being used by running container {running.id[:12]}"
            )
        ref = self._store.named_text(name)
        index = self._store.index_of(ref) if ref is not None else None
        if index is None or len(index.images) == 1:
            await self._remove_name(name, image, removal, force=True, prune=True)
            return
        removal.items.append(RemovedItem(deleted=index.manifest_of(image.id).digest))
        await self._store.leave(index, image.id)
        if not self._store.names_with(image.id) and not self._store.children_of(image.id):
            await self._delete(image, removal, prune=True)

    async def _delete_all(self, image: Image, removal: _Removal, *, prune: bool) -> None:
        """Delete an image, and the other platforms of its names unless something else needs them."""
        siblings = self._store.siblings_of(image.id)
        await self._delete(image, removal, prune=prune)
        await self._delete_unneeded(siblings, removal)

    async def _delete_unneeded(self, images: Sequence[Image], removal: _Removal) -> None:
        for image in images:
            needed = self._store.names_with(image.id) or self._users(image.id) or self._store.children_of(image.id)
            if image.id in self._store and not needed:
                await self._delete(image, removal, prune=False)

    async def _delete(self, image: Image, removal: _Removal, *, prune: bool) -> None:
        removal.items += [RemovedItem(untagged=ref.familiar()) for ref in self._store.names_of(image.id)]
        await self._store.delete(image.id)
        removal.items.append(RemovedItem(deleted=image.id))
        self._publish("image", "delete", image.id, self._attributes(image, image.id))
        chains = chain_ids(image.layers)
        for diff_id, chain in reversed(builtins.list(zip(image.layers, chains, strict=True))):
            freed = await self._drop_layer(diff_id)
            removal.freed += freed
            if freed:
                removal.items.append(RemovedItem(deleted=chain))
        if prune and ImageId(image.row.parent) in self._store:
            parent = self._store.get(ImageId(image.row.parent))
            facts = self._facts(parent, None, force=False)
            if not (facts.names or facts.users or facts.has_children):
                await self._delete(parent, removal, prune=True)

    async def _drop_layer(self, diff_id: Digest) -> int:
        """Remove a layer unless something needs it; the bytes freed."""
        if diff_id in self._needed_layers() | self._storage.held() | self._storage.snapshots.layers_in_use():
            return 0
        await self._storage.snapshots.unmount_layer(diff_id)
        return await self._storage.layers.remove(diff_id)

    async def prune(self, filters: Filters | None = None) -> Pruned:
        """Remove dangling images, or with `dangling=false` all that no container uses."""
        filters = dict(filters or {})
        imagelist.check_prune_filters(filters)
        only_dangling = imagelist.dangling(filters) is not False
        filters.pop("dangling", None)
        removal = _Removal()
        async with self._store.changing:
            names = {image.id: self._store.names_of(image.id) for image in self._store}
            for image in imagelist.select(builtins.list(self._store), names, filters, self._store.find):
                if image.id not in self._store or self._users_of(image) or self._store.children_of(image.id):
                    continue
                if not self._is_sibling(image) and (not only_dangling or imagelist.is_dangling(names[image.id])):
                    await self._delete_all(image, removal, prune=True)
            reclaimed = removal.freed + await self.collect_garbage()
        self._publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return Pruned(images_deleted=removal.items or None, space_reclaimed=reclaimed)

    def prunable(self, filters: Filters, gone: Collection[str]) -> builtins.list[Prunable]:
        """What `prune` would delete once the containers `gone` are, with the bytes of layers that frees."""
        filters = dict(filters)
        imagelist.check_prune_filters(filters)
        only_dangling = imagelist.dangling(filters) is not False
        filters.pop("dangling", None)
        left = {image.id: image for image in self._store}
        names = {id: self._store.names_of(id) for id in left}
        hidden = {id for id, image in left.items() if self._is_sibling(image)}
        held = self.also_needed() | self._storage.held()
        held |= self._storage.snapshots.layers_in_use() - self.live_layers()
        chosen = []
        for image in imagelist.select(builtins.list(self._store), names, filters, self._store.find):
            parents = {other.row.parent for other in left.values()}
            used = any(user.id not in gone for user in self._users_of(image)) or image.id in parents
            if used or image.id in hidden or (only_dangling and not imagelist.is_dangling(names[image.id])):
                continue
            for id in (image.id, *(sibling.id for sibling in self._store.siblings_of(image.id))):
                left.pop(id, None)
            needed = held.union(*(other.layers for other in left.values()))
            layers = [self._storage.layers.get(layer) for layer in set(self._layers_of(image)) - needed]
            size = sum(layer.size for layer in layers if layer is not None)
            chosen.append(Prunable(image.id, tuple(ref.familiar() for ref in names[image.id]), size))
        return chosen

    async def delete_exactly(self, ids: Sequence[str]) -> int:
        """Delete images with all their names and these names' platforms, and nothing else; the bytes freed.

        Those in use by now stay.
        """
        removal = _Removal()
        async with self._store.changing:
            for image in [self._store.get(id) for id in map(ImageId, ids) if id in self._store]:
                if not self._users_of(image) and not self._store.children_of(image.id):
                    await self._delete_all(image, removal, prune=False)
        return removal.freed

    async def collect_garbage(self) -> int:
        """Remove layers and documents that nothing needs (left by failed pulls, for instance); the bytes freed.

        While an image cannot be read, nobody knows what it needs, and everything stays.
        """
        if self._store.unreadable:
            return 0
        return await collect(self._storage, self._needed_layers(), self._store.documents())

    async def check(self, *, repair: bool = False) -> builtins.list[Finding]:
        """Read every blob, layer and image; what is wrong, and with `repair` what came of mending it."""
        integrity = Integrity(self._storage, self._store, self._needed_layers, self._registry, self._pull_again)
        findings = await integrity.look()
        if repair and findings:
            await integrity.mend(findings)
            await self._store.load()
        return findings

    async def _pull_again(self, ref: Reference, platform: Platform | None) -> None:
        await self._puller.pull(ref, None, platform, unobserved)

    def live_layers(self, gone: Collection[str] = ()) -> set[Digest]:
        """The layers that images need, but for those of `gone`."""
        return {layer for image in self._store if image.id not in gone for layer in image.layers}

    def leftovers(self) -> builtins.list[tuple[Digest, int]]:
        """What `collect_garbage` would remove now, and the bytes of each."""
        return plan_collection(self._storage, self._needed_layers(), self._store.documents())

    def _needed_layers(self) -> set[Digest]:
        return self.live_layers() | self.also_needed()

    # -- archives

    async def load(
        self, chunks: AsyncIterator[bytes], progress: Progress = unobserved, platforms: Sequence[str] = ()
    ) -> builtins.list[ImageId]:
        """Take in the images of a tar (docker-archive or OCI layout, compressed or not), or those for `platforms`."""
        loader = Loader(self._storage.layers, self._store, self._storage.hold, self._drop_layer)
        loaded = await loader.load(chunks, builtins.list(map(parse_platform, platforms)))
        for one in loaded:
            for ref in one.names:
                if (before := one.replaced.get(ref)) is not None:
                    words = f"The image {ref.familiar()} already exists, renaming the old one with ID {before}"
                    progress(ProgressLine(stream=f"{words} to empty string\n"))
                progress(ProgressLine(stream=f"Loaded image: {ref.familiar()}\n"))
            if not one.names:
                progress(ProgressLine(stream=f"Loaded image ID: {one.image.id}\n"))
            self._publish("image", "load", one.image.id, self._attributes(one.image, one.image.id))
        return [one.image.id for one in loaded]

    def save(self, names: Sequence[str], platforms: Sequence[str] = ()) -> AsyncIterator[bytes]:
        """A tar of the images, readable as docker-archive and as OCI layout; `NotFound` before its first byte.

        A name for several platforms is saved with those given, or all that are here.
        """
        wanted = builtins.list(map(parse_platform, platforms))
        chosen: dict[tuple[ImageId, ...], builtins.list[Reference]] = {}
        for name in names:
            refs = [(ref.canonical(), [ref]) for ref in self._store.names_meant(name)]  # all tags of a bare repository
            for text, named in refs or [(name, [])]:
                found = [self._store.find(text, platform).id for platform in wanted] or self.platforms_of(text)
                kept = chosen.setdefault(tuple(dict.fromkeys(found)), [])
                kept += [ref for ref in named if ref not in kept]
        for first, *_ in chosen:
            self._publish("image", "save", first, {"name": first})
        return self._saved(chosen)

    async def _saved(self, chosen: Mapping[tuple[ImageId, ...], Sequence[Reference]]) -> AsyncIterator[bytes]:
        images = [self._store.get(id) for ids in chosen for id in ids]
        with self._storage.hold(*(layer for image in images for layer in image.layers)):
            laid = []
            for ids, refs in chosen.items():
                first, *others = [LaidOut(await self._storage.blobs.read(Digest(id))) for id in ids]
                laid.append(dataclasses.replace(first, names=refs, others=others))
            with layer_form("uncompressed", self._storage.layers, self._storage.blobs.scratch) as layers:
                async for chunk in (await plan_layout(laid, layers, LayoutForm(for_docker=True))).tar():
                    yield chunk

    async def document(self, name: str) -> bytes:
        """The configuration of the image that `name` means, as it is kept."""
        return await self._storage.blobs.read(Digest(self._store.find(name).id))

    @asynccontextmanager
    async def laid_out(self, image: LaidOut, form: LayoutForm) -> AsyncIterator[Layout]:
        """An image, stored or not, whose layers are here, as an OCI layout to be written during a block.

        `NotFound` for a layer that is not here, `InvalidInput` for a form that there is not.
        """
        with (
            self._storage.hold(*(layer for part in (image, *image.others) for layer in part.layers)),
            layer_form(form.compression, self._storage.layers, self._storage.blobs.scratch) as layers,
        ):
            yield await plan_layout([image], layers, form)

    async def import_(
        self,
        chunks: AsyncIterator[bytes],
        repository: str = "",
        tag: str = "",
        *,
        message: str = "",
        changes: Sequence[str] = (),
        platform: str | None = None,
    ) -> ImageId:
        """Make an image of one layer from the tar of a root file system, streamed; Dockerfile `changes` apply."""
        ref = _new_name(repository, tag, "cannot import digest reference") if repository else None
        wanted = _wanted(platform) or self._platform
        names = [ref] if ref is not None else []
        image = await import_root(
            self._storage.layers, self._store, self._storage.hold, chunks, message, changes, wanted, names
        )
        self._tell_names(image, names)
        self._publish("image", "import", image.id, {"name": image.id})
        return image.id

    async def create(self, config: bytes, *, parent: str = "", names: Sequence[str] = ()) -> ImageId:
        """Make an image of a configuration whose layers are here (commit, build); `InvalidInput` if one is not."""
        self._check_layers(config)
        refs = [parse_reference(name).with_default_tag() for name in names]
        image = await self._store.keep(config, refs, parent=parent)
        self._tell_names(image, refs)
        return image.id

    async def create_platforms(self, configs: Sequence[bytes], names: Sequence[str]) -> builtins.list[ImageId]:
        """As `create`, an image of each configuration, one for each platform; the names stand for all of them.

        `InvalidInput` also if two are for one platform.
        """
        refs = [parse_reference(name).with_default_tag() for name in names]
        if not refs:
            return [await self.create(config) for config in configs]
        entries: builtins.list[Descriptor] = []
        members = []
        for config in configs:
            self._check_layers(config)
            image = decode_image(config)
            if any(entry.platform is not None and entry.platform.same_as(image.platform) for entry in entries):
                raise InvalidInput(f"two images are for the platform {image.platform}", "give one for each platform")
            manifest = self._local_manifest(config)
            entries.append(replace(describe(mediatypes.OCI_MANIFEST, manifest), platform=image.platform))
            members.append((config, manifest))
        images = await self._store.keep_index(render_index(entries, mediatypes.OCI_INDEX), members, refs)
        self._tell_names(self._store.find_named(refs[0]), refs)
        return [image.id for image in images]

    def _check_layers(self, config: bytes) -> None:
        for diff_id in decode_image(config).rootfs.diff_ids:
            if self._storage.layers.get(diff_id) is None:
                raise InvalidInput(f"layer {diff_id} of the image is not in the store")

    def _local_manifest(self, config: bytes) -> bytes:
        return local_manifest(config, [(layer, self._size(layer)) for layer in decode_image(config).rootfs.diff_ids])

    # -- inside

    def _tell_names(self, image: Image, names: Sequence[Reference]) -> None:
        for ref in names:
            self._publish("image", "tag", image.id, self._attributes(image, ref.familiar()))

    def _facts(self, image: Image, by_name: Reference | None, *, force: bool) -> RemovalFacts:
        return RemovalFacts(
            image=image,
            names=self._store.names_of(image.id),
            users=self._users_of(image),
            has_children=bool(self._store.children_of(image.id)),
            by_name=by_name,
            force=force,
        )

    def _size(self, diff_id: Digest) -> int:
        layer = self._storage.layers.get(diff_id)
        return layer.size if layer is not None else 0

    def _attributes(self, image: Image, name: str) -> dict[str, str]:
        """An event's attributes: the image's labels and the name."""
        labels = (image.config.config or {}).get("Labels") or {}
        return {**{str(key): str(value) for key, value in labels.items()}, "name": name}


def _wanted(platform: str | None) -> Platform | None:
    return parse_platform(platform) if platform else None


def _new_name(
    repository: str, tag: str, refusal: str = "refusing to create a tag with a digest reference"
) -> Reference:
    """The name to give an image; raises `InvalidInput` for a digest."""
    ref = parse_repository(repository, tag)
    if ref.digest is not None:
        raise InvalidInput(refusal)
    if ref.familiar_name == "sha256":
        raise InvalidInput("refusing to create an ambiguous tag using digest algorithm as name")
    return ref.with_default_tag()
