"""Checks the image store and repairs it: `havre system check [--repair]`.

    look    read and hash every blob and layer; check that every image has its documents and layers
    mend    a layer's index      rebuilt from its tar
            an image             damaged parts are fetched again by digest from the registry it came from
            unreferenced parts   removed
            an unreadable image that no registry has     its rows are deleted (its containers keep their layers)

A damaged part is removed only after the registry has confirmed that it can be fetched.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from havre.errors import HavreError
from havre.images.catalog import Image
from havre.images.store import ImageStore
from havre.oci.digest import Digest
from havre.oci.platform import Platform
from havre.oci.reference import Reference
from havre.registry import Fetched
from havre.storage.store import Storage
from havre.storage.verify import rebuild_index, verify_layer
from havre.wire.values import ImageId, Value

Needed = Callable[[], set[Digest]]
Pull = Callable[[Reference, Platform | None], Awaitable[object]]


class Source(Protocol):
    """The registry call that tells whether an image can be fetched again."""

    async def manifest(self, ref: Reference) -> Fetched: ...


class Finding(Value):
    """One damaged item: `kind` is blob, layer or image; `outcome` is what was done, or what the user should do."""

    kind: str
    id: str
    problem: str
    outcome: str = ""
    mended: bool = False


class Integrity:
    """One full check, and its repair."""

    def __init__(self, storage: Storage, store: ImageStore, needed: Needed, source: Source, pull: Pull) -> None:
        self._storage = storage
        self._store = store
        self._needed = needed
        self._source = source
        self._pull = pull
        self._bad: dict[Digest, Finding] = {}

    async def look(self) -> list[Finding]:
        """Read everything. Returns what is damaged."""
        findings = [*await self._look_at_blobs(), *await self._look_at_layers()]
        self._bad = {Digest(finding.id): finding for finding in findings}
        problems = dict.fromkeys(sorted(self._store.unreadable), "its configuration is missing or damaged")
        problems |= {image.id: self._problem_of(image) for image in self._store}
        return findings + [Finding(kind="image", id=id, problem=text) for id, text in problems.items() if text]

    async def mend(self, findings: Sequence[Finding]) -> None:
        """Repair what can be repaired and set the outcome of every finding."""
        for finding in findings:
            if finding.kind == "layer" and finding.outcome == "rebuild":
                await rebuild_index(self._storage.layers, Digest(finding.id))
                finding.mended, finding.outcome = True, "index rebuilt"
        for finding in findings:
            if finding.kind == "image":
                await self._mend_image(finding)
        for finding in findings:
            if finding.kind != "image" and not finding.mended:
                await self._mend_content(finding)

    async def _look_at_blobs(self) -> list[Finding]:
        found = []
        for digest in self._storage.blobs.all():
            try:
                await self._storage.blobs.read(digest)
            except HavreError as error:
                found.append(Finding(kind="blob", id=digest, problem=error.message))
        return found

    async def _look_at_layers(self) -> list[Finding]:
        slots = asyncio.Semaphore(os.cpu_count() or 1)

        async def look_at(diff_id: Digest) -> Finding:
            async with slots:
                problem, mendable = await verify_layer(self._storage.layers, diff_id)
            return Finding(kind="layer", id=diff_id, problem=problem, outcome="rebuild" if mendable else "")

        looked = await asyncio.gather(*(look_at(layer.diff_id) for layer in self._storage.layers.all()))
        return [finding for finding in looked if finding.problem]

    def _problem_of(self, image: Image) -> str:
        documents = self._store.documents_of(image.id)
        if any(digest in self._bad or not self._storage.blobs.has(digest) for digest in documents):
            return "a document of it is missing or damaged"
        for layer in image.layers:
            if self._storage.layers.get(layer) is None:
                return f"its layer {layer} is missing"
            if layer in self._bad and self._bad[layer].outcome != "rebuild":
                return f"its layer {layer} is damaged"
        return ""

    async def _mend_image(self, finding: Finding) -> None:
        id = ImageId(finding.id)
        was_readable = id in self._store
        for ref in await self._store.digests_of(id):
            try:
                await self._source.manifest(ref)
                await self._fetch_again(ref, id)
            except HavreError as error:
                finding.outcome = f"fetching {ref.familiar()} again failed: {error.message}"
                continue
            finding.mended, finding.outcome = True, f"fetched {ref.familiar()} again"
            return
        if not was_readable:
            await self._store.forget_unreadable(id)
            finding.mended = True
            finding.outcome = "removed from the database: it cannot be read or fetched again"
        elif not finding.outcome:
            finding.outcome = "no registry has it: remove it, then build or load it again"

    async def _fetch_again(self, ref: Reference, id: ImageId) -> None:
        """Remove the damaged parts of an image and pull it; a second time if its new configuration lists more
        layers."""
        if id not in self._store:
            await self._storage.blobs.remove(Digest(id))
            await self._pull(ref, None)
        image = self._store.get(id)
        if await self._drop_damaged(image) or self._problem_of(image):
            await self._pull(ref, image.config.platform)

    async def _drop_damaged(self, image: Image) -> bool:
        """Remove the damaged parts of an image. Returns whether there were any."""
        documents = self._store.documents_of(image.id) & self._bad.keys()
        layers = {layer for layer in image.layers if layer in self._bad and not self._bad[layer].mended}
        for digest in documents:
            await self._storage.blobs.remove(digest)
        for layer in layers:
            await self._remove_layer(layer)
        for digest in documents | layers:
            del self._bad[digest]
        return bool(documents or layers)

    async def _remove_layer(self, layer: Digest) -> None:
        await self._storage.snapshots.unmount_layer(layer)
        await self._storage.layers.remove(layer)

    async def _mend_content(self, finding: Finding) -> None:
        """Set the outcome of a damaged blob or layer: fetched with its image, removed as unreferenced, or still
        damaged."""
        digest = Digest(finding.id)
        if finding.kind == "blob":
            finding.mended = await self._is_sound_blob(digest)
        else:
            finding.mended = (await verify_layer(self._storage.layers, digest))[0] == ""
        in_use = self._needed() | self._storage.held() | self._storage.snapshots.layers_in_use()
        if finding.mended:
            finding.outcome = "fetched again with its image"
        elif finding.kind == "layer" and digest not in in_use:
            await self._remove_layer(digest)
            finding.mended, finding.outcome = True, "removed: nothing needs it"
        elif finding.kind == "blob" and digest not in self._store.documents():
            await self._storage.blobs.remove(digest)
            finding.mended, finding.outcome = True, "removed: nothing needs it"
        else:
            finding.outcome = "still needed, and cannot be fetched again"

    async def _is_sound_blob(self, digest: Digest) -> bool:
        try:
            await self._storage.blobs.read(digest)
        except HavreError:
            return False
        return True
