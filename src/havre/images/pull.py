"""Pulls an image: manifest, configuration, then its layers in parallel, each streamed into the layer store.

    registry --> manifest | index --> signature check, if required --> manifest for the platform
                                                                         |
                                                              configuration (diff IDs)
                                                                         |
        layer n: present -> "Already exists"                             v
                 else: download, decompress, hash and index in one pass (at most `DOWNLOADS` at once, shared with
                       other pulls of the same layer); attestations are fetched meanwhile, but complete layers wait
                       for them at most `ATTESTED_S`
                                                                         |
        all layers stored --> configuration, manifest and index stored --> names set; other platforms of the index stay

Names are set last, so a failed or cancelled pull leaves no image. Completed layers stay for the next attempt. The
progress lines and their order are dockerd's.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol

from havre.errors import HavreError, InvalidInput, NotFound, Unsupported
from havre.images.catalog import Image
from havre.images.documents import read_image
from havre.images.progress import Progress, ProgressLine, unobserved
from havre.images.sharing import SharedWork
from havre.images.store import Hold, ImageStore
from havre.oci import mediatypes
from havre.oci.attestation import MAX_ATTESTED, Attested, subject_of
from havre.oci.digest import Digest, digest_of, hex_of
from havre.oci.image import ImageConfig
from havre.oci.manifest import MAX_CONFIG, Descriptor, Index, Manifest, choose_manifest, decode_document
from havre.oci.platform import Platform
from havre.oci.reference import Reference
from havre.registry import Auth, Fetched, Policy, PublicKey, require_signature
from havre.storage.layers import Layers, Source
from havre.wire.values import ImageId

log = logging.getLogger(__name__)

DOWNLOADS = 3
MAX_ATTESTATIONS = 8
ATTESTED_S = 10.0
_TICK_S = 0.1
_CONFIGS = (mediatypes.DOCKER_CONFIG, mediatypes.OCI_CONFIG)


class PullRegistry(Protocol):
    """The registry operations that pulls need."""

    async def manifest(self, ref: Reference, auth: Auth | None = None, *, once: bool = False) -> Fetched: ...
    async def document(
        self, ref: Reference, descriptor: Descriptor, auth: Auth | None, limit: int, *, once: bool = False
    ) -> bytes: ...
    def blob(self, ref: Reference, descriptor: Descriptor, auth: Auth | None = None) -> AsyncGenerator[bytes, None]: ...
    async def tags(self, ref: Reference, auth: Auth | None = None) -> list[str]: ...
    async def referrers(
        self, ref: Reference, subject: Digest, artifact_type: str, auth: Auth | None = None
    ) -> list[Descriptor]: ...


@dataclass(frozen=True, slots=True)
class Resolved:
    """The result of resolving a name: its digest, the manifest and configuration of one image, and the index, if
    any."""

    digest: Digest
    index_body: bytes | None
    manifest: Manifest
    manifest_body: bytes
    config: ImageConfig
    config_body: bytes


class Puller:
    """Pulls images into the stores. `slots` limits concurrent layer downloads and may be replaced at any time."""

    def __init__(
        self,
        registry: PullRegistry,
        store: ImageStore,
        layers: Layers,
        hold: Hold,
        platform: Platform,
        policy: Policy | None = None,
    ) -> None:
        self._policy = policy or Policy({})
        self._registry = registry
        self._store = store
        self._layers = layers
        self._hold = hold
        self._platform = platform
        self.slots = asyncio.Semaphore(DOWNLOADS)
        self._transfers: SharedWork[None] = SharedWork()

    async def pull(
        self,
        ref: Reference,
        auth: Auth | None,
        platform: Platform | None,
        progress: Progress,
        key: PublicKey | None = None,
    ) -> tuple[Image, bool]:
        """Pull `ref` (with a tag or digest). Returns the image, and whether the name is new or changed.

        `Forbidden` unless it is signed by `key` and by the policy's key for it, if any.
        """
        resolved = await self.resolve(ref, auth, platform, progress, key)
        with self._hold(*resolved.config.rootfs.diff_ids):
            attested: list[Attested] = []
            try:
                async with asyncio.TaskGroup() as group:
                    attesting = group.create_task(self._attest(ref, resolved, auth, attested))
                    await self._pull_layers(ref, resolved, auth, progress)
                    await asyncio.wait([attesting], timeout=ATTESTED_S)
                    if attesting.cancel():
                        log.warning("attestations of %s are not stored: the download timed out", ref.familiar())
            except BaseExceptionGroup as failures:
                raise _first(failures) from None
            before = {image.id for image in self._store.all_of(ref)}
            names = [ref] if ref.digest is None else []
            names.append(ref.with_digest(resolved.digest))
            image = await self._keep(resolved, names, attested)
        progress(ProgressLine(f"Digest: {resolved.digest}"))
        return image, image.id not in before

    async def _keep(self, resolved: Resolved, names: Sequence[Reference], attested: Sequence[Attested]) -> Image:
        """Store the documents and set the names. An image of an index joins the platforms already present."""
        config, manifest = resolved.config_body, resolved.manifest_body
        if resolved.index_body is None:
            return await self._store.keep(config, names, manifest=manifest, dated=False)
        return (await self._store.keep_index(resolved.index_body, [(config, manifest)], names, attested, dated=False))[
            0
        ]

    async def _attest(self, ref: Reference, resolved: Resolved, auth: Auth | None, found: list[Attested]) -> None:
        """Fetch the image's attestations unless present. Best effort: failures are logged."""
        document = decode_document(resolved.index_body) if resolved.index_body is not None else None
        if not isinstance(document, Index):
            return
        known = self._store.index(resolved.digest)
        here = await self._store.attested(known) if known is not None else {}
        subject = digest_of(resolved.manifest_body)
        entries, room = [entry for entry in document.manifests if subject_of(entry) == subject], MAX_ATTESTED
        for entry in entries[:MAX_ATTESTATIONS]:
            try:
                found.append(here.get(entry.digest) or await self._fetch_attested(ref, entry, auth, room))
                room -= sum(map(len, found[-1].documents))
            except HavreError as error:
                log.warning("the attestation %s of %s is not stored: %s", entry.digest, ref.familiar(), error)

    async def _fetch_attested(self, ref: Reference, entry: Descriptor, auth: Auth | None, room: int) -> Attested:
        """Fetch one attestation of at most `room` bytes, without retries."""
        fetched = await self._registry.manifest(ref.with_digest(entry.digest), auth, once=True)
        manifest = decode_document(fetched.body, fetched.media_type)
        if isinstance(manifest, Index):
            raise InvalidInput("it is an index")
        parts = [*manifest.layers, manifest.config]
        if sum(part.size for part in parts) > room:
            raise InvalidInput("it is too large", f"at most {MAX_ATTESTED} bytes are kept")
        documents = [await self._registry.document(ref, part, auth, room, once=True) for part in parts]
        return Attested(entry, (*documents, fetched.body))

    async def resolve(
        self,
        ref: Reference,
        auth: Auth | None,
        platform: Platform | None,
        progress: Progress,
        key: PublicKey | None = None,
        *,
        exact: bool = True,
    ) -> Resolved:
        """Resolve `ref` in its registry and check its signature; fetches documents only.

        A single image must be for `platform` if `exact`; an index must contain the platform in any case.
        """
        fetched = await self._registry.manifest(ref, auth)
        for wanted in (self._policy.key_for(ref), key):
            if wanted is not None:
                await require_signature(self._registry, ref, fetched.digest, wanted, auth)
        document = decode_document(fetched.body, fetched.media_type)
        named = ref.tag if ref.tag and ref.digest is None else ref.familiar()
        progress(ProgressLine(f"Pulling from {ref.repository}", named, message=True))
        body, index_body = fetched.body, None
        if isinstance(document, Index):
            index_body = fetched.body
            chosen = choose_manifest(document, platform or self._platform)
            inner = await self._registry.manifest(ref.with_digest(chosen.digest), auth)
            document, body = decode_document(inner.body, inner.media_type), inner.body
            if isinstance(document, Index):
                raise InvalidInput(f"manifest list of {ref.familiar()} holds another manifest list")
        _check_types(document)
        config_body = await self._registry.document(ref, document.config, auth, MAX_CONFIG)
        config = read_image(config_body)
        _check_image(ref, config, document, platform if exact else None)
        return Resolved(fetched.digest, index_body, document, body, config, config_body)

    async def fetch(self, ref: Reference, resolved: Resolved, auth: Auth | None, layer: Digest) -> None:
        """Download one layer of a resolved image unless present; `NotFound` if the image has no such layer."""
        pairs = zip(resolved.config.rootfs.diff_ids, resolved.manifest.layers, strict=True)
        blob = dict(pairs).get(layer)
        if blob is None:
            raise NotFound(f"{ref.familiar()} has no layer {layer}")
        if self._layers.get(layer) is None:
            await self._transfer(ref, blob, layer, auth, unobserved)
            await self._layers.add_source(
                layer, Source(blob.digest, blob.size, blob.media_type, ref.registry, ref.repository)
            )

    async def _pull_layers(self, ref: Reference, resolved: Resolved, auth: Auth | None, progress: Progress) -> None:
        """Download missing layers in parallel; report completion base first, as dockerd does."""
        pairs = list(zip(resolved.manifest.layers, resolved.config.rootfs.diff_ids, strict=True))
        missing = [(blob, diff_id) for blob, diff_id in pairs if self._layers.get(diff_id) is None]
        if ImageId(resolved.manifest.config.digest) not in self._store:
            here = {diff_id for _, diff_id in pairs} - {diff_id for _, diff_id in missing}
            for blob, diff_id in pairs:
                progress(ProgressLine("Already exists" if diff_id in here else "Pulling fs layer", _short(blob.digest)))
        try:
            async with asyncio.TaskGroup() as group:
                transfers = [group.create_task(self._transfer(ref, *pair, auth, progress)) for pair in missing]
                group.create_task(_report_complete([blob for blob, _ in missing], transfers, progress))
        except BaseExceptionGroup as failures:
            raise _first(failures) from None
        for blob, diff_id in pairs:
            source = Source(blob.digest, blob.size, blob.media_type, ref.registry, ref.repository)
            if source not in self._layers.sources(diff_id):
                await self._layers.add_source(diff_id, source)

    async def _transfer(
        self, ref: Reference, blob: Descriptor, diff_id: Digest, auth: Auth | None, progress: Progress
    ) -> None:
        await self._transfers.join(
            f"layer {blob.digest} {diff_id}", lambda report: self._download(ref, blob, diff_id, auth, report), progress
        )

    async def _download(
        self, ref: Reference, blob: Descriptor, diff_id: Digest, auth: Auth | None, report: Progress
    ) -> None:
        id = _short(blob.digest)
        if self.slots.locked():
            report(ProgressLine("Waiting", id))
        async with self._layers.ingest(digest=blob.digest, diff_id=diff_id) as sink:
            async with self.slots:
                if self._layers.get(diff_id) is not None:
                    return
                done, reported_s = 0, 0.0
                async with aclosing(self._registry.blob(ref, blob, auth)) as chunks:
                    async for chunk in chunks:
                        await sink.write(chunk)
                        done += len(chunk)
                        if done == blob.size or time.monotonic() - reported_s > _TICK_S:
                            reported_s = time.monotonic()
                            report(ProgressLine("Downloading", id, done, blob.size))
            report(ProgressLine("Verifying Checksum", id))
            await sink.finish()  # after the slot is released: the next download runs while this one is synced
        report(ProgressLine("Download complete", id))


