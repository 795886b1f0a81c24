"""SBOMs of stored images, read from their layers.

The layers are mounted together for the duration of a search; nothing is copied or executed. Concurrent requests
share one search, which runs to its end even if all clients leave. Results of the latest images are cached, as layers
never change. A list too long for an attestation is truncated and says so.

Source: SPDX 2.3, CycloneDX 1.5 (havre.packages).
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

from havre import __version__
from havre.aio import in_own_thread, spawn
from havre.errors import Failed, InvalidInput
from havre.images.inventory import take_inventory
from havre.oci.attestation import MAX_ATTESTED
from havre.oci.digest import Digest, digest_of
from havre.oci.image import decode_image
from havre.packages.cyclonedx import render_cyclonedx
from havre.packages.model import Inventory
from havre.packages.spdx import Subject, render_spdx
from havre.storage import Storage

SPDX = "spdx-json"
FORMS: Mapping[str, Callable[[Inventory, Subject], bytes]] = {SPDX: render_spdx, "cyclonedx-json": render_cyclonedx}
_KEPT = 16


class Inventories:
    """The inventories of images."""

    def __init__(self, storage: Storage) -> None:
        self._storage = storage
        self._kept: OrderedDict[tuple[Digest, ...], Inventory] = OrderedDict()
        self._looks: dict[tuple[Digest, ...], asyncio.Task[Inventory]] = {}

    async def render(self, document: bytes, title: str, form: str = SPDX) -> bytes:
        """The SBOM of an image with this configuration, dated as the image; its layers must be present.

        `form` is one of `FORMS`, else `InvalidInput`.
        """
        if form not in FORMS:
            raise InvalidInput(f"unknown SBOM format {form}: expected {' or '.join(FORMS)}")
        image = decode_image(document)
        inventory = await self._inventory(image.rootfs.diff_ids)
        subject = Subject(name=title, digest=digest_of(document), created=image.created, tool=f"havre-{__version__}")
        return await in_own_thread(_render, FORMS[form], inventory, subject)

    async def _inventory(self, layers: tuple[Digest, ...]) -> Inventory:
        """The packages installed in the layers, base first."""
        if (found := self._kept.get(layers)) is None:
            if (look := self._looks.get(layers)) is None:
                look = self._looks[layers] = spawn(self._look(layers), "look for packages")
                look.add_done_callback(lambda _: self._looks.pop(layers))
            found = await asyncio.shield(look)
        self._kept[layers] = found
        self._kept.move_to_end(layers)
        while len(self._kept) > _KEPT:
            self._kept.popitem(last=False)
        return found

    async def _look(self, layers: tuple[Digest, ...]) -> Inventory:
        async with self._storage.mounted(layers) as root:
            try:
                return await in_own_thread(take_inventory, root)
            except OSError as error:
                raise Failed(f"looking for packages: {error}") from error


def _render(form: Callable[[Inventory, Subject], bytes], inventory: Inventory, subject: Subject) -> bytes:
    """The document, with packages dropped at the end while it exceeds the size limit of an attestation."""
    document, packages, gaps = form(inventory, subject), inventory.packages, inventory.gaps
    while len(document) > MAX_ATTESTED and packages:
        packages = packages[: len(packages) // 2]
        listed = f"only {len(packages)} of {len(inventory.packages)} packages are listed"
        gap = f"{listed}: the limit is {MAX_ATTESTED} bytes"
        document = form(replace(inventory, packages=packages, gaps=(*gaps, gap)), subject)
    return document
