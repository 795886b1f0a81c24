"""The public face of the room: find, list, pull, push, tag, remove, load, save and import images.

    catalog       finds images and names       store         reads and writes them
    listing       what clients see             summaries     list, inspect, history, filters (pure)
    index         names of several platforms   manifests     which platforms are present (pure)
    deletion      remove, prune, garbage       deletionplan  Docker's rules for removing (pure)
    integrity     check and repair             layout        writes tars and OCI layouts
    loading       reads tars of images         importing     an image from a root file system
    transfers     to and from registries       pull, push    one image's transfer
    saving        writes stored images out     searching     search, inspect in a registry
    inventory     finds installed packages     sbom          renders them as SBOMs
    attestations  what is attested of an image

Platforms are strings (`linux/arm64`). A name of several platforms resolves to the host's, otherwise to the first one
present.
"""

from __future__ import annotations

import builtins  # `list` is a method below
import platform as host
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager, AbstractContextManager

from msgspec.structs import replace

from havre.errors import InvalidInput
from havre.images import summaries
from havre.images.attestations import AttestationStatement, read_statements
from havre.images.catalog import Image, ImageRow, NameRow
from havre.images.deletion import Deletion, Needs, Prunable, Pruned, Users
from havre.images.deletionplan import RemovedItem
from havre.images.importing import import_root
from havre.images.index import IndexRow
from havre.images.integrity import Finding, Integrity
from havre.images.layout import LaidOut, Layout, LayoutForm
from havre.images.listing import Listing
from havre.images.loading import Loader
from havre.images.progress import Progress, ProgressLine, unobserved
from havre.images.saving import Saver
from havre.images.sbom import SPDX, Inventories
from havre.images.searching import MAX_LIMIT, RemoteImage, check_limit, describe_remote, select_found
from havre.images.store import ImageStore, Tables
from havre.images.summaries import Publish, RunImage, event_attributes
from havre.images.transfers import Transfers
from havre.oci import mediatypes
from havre.oci.attestation import Predicate, attest
from havre.oci.digest import Digest
from havre.oci.image import decode_image
from havre.oci.manifest import Descriptor, describe, render_index
from havre.oci.platform import Platform, parse_platform, platform_of_machine
from havre.oci.reference import Reference, parse_reference, parse_repository
from havre.registry import Auth, FoundRepository, Policy, PublicKey, Registry
from havre.storage.store import Storage
from havre.wire.filters import Filters
from havre.wire.images import HistoryItem, ImageDetails, ImageSummary
from havre.wire.values import ImageId


