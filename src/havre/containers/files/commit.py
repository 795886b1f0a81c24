"""Creates an image from a container: its image's layers, its changes as one more layer, and its configuration.

The container is paused meanwhile unless requested otherwise, so that the layer is consistent. Without changes there is
no layer, and the history entry is marked empty. The configuration is the container's, or the request's completed with
the container's; `--change` instructions are applied last.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import msgspec

from havre.containers.container import Container
from havre.containers.create.configure import merge_config
from havre.containers.life.control import Control
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.live import Live
from havre.dockerfile.changes import apply_changes
from havre.errors import Conflict, HavreError, InvalidInput
from havre.images.images import Images
from havre.oci.digest import Digest
from havre.oci.image import History, ImageConfig, RootFs, decode_image, encode_image
from havre.oci.reference import Reference, parse_reference
from havre.storage import Storage
from havre.wire import times
from havre.wire.config import Config


@dataclass(frozen=True, slots=True)
class CommitOptions:
    """The options of `POST /commit`; a `config` of None is the container's."""

    repository: str = ""
    tag: str = ""
    author: str = ""
    comment: str = ""
    pause: bool = True
    changes: Sequence[str] = field(default=())
    config: Config | None = None


class Commit:
    """Creates images from containers."""

    def __init__(self, images: Images, storage: Storage, control: Control, lifecycle: Lifecycle) -> None:
        self._images = images
        self._storage = storage
        self._control = control
        self._lifecycle = lifecycle

    async def run(self, live: Live, options: CommitOptions) -> str:
        """Returns the new image's ID. Raises `InvalidInput` (name, instruction), `Conflict` during removal."""
        container = live.container
        if live.removing:
            raise Conflict(f"You cannot commit container {container.id} which is being removed")
        reference = _reference(options)
        config = apply_changes(_config_of(container, options.config), options.changes)
        base = decode_image(await self._storage.blobs.read(Digest(container.spec.image)))
        async with self._still(live, options.pause):
            diff_id = await self._take_layer(container.id)
            image = plan_image(container, config, base, diff_id, options, times.now())
            names = [reference.familiar()] if reference else []
            with self._storage.hold(*image.rootfs.diff_ids):
                id = await self._images.create(encode_image(image), parent=container.spec.image, names=names)
            attributes = {"comment": options.comment, "imageID": id, "imageRef": names[0] if names else ""}
            self._lifecycle.publish(container, "commit", **attributes)
        return id

    @asynccontextmanager
    async def _still(self, live: Live, wanted: bool) -> AsyncIterator[None]:
        """Pause a running container for the block; best effort if it ends meanwhile."""
        if not wanted or live.process is None or live.container.state.paused:
            yield
            return
        try:
            await self._control.pause(live)
        except Conflict:
            yield
            return
        try:
            yield
        finally:
            try:
                await self._control.unpause(live)
            except HavreError:
                if live.process is not None and live.container.state.paused:
                    raise

    async def _take_layer(self, id: str) -> Digest | None:
        """Store the container's changes as a layer; None if there are none."""
        if not await self._storage.snapshots.changes(id):
            return None
        async with self._storage.layers.ingest() as sink:
            async for piece in self._storage.snapshots.diff_tar(id):
                await sink.write(piece)
            return (await sink.finish()).diff_id


def _reference(options: CommitOptions) -> Reference | None:
    if not options.repository:
        return None
    reference = parse_reference(f"{options.repository}:{options.tag}" if options.tag else options.repository)
    if reference.digest is not None:
        raise InvalidInput("cannot create a tag with a digest reference")
    return reference.with_default_tag()


def _config_of(container: Container, wanted: Config | None) -> Config:
    """The request's configuration completed with the container's; the host name is kept, as in docker's images."""
    return merge_config(wanted, container.spec.config) if wanted is not None else container.spec.config


def plan_image(
    container: Container, config: Config, base: ImageConfig, diff_id: Digest | None, options: CommitOptions, now: str
) -> ImageConfig:
    """The new image's configuration. Pure."""
    step = History(
        created=now,
        created_by=" ".join(container.spec.config.cmd or []),
        author=options.author,
        comment=options.comment,
        empty_layer=diff_id is None,
    )
    return msgspec.structs.replace(
        base,
        created=now,
        author=options.author,
        comment=options.comment,
        config=msgspec.to_builtins(config),
        rootfs=RootFs(diff_ids=(*base.rootfs.diff_ids, *([diff_id] if diff_id else []))),
        history=(*(base.history or ()), step),
    )
