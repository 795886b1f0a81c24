"""Creates an image of one layer from the tar of a root file system (`docker import`)."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

import msgspec

from havre.dockerfile.changes import apply_changes
from havre.images.catalog import Image
from havre.images.store import Hold, ImageStore
from havre.oci.image import History, ImageConfig, RootFs, encode_image
from havre.oci.platform import Platform
from havre.oci.reference import Reference
from havre.storage.layers import Layers
from havre.wire.config import Config
from havre.wire.times import now


async def import_root(
    layers: Layers,
    store: ImageStore,
    hold: Hold,
    chunks: AsyncIterator[bytes],
    message: str,
    changes: Sequence[str],
    platform: Platform,
    names: Sequence[Reference],
) -> Image:
    """Read the tar (compressed or not), create and name the image. A refused change or tar leaves nothing behind."""
    config = apply_changes(Config(), changes)
    async with layers.ingest() as sink:
        async for chunk in chunks:
            await sink.write(chunk)
        layer = await sink.finish()
    created = now()
    image = ImageConfig(
        architecture=platform.architecture,
        variant=platform.variant,
        os=platform.os,
        created=created,
        comment=message,
        config=msgspec.to_builtins(config),
        rootfs=RootFs(diff_ids=(layer.diff_id,)),
        history=(History(created=created, comment=message),),
    )
    with hold(layer.diff_id):
        return await store.keep(encode_image(image), names)