async def _report_complete(
    blobs: Sequence[Descriptor], transfers: Sequence[asyncio.Task[None]], progress: Progress
) -> None:
    """Layers are unpacked while downloading, so "Extracting" is reported as complete at once."""
    for blob, transfer in zip(blobs, transfers, strict=True):
        await asyncio.shield(transfer)
        progress(ProgressLine("Extracting", _short(blob.digest), blob.size, blob.size))
        progress(ProgressLine("Pull complete", _short(blob.digest)))


def _check_types(manifest: Manifest) -> None:
    """Refuse artifacts that are not container images."""
    if manifest.config.media_type not in _CONFIGS:
        raise Unsupported(
            f'Encountered remote "{manifest.config.media_type}"(unknown) when fetching', "this is not a container image"
        )
    for layer in manifest.layers:
        if not mediatypes.is_layer(layer.media_type):
            raise Unsupported(f"unsupported layer media type {layer.media_type!r}")


def _check_image(ref: Reference, config: ImageConfig, manifest: Manifest, wanted: Platform | None) -> None:
    if len(config.rootfs.diff_ids) != len(manifest.layers):
        raise InvalidInput(
            f"invalid rootfs in image configuration: {len(config.rootfs.diff_ids)} diff IDs"
            f" for {len(manifest.layers)} layers"
        )
    if config.platform.os != "linux":
        raise Unsupported(f'image operating system "{config.platform.os}" cannot be used on this platform')
    if wanted is not None and not config.platform.same_as(wanted):
        raise NotFound(
            f"image with reference {ref.familiar()} was found but does not match the specified platform: "
            f"wanted {wanted}, actual: {config.platform}"
        )


def _first(failures: BaseExceptionGroup[BaseException]) -> BaseException:
    """The first exception that is not a group."""
    first = failures.exceptions[0]
    return _first(first) if isinstance(first, BaseExceptionGroup) else first


def _short(digest: Digest) -> str:
    return hex_of(digest)[:12]