class Images:
    """All images. `users` are an image's containers, `also_needed` other rooms' layers, `policy` signatures needed."""

    def __init__(
        self,
        storage: Storage,
        registry: Registry,
        store: ImageStore,
        publish: Publish,
        users: Users,
        policy: Policy | None = None,
        also_needed: Needs = set,
    ) -> None:
        self._storage = storage
        self._registry = registry
        self._store = store
        self._publish = publish
        self._users = users
        self._platform = store.platform
        self._inventories = Inventories(storage)
        self._deletion = Deletion(storage, store, publish, users, also_needed)
        self._listing = Listing(storage, store, users, self._deletion.users_of)
        self._saver = Saver(storage, store, publish)
        self._transfers = Transfers(storage, registry, store, publish, self._saver, policy)

    @classmethod
    async def open(
        cls,
        storage: Storage,
        registry: Registry,
        publish: Publish,
        users: Users,
        policy: Policy | None = None,
        also_needed: Needs = set,
    ) -> Images:
        """Load the images."""
        tables = Tables(
            storage.db.table("images", ImageRow),
            storage.db.table("image_names", NameRow),
            storage.db.table("image_indexes", IndexRow),
        )
        store = ImageStore(storage.blobs, tables, storage.hold, platform_of_machine(host.machine()))
        await store.load()
        return cls(storage, registry, store, publish, users, policy, also_needed)

    def limit_transfers(self, downloads: int, uploads: int) -> None:
        """Limit concurrent layer transfers (0: the default); those under way are not affected."""
        self._transfers.limit(downloads, uploads)

    def limit_layers(self, size_bytes: int) -> None:
        """Limit what an incoming layer may unpack to."""
        self._storage.layers.layer_limit = size_bytes

    # -- finding

    def resolve(self, name: str) -> ImageId:
        """The ID of the image with this name, digest, ID or unambiguous ID prefix. `NotFound` "No such image: x"."""
        return self._store.find(name).id

    def made_from(self, text: str) -> builtins.list[ImageId]:
        """The images with this name or ID, and those committed or built from them."""
        return self._store.made_from(self.platforms_of(text))

    def platforms_of(self, name: str) -> builtins.list[ImageId]:
        """The IDs of all images that `name` refers to, the one it resolves to first."""
        return self._store.platforms_of(name)

    async def acquire(self, name: str, platform: str | None = None) -> RunImage:
        """The image to create a container from. `NotFound` also when it is not present for the platform asked for."""
        image = self._store.find(name, _wanted(platform))
        return RunImage(image.id, summaries.image_config(image), image.layers, image.config.platform)

    def hold(self, layers: Sequence[Digest]) -> AbstractContextManager[None]:
        """Protect layers that were just acquired from garbage collection during a block."""
        return self._storage.hold(*layers)

    def familiar_name(self, id: str) -> str:
        """The display name of an image: its first tag, otherwise its ID."""
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
        """The images that match the filters, newest first; counts are -1 unless asked for.

        Untagged parents of other images are omitted unless `all`.
        """
        return self._listing.list(filters or {}, all=all, shared_size=shared_size, containers=containers)

    def inspect(self, name: str, platform: str | None = None) -> ImageDetails:
        """The details of one image, as `docker inspect` shows them."""
        return self._listing.describe(self._store.find(name, _wanted(platform)))

    def size(self, id: str) -> int:
        """Bytes of an image's layers; 0 if there is no image with this ID."""
        return self._listing.size(ImageId(id))

    def history(self, name: str, platform: str | None = None) -> builtins.list[HistoryItem]:
        """The history of an image, newest step first."""
        return self._listing.recount(self._store.find(name, _wanted(platform)))

    async def sbom(self, name: str, platform: str | None = None, form: str = SPDX) -> bytes:
        """The SBOM of an image as JSON, titled with the name under which it was requested.

        `form` is spdx-json or cyclonedx-json; `InvalidInput` for any other.
        """
        image = self._store.find(name, _wanted(platform))
        given = [each.familiar() for each in self._store.names_with(image.id)]
        title = next((each for each in given if each in (name, f"{name}:latest")), self.familiar_name(image.id))
        return await self._inventories.render(await self._storage.blobs.read(Digest(image.id)), title, form)

    async def attestations(
        self, name: str, platform: str | None = None, types: Collection[str] = (), *, whole: bool = False
    ) -> builtins.list[AttestationStatement]:
        """What is attested of an image for `platform`, by default the host's; `NotFound` if there is none for it."""
        image = self._store.find_for(name, _wanted(platform) or self._platform)
        return await read_statements(image, self._store, self._storage.blobs, types, whole=whole)

    async def describe_packages(self, document: bytes, title: str) -> bytes:
        """The SPDX document (see `sbom`) of an image with this configuration, stored or not, whose layers are
        present."""
        return await self._inventories.render(document, title)

    async def show_descriptor(self, shown: ImageSummary | ImageDetails, *, of_platform: bool = False) -> None:
        """Add to a summary or details what the image's name refers to, an index or a manifest.

        `of_platform`: the image's own manifest, also of an index.
        """
        await self._listing.show_descriptor(shown, of_platform=of_platform)

    async def show_manifests(self, shown: ImageSummary | ImageDetails, *, identity: bool = False) -> None:
        """Add to a summary or details the manifests of the image's names, each with what is present of it.

        `identity`: and where it came from.
        """
        await self._listing.show_manifests(shown, identity=identity)

    def layers_size(self) -> int:
        """Bytes of all layers, each counted once."""
        return sum(layer.size for layer in self._storage.layers.all())

    def unused_size(self) -> int:
        """Bytes of the layers that only images without containers have."""
        return self._listing.unused_size()

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
        """Pull `name` at `tag` (a tag or digest), or every tag if neither is given. Returns the ID of the last image
        pulled.

        `verify` is a public key (PEM) that must have signed the image, in addition to the daemon's policy.
        """
        key = PublicKey(verify, "given") if verify else None
        wanted = _wanted(platform)
        return await self._transfers.pull(parse_repository(name, tag), wanted, auth, key, progress)

    async def push(
        self,
        name: str,
        tag: str = "",
        *,
        auth: Auth | None = None,
        platform: str | None = None,
        progress: Progress = unobserved,
        insecure: bool = False,
    ) -> builtins.list[Descriptor]:
        """Push `name` at `tag`, or every tag of the repository that is present; `NotFound` if there is none.

        Returns the descriptors of what was pushed. A name of several platforms is pushed as a whole if every
        manifest of its index is present here or in the registry, otherwise (or with `platform`) as one image;
        `Conflict` if there are several images and none is for the host. `insecure` permits a registry without TLS.
        """
        ref = parse_repository(name, tag)
        return await self._transfers.push(ref, platform, auth, progress, insecure=insecure)

    async def push_laid_out(
        self,
        image: LaidOut,
        form: LayoutForm,
        name: str,
        auth: Auth | None = None,
        *,
        by_digest: bool = False,
        insecure: bool = False,
    ) -> Descriptor:
        """Push an image, stored or not, whose layers are present, in the given form. Returns the descriptor pushed."""
        ref = parse_reference(name).with_default_tag()
        return await self._transfers.push_laid_out(image, form, ref, auth, by_digest=by_digest, insecure=insecure)

    async def login(self, auth: Auth) -> str:
        """Check credentials with their registry.

        `Unauthorized` if refused. Returns the identity token to store, if any.
        """
        return await self._registry.login(auth)

    async def search(
        self, term: str, limit: int | None = None, filters: Filters | None = None, auth: Auth | None = None
    ) -> builtins.list[FoundRepository]:
        """The repositories that a registry (Docker Hub, or the host in `host/term`) finds for `term`."""
        wanted = check_limit(limit)
        select_found((), filters or {})  # raises for bad filters before any request
        found = await self._registry.search(term, MAX_LIMIT if filters else wanted, auth)
        return select_found(found, filters or {})[:wanted]

    async def describe_remote(self, name: str, auth: Auth | None = None) -> RemoteImage:
        """The descriptor and platforms of `name` in its registry, without pulling it."""
        return await describe_remote(self._registry, parse_reference(name).with_default_tag(), auth)

    async def remote_document(
        self, name: str, *, auth: Auth | None = None, platform: str | None = None, exact: bool = True
    ) -> tuple[bytes, Callable[[Digest], Awaitable[None]]]:
        """The configuration of an image in its registry, and a function that fetches a layer of it. Pulls nothing
        itself.

        For an image of a single platform, another platform than `platform` is accepted unless `exact`.
        """
        ref = parse_reference(name).with_default_tag()
        return await self._transfers.remote_document(ref, _wanted(platform), auth, exact=exact)

    async def push_document(self, document: bytes, name: str, auth: Auth | None = None) -> None:
        """Push an image that is not stored, but whose layers are."""
        await self._transfers.push_document(document, parse_reference(name).with_default_tag(), auth)

    # -- names

    async def tag(self, name: str, repository: str, tag: str = "") -> None:
        """Add another name for the image or index that `name` refers to."""
        ref = _new_name(repository, tag)
        async with self._store.changing:
            image, named = self._store.find(name), self._store.named_text(name)
            index = self._store.index_of(named) if named is not None else None
            await self._store.set_name(ref, image.id, index.digest if index is not None else None)
        self._publish("image", "tag", image.id, event_attributes(image, ref.familiar()))

    # -- removing

    async def remove(
        self, name: str, *, force: bool = False, prune: bool = True, platforms: Sequence[str] = ()
    ) -> builtins.list[RemovedItem]:
        """Untag and delete by Docker's rules, all that `name` refers to or only some `platforms` of it."""
        return await self._deletion.remove(name, force=force, prune=prune, platforms=platforms)

    async def prune(self, filters: Filters | None = None) -> Pruned:
        """Delete dangling images, or with `dangling=false` all images without containers."""
        return await self._deletion.prune(filters)

    def prunable(self, filters: Filters, gone: Collection[str]) -> builtins.list[Prunable]:
        """The images that `prune` would delete after the containers `gone`, with the bytes of layers freed."""
        return self._deletion.prunable(filters, gone)

    async def delete_exactly(self, ids: Sequence[str]) -> int:
        """Delete images with all their names and platforms, skipping those in use. Returns the bytes freed."""
        return await self._deletion.delete_exactly(ids)

    async def collect_garbage(self) -> int:
        """Remove unreferenced layers and documents (left by failed pulls, for instance). Returns the bytes freed."""
        return await self._deletion.collect_garbage()

    def live_layers(self, gone: Collection[str] = ()) -> set[Digest]:
        """The layers of all images except those of `gone`."""
        return self._deletion.live_layers(gone)

    def leftovers(self) -> builtins.list[tuple[Digest, int]]:
        """Digests and sizes of what `collect_garbage` would remove now."""
        return self._deletion.leftovers()

    async def check(self, *, repair: bool = False) -> builtins.list[Finding]:
        """Read every blob, layer and image. Returns what is damaged and, with `repair`, the outcome of the repair."""
        integrity = Integrity(
            self._storage, self._store, self._deletion.needed_layers, self._registry, self._transfers.pull_again
        )
        findings = await integrity.look()
        if repair and findings:
            await integrity.mend(findings)
            await self._store.load()
        return findings

    # -- archives

    async def load(
        self, chunks: AsyncIterator[bytes], progress: Progress = unobserved, platforms: Sequence[str] = ()
    ) -> builtins.list[ImageId]:
        """Load the images of a tar (docker-archive or OCI layout, compressed or not), or only those for `platforms`."""
        loader = Loader(self._storage.layers, self._store, self._storage.hold, self._deletion.drop_layer)
        loaded = await loader.load(chunks, builtins.list(map(parse_platform, platforms)))
        for one in loaded:
            for ref in one.names:
                if (before := one.replaced.get(ref)) is not None:
                    words = f"The image {ref.familiar()} already exists, renaming the old one with ID {before}"
                    progress(ProgressLine(stream=f"{words} to empty string\n"))
                progress(ProgressLine(stream=f"Loaded image: {ref.familiar()}\n"))
            if not one.names:
                progress(ProgressLine(stream=f"Loaded image ID: {one.image.id}\n"))
            self._publish("image", "load", one.image.id, event_attributes(one.image, one.image.id))
        return [one.image.id for one in loaded]

    def save(self, names: Sequence[str], platforms: Sequence[str] = ()) -> AsyncGenerator[bytes, None]:
        """A tar of the images, both docker-archive and OCI layout; `NotFound` before its first byte. To be closed.

        A name of several platforms is saved with those given, or with all that are present.
        """
        return self._saver.save(names, builtins.list(map(parse_platform, platforms)))

    async def document(self, name: str, platform: str | None = None) -> bytes:
        """The stored configuration of the image `name`, for `platform` if given."""
        return await self._storage.blobs.read(Digest(self._store.find(name, _wanted(platform)).id))

    def laid_out(self, image: LaidOut, form: LayoutForm) -> AbstractAsyncContextManager[Layout]:
        """An image, stored or not, whose layers are present, as an OCI layout to be written during a block.

        `NotFound` for a missing layer, `InvalidInput` for an unknown form.
        """
        return self._saver.laid_out(image, form)

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
        """Create an image of one layer from a streamed tar of a root file system, and apply the Dockerfile
        `changes`."""
        ref = _new_name(repository, tag, "cannot import digest reference") if repository else None
        wanted = _wanted(platform) or self._platform
        if wanted.os != "linux":
            raise InvalidInput(f"operating system is not supported: {wanted.os}", "expected linux/ARCHITECTURE")
        names = [ref] if ref is not None else []
        image = await import_root(
            self._storage.layers, self._store, self._storage.hold, chunks, message, changes, wanted, names
        )
        self._publish_tags(image, names)
        self._publish("image", "import", image.id, {"name": image.id})
        return image.id

    async def create(
        self, config: bytes, *, parent: str = "", names: Sequence[str] = (), predicates: Sequence[Predicate] = ()
    ) -> ImageId:
        """Create an image from a configuration whose layers are present (commit, build); `InvalidInput` if one is
        missing.

        With `predicates`, its names refer to an index of the image and its attestations.
        """
        if predicates and names:
            return (await self.create_platforms([config], names, [predicates]))[0]
        self._check_layers(config)
        refs = [parse_reference(name).with_default_tag() for name in names]
        image = await self._store.keep(config, refs, parent=parent)
        self._publish_created([image], refs)
        return image.id

    async def create_platforms(
        self, configs: Sequence[bytes], names: Sequence[str], predicates: Sequence[Sequence[Predicate]] = ()
    ) -> builtins.list[ImageId]:
        """Create an image of each configuration, one for each platform; the names refer to all of them. See `create`.

        `predicates` are those of each image, in the same order. `InvalidInput` also for two images of one platform.
        """
        refs = [parse_reference(name).with_default_tag() for name in names]
        if not refs:
            return [await self.create(config) for config in configs]
        entries: builtins.list[Descriptor] = []
        members, attested = [], []
        for config, statements in zip(configs, predicates or [()] * len(configs), strict=True):
            self._check_layers(config)
            image = decode_image(config)
            if any(entry.platform is not None and entry.platform.same_as(image.platform) for entry in entries):
                raise InvalidInput(f"two images are for the platform {image.platform}", "give one for each platform")
            manifest = self._listing.local_manifest(config)
            entries.append(replace(describe(mediatypes.OCI_MANIFEST, manifest), platform=image.platform))
            members.append((config, manifest))
            if statements:
                attested.append(attest(entries[-1].digest, image.platform, refs, statements))
        index = render_index([*entries, *(each.manifest for each in attested)], mediatypes.OCI_INDEX)
        images = await self._store.keep_index(index, members, refs, attested)
        self._publish_created([self._store.find_named(refs[0])], refs)
        return [image.id for image in images]

    def _check_layers(self, config: bytes) -> None:
        for diff_id in decode_image(config).rootfs.diff_ids:
            if self._storage.layers.get(diff_id) is None:
                raise InvalidInput(f"layer {diff_id} of the image is not in the store")

    # -- inside

    def _publish_created(self, images: Sequence[Image], names: Sequence[Reference]) -> None:
        for image in images:
            self._publish("image", "create", image.id, event_attributes(image, image.id))
            self._publish_tags(image, names)

    def _publish_tags(self, image: Image, names: Sequence[Reference]) -> None:
        for ref in names:
            self._publish("image", "tag", image.id, event_attributes(image, ref.familiar()))


def _wanted(platform: str | None) -> Platform | None:
    return parse_platform(platform) if platform else None


def _new_name(
    repository: str, tag: str, refusal: str = "refusing to create a tag with a digest reference"
) -> Reference:
    """The new name of an image. Raises `InvalidInput` for a digest."""
    ref = parse_repository(repository, tag)
    if ref.digest is not None:
        raise InvalidInput(refusal)
    if ref.familiar_name == "sha256":
        raise InvalidInput("refusing to create an ambiguous tag using digest algorithm as name")
    return ref.with_default_tag()
