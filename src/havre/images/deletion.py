"""Removes images and names, and collects garbage: executes the plans of `deletionplan`.

All platforms of a name are removed together, and are in use if one of them is. A platform that another name refers
to stays.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field

from havre.errors import Conflict, InvalidInput
from havre.images import summaries
from havre.images.catalog import Image
from havre.images.deletionplan import RemovalFacts, RemovedItem, plan_removal
from havre.images.store import ImageStore
from havre.images.summaries import ImageUser, Publish, event_attributes
from havre.oci.digest import Digest
from havre.oci.image import chain_ids
from havre.oci.platform import parse_platform
from havre.oci.reference import Reference
from havre.storage.gc import collect, plan_collection
from havre.storage.store import Storage
from havre.wire.filters import Filters
from havre.wire.values import ImageId, Value

Users = Callable[[ImageId], Sequence[ImageUser]]
Needs = Callable[[], set[Digest]]


class Pruned(Value):
    """The result of `prune`, and the bytes freed."""

    images_deleted: list[RemovedItem] | None = None
    space_reclaimed: int = 0


@dataclass(slots=True)
class _Removal:
    """Items removed so far, and the bytes freed."""

    items: list[RemovedItem] = field(default_factory=list)
    freed: int = 0


@dataclass(frozen=True, slots=True)
class Prunable:
    """An image (or record of the build cache) that would be pruned, its names, and the bytes that this would free."""

    id: str
    names: tuple[str, ...]
    size: int


class Deletion:
    """Removes from one store.

    `users` returns the containers of an image, `also_needed` layers needed by other rooms.
    """

    def __init__(
        self,
        storage: Storage,
        store: ImageStore,
        publish: Publish,
        users: Users,
        also_needed: Needs,
    ) -> None:
        self._storage = storage
        self._store = store
        self._publish = publish
        self._users = users
        self._also_needed = also_needed

    def users_of(self, image: Image) -> list[ImageUser]:
        """The containers made from an image or from other platforms of its names."""
        return [user for one in (image, *self._store.siblings_of(image.id)) for user in self._users(one.id)]

    async def remove(
        self, name: str, *, force: bool = False, prune: bool = True, platforms: Sequence[str] = ()
    ) -> list[RemovedItem]:
        """Untag and delete by Docker's rules (see `deletionplan`); `prune` also deletes untagged, unused parents.

        With `platforms`, deletes only the images for these.
        """
        if not name.strip():
            raise InvalidInput("image name cannot be blank")
        removal = _Removal()
        if platforms and not force:
            raise InvalidInput(
                "Content will be removed from all images referencing this variant. Use --force to force delete."
            )
        async with self._store.changing:
            if (unreadable := await self._store.find_unreadable(name)) is not None:
                return await self._remove_unreadable(unreadable)
            found = [self._store.find(name, parse_platform(text)) for text in platforms]
            for image in {image.id: image for image in found}.values():
                await self._remove_platform(name, image, removal)
            if not platforms:
                await self._remove_name(name, self._store.find(name), removal, force=force, prune=prune)
        return removal.items

    async def _remove_unreadable(self, id: ImageId) -> list[RemovedItem]:
        """Delete the rows of an unreadable image and its names; its containers hold the layers that they need."""
        await self._store.forget_unreadable(id)
        self._publish("image", "delete", id, {"name": id})
        await self._collect()
        return [RemovedItem(deleted=id)]

    async def _remove_name(self, name: str, image: Image, removal: _Removal, *, force: bool, prune: bool) -> None:
        by_name = None if self._store.is_id(name, image.id) else self._store.named_text(name)
        plan = plan_removal(self._facts(image, by_name, force=force))
        siblings = self._store.siblings_of(image.id)
        for ref in plan.untag:
            await self._store.remove_name(ref)
            removal.items.append(RemovedItem(untagged=ref.familiar()))
            self._publish("image", "untag", image.id, event_attributes(image, image.id))
        if plan.delete:
            await self._delete(image, removal, prune=prune)
        await self._delete_unneeded(siblings, plan.untag, removal)

    async def _remove_platform(self, name: str, image: Image, removal: _Removal) -> None:
        """Delete the image of `name` for one platform, or the image with that ID, unless another name refers to it."""
        running = next((user for user in self._users(image.id) if user.running), None)
        if running is not None:
            raise Conflict(
                f"conflict: unable to delete {image.id[7:19]} (cannot be forced)"
                f" - image is being used by running container {running.id[:12]}"
            )
        ref = self._store.named_text(name)
        own = self._store.index_of(ref) if ref is not None else None
        indexes = [index for index in self._store.indexes_with(image.id) if ref is None or index == own]
        if all(len(index.images) == 1 for index in indexes):
            await self._remove_name(name, image, removal, force=True, prune=True)
            return
        for index in indexes:
            removal.items.append(RemovedItem(deleted=index.manifest_of(image.id).digest))
            await self._store.leave(index, image.id)
        if not self._store.names_with(image.id) and not self._store.children_of(image.id):
            await self._delete(image, removal, prune=True)

    async def _delete_all(self, image: Image, removal: _Removal, *, prune: bool) -> None:
        """Delete an image, and the other platforms of its names unless they are still needed."""
        siblings, names = self._store.siblings_of(image.id), self._store.names_of(image.id)
        await self._delete(image, removal, prune=prune)
        await self._delete_unneeded(siblings, names, removal)

    async def _delete_unneeded(self, images: Sequence[Image], gone: Sequence[Reference], removal: _Removal) -> None:
        """Delete images of removed names. With the last tag in a repository its digest references are removed, too."""
        for image in images:
            tagged = {ref.name for ref in self._store.names_with(image.id) if ref.tag is not None}
            for ref in self._store.names_of(image.id):
                if ref.name in {other.name for other in gone} - tagged:
                    await self._store.remove_name(ref)
                    removal.items.append(RemovedItem(untagged=ref.familiar()))
            needed = self._store.names_with(image.id) or self._users(image.id) or self._store.children_of(image.id)
            if image.id in self._store and not needed:
                await self._delete(image, removal, prune=False)

    async def _delete(self, image: Image, removal: _Removal, *, prune: bool) -> None:
        removal.items += [RemovedItem(untagged=ref.familiar()) for ref in self._store.names_of(image.id)]
        await self._store.delete(image.id)
        removal.items.append(RemovedItem(deleted=image.id))
        self._publish("image", "delete", image.id, event_attributes(image, image.id))
        chains = chain_ids(image.layers)
        for diff_id, chain in reversed(list(zip(image.layers, chains, strict=True))):
            freed = await self.drop_layer(diff_id)
            removal.freed += freed
            if freed:
                removal.items.append(RemovedItem(deleted=chain))
        if prune and ImageId(image.row.parent) in self._store:
            parent = self._store.get(ImageId(image.row.parent))
            facts = self._facts(parent, None, force=False)
            if not (facts.names or facts.users or facts.has_children):
                await self._delete(parent, removal, prune=True)

    async def prune(self, filters: Filters | None = None) -> Pruned:
        """Delete dangling images, or with `dangling=false` all images without containers."""
        filters = dict(filters or {})
        summaries.check_prune_filters(filters)
        only_dangling = summaries.dangling(filters) is not False
        filters.pop("dangling", None)
        removal = _Removal()
        async with self._store.changing:
            names = {image.id: self._store.names_of(image.id) for image in self._store}
            for image in summaries.select(list(self._store), names, filters, self._store.find):
                if image.id not in self._store or self.users_of(image) or self._store.children_of(image.id):
                    continue
                if not self._store.is_sibling(image) and (not only_dangling or summaries.is_dangling(names[image.id])):
                    await self._delete_all(image, removal, prune=True)
            reclaimed = removal.freed + await self._collect()
        self._publish("image", "prune", "", {"reclaimed": str(reclaimed)})
        return Pruned(images_deleted=removal.items or None, space_reclaimed=reclaimed)

    def prunable(self, filters: Filters, gone: Collection[str]) -> list[Prunable]:
        """The images that `prune` would delete after the containers `gone`, with the bytes of layers freed."""
        filters = dict(filters)
        summaries.check_prune_filters(filters)
        only_dangling = summaries.dangling(filters) is not False
        filters.pop("dangling", None)
        left = {image.id: image for image in self._store}
        names = {id: self._store.names_of(id) for id in left}
        hidden = {id for id, image in left.items() if self._store.is_sibling(image)}
        held = self._also_needed() | self._storage.held()
        held |= self._storage.snapshots.layers_in_use() - self.live_layers()
        chosen = []
        for image in summaries.select(list(self._store), names, filters, self._store.find):
            parents = {other.row.parent for other in left.values()}
            used = any(user.id not in gone for user in self.users_of(image)) or image.id in parents
            if used or image.id in hidden or (only_dangling and not summaries.is_dangling(names[image.id])):
                continue
            for id in (image.id, *(sibling.id for sibling in self._store.siblings_of(image.id))):
                left.pop(id, None)
            needed = held.union(*(other.layers for other in left.values()))
            layers = [self._storage.layers.get(layer) for layer in set(self._store.layers_of(image)) - needed]
            size = sum(layer.size for layer in layers if layer is not None)
            chosen.append(Prunable(image.id, tuple(ref.familiar() for ref in names[image.id]), size))
        return chosen

    async def delete_exactly(self, ids: Sequence[str]) -> int:
        """Delete these images, all their names and the names' other platforms, but no parents. Returns the bytes freed.

        Images that are in use by now are skipped.
        """
        removal = _Removal()
        async with self._store.changing:
            for image in [self._store.get(id) for id in map(ImageId, ids) if id in self._store]:
                if not self.users_of(image) and not self._store.children_of(image.id):
                    await self._delete_all(image, removal, prune=False)
        return removal.freed

    async def drop_layer(self, diff_id: Digest) -> int:
        """Remove a layer unless it is needed. Returns the bytes freed."""
        if diff_id in self.needed_layers() | self._storage.held() | self._storage.snapshots.layers_in_use():
            return 0
        await self._storage.snapshots.unmount_layer(diff_id)
        return await self._storage.layers.remove(diff_id)

    async def collect_garbage(self) -> int:
        """Remove unreferenced layers and documents (left by failed pulls, for instance). Returns the bytes freed.

        Removes nothing while an image is unreadable, because its references are unknown.
        """
        async with self._store.changing:  # a concurrent store may reuse a document that was garbage until now
            return await self._collect()

    async def _collect(self) -> int:
        if self._store.unreadable:
            return 0
        return await collect(self._storage, self.needed_layers(), self._store.documents())

    def leftovers(self) -> list[tuple[Digest, int]]:
        """Digests and sizes of what `collect_garbage` would remove now."""
        return plan_collection(self._storage, self.needed_layers(), self._store.documents())

    def live_layers(self, gone: Collection[str] = ()) -> set[Digest]:
        """The layers of all images except those of `gone`."""
        return {layer for image in self._store if image.id not in gone for layer in image.layers}

    def needed_layers(self) -> set[Digest]:
        return self.live_layers() | self._also_needed()

    def _facts(self, image: Image, by_name: Reference | None, *, force: bool) -> RemovalFacts:
        return RemovalFacts(
            image=image,
            names=self._store.names_of(image.id),
            users=self.users_of(image),
            has_children=bool(self._store.children_of(image.id)),
            by_name=by_name,
            force=force,
        )
