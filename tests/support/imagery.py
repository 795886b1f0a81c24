"""Image stores without root or mounts, images created in memory, and a registry in memory."""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import tarfile
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from havre.errors import Failed, NotFound
from havre.images.images import Images
from havre.images.progress import ProgressLine
from havre.oci import mediatypes
from havre.oci.digest import Digest, digest_of
from havre.oci.manifest import Descriptor, describe, render_manifest
from havre.oci.reference import Reference
from havre.registry import Auth, Fetched
from havre.storage.blobs import Blobs
from havre.storage.db import Database
from havre.storage.layers import LayerRow, Layers


class NoSnapshots:
    """Snapshots of a store without mounts; `used` layers count as in use."""

    def __init__(self) -> None:
        self.used: set[Digest] = set()

    def layers_in_use(self) -> set[Digest]:
        return self.used

    async def unmount_layer(self, diff_id: Digest) -> None:
        assert diff_id not in self.used


class PlainStorage:
    """The real blobs, layers and database, without the parts that need root."""

    driver = "plain"

    def __init__(self, blobs: Blobs, layers: Layers, db: Database) -> None:
        self.blobs, self.layers, self.db = blobs, layers, db
        self.snapshots = NoSnapshots()
        self._held: Counter[Digest] = Counter()

    @classmethod
    @asynccontextmanager
    async def open(cls, root: Path) -> AsyncIterator[PlainStorage]:
        root.mkdir(exist_ok=True)
        db = await Database.open(root / "havre.db")
        layers = Layers(root / "layers", rows=db.table("layers", LayerRow), unpacks=False)
        await layers.load()
        try:
            yield cls(Blobs(root / "blobs"), layers, db)
        finally:
            await db.close()

    @contextmanager
    def hold(self, *digests: Digest) -> Iterator[None]:
        self._held.update(digests)
        try:
            yield
        finally:
            self._held.subtract(digests)

    def held(self) -> set[Digest]:
        return set(+self._held) | set(self.layers.arriving)

    async def unfinished(self) -> list[Path]:
        """Incomplete files in the store."""
        await self.layers.swept()
        root = self.db.path.parent
        return [*root.glob("layers/tmp-*"), *root.glob("blobs/tmp/*")]


def layer_tar(*names: str, content: bytes = b"hello\n") -> bytes:
    """An uncompressed layer with one small file of each name."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name in names:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return out.getvalue()


def config_of(*tars: bytes, created: str = "2026-01-02T03:04:05Z", **config: Any) -> bytes:
    """The configuration of an image with these layers."""
    document = {
        "architecture": "amd64",
        "os": "linux",
        "created": created,
        "config": {"Cmd": ["sh"], **config},
        "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar in tars]},
        "history": [{"created": created, "created_by": f"step {n}"} for n, _ in enumerate(tars)],
    }
    return json.dumps(document).encode()


def archive(files: dict[str, bytes], links: dict[str, str] | None = None) -> bytes:
    """A tar of `files`, then symbolic `links`."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as tar:
        for name, data in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
        for name, target in (links or {}).items():
            member = tarfile.TarInfo(name)
            member.type, member.linkname = tarfile.SYMTYPE, target
            tar.addfile(member)
    return out.getvalue()


async def stream(data: bytes, piece: int = 65536) -> AsyncIterator[bytes]:
    """`data` in pieces, yielding to other tasks between them."""
    for at in range(0, len(data), piece):
        await asyncio.sleep(0)
        yield data[at : at + piece]


def pack_layer(tar: bytes) -> bytes:
    """`tar` compressed deterministically."""
    return gzip.compress(tar, mtime=0)


@dataclass
class FakeRegistry:
    """Repositories as dictionaries.

    `on_blob` is called before each chunk of a download, `on_document` before each manifest (by digest) and document.
    """

    manifests: dict[tuple[str, str], tuple[str, bytes]] = field(default_factory=dict)
    blobs: dict[str, dict[Digest, bytes]] = field(default_factory=dict)
    downloads: list[Digest] = field(default_factory=list)
    mounts: list[Digest] = field(default_factory=list)
    on_blob: Callable[[Digest, int], Any] | None = None
    on_document: Callable[[Digest | None], Any] | None = None

    def put_image(
        self, ref: str, config: bytes, tars: Sequence[bytes], *, pack: Callable[[bytes], bytes] = pack_layer
    ) -> Digest:
        """Add an image as a push would. Returns its manifest's digest."""
        repository, _, tag = ref.partition(":")
        packed = [pack(tar) for tar in tars]
        layers = [describe(mediatypes.DOCKER_LAYER_GZIP, blob) for blob in packed]
        held = self.blobs.setdefault(repository, {})
        held.update({digest_of(blob): blob for blob in packed})
        held[digest_of(config)] = config
        body = render_manifest(describe(mediatypes.DOCKER_CONFIG, config), layers, mediatypes.DOCKER_MANIFEST)
        return self.put_document(repository, tag, mediatypes.DOCKER_MANIFEST, body)

    def put_document(self, repository: str, tag: str, media_type: str, body: bytes) -> Digest:
        """Put a manifest or index."""
        digest = digest_of(body)
        self.manifests[repository, tag] = self.manifests[repository, digest] = (media_type, body)
        return digest

    async def manifest(self, ref: Reference, auth: Auth | None = None, *, once: bool = False) -> Fetched:
        if self.on_document is not None and (waiting := self.on_document(ref.digest)) is not None:
            await waiting
        try:
            media_type, body = self.manifests[ref.repository, ref.target]
        except KeyError:
            raise NotFound(f"manifest for {ref.familiar()} not found: manifest unknown: manifest unknown") from None
        return Fetched(digest_of(body), media_type, body)

    async def document(
        self, ref: Reference, descriptor: Descriptor, auth: Auth | None, limit: int, *, once: bool = False
    ) -> bytes:
        if self.on_document is not None and (waiting := self.on_document(descriptor.digest)) is not None:
            await waiting
        return self.blobs[ref.repository][descriptor.digest]

    async def blob(
        self, ref: Reference, descriptor: Descriptor, auth: Auth | None = None
    ) -> AsyncGenerator[bytes, None]:
        self.downloads.append(descriptor.digest)
        data = self.blobs[ref.repository].get(descriptor.digest)
        if data is None:
            raise Failed(f"blob {descriptor.digest} is gone")
        async for at, chunk in _numbered(stream(data, 100)):
            if self.on_blob is not None and (waiting := self.on_blob(descriptor.digest, at)) is not None:
                await waiting
            yield chunk

    async def tags(self, ref: Reference, auth: Auth | None = None) -> list[str]:
        return [tag for repository, tag in self.manifests if repository == ref.repository and ":" not in tag]

    async def has_blob(self, ref: Reference, digest: Digest, auth: Auth | None = None) -> bool:
        return digest in self.blobs.get(ref.repository, {})

    async def has_manifest(self, ref: Reference, digest: Digest, auth: Auth | None = None) -> bool:
        return (ref.repository, digest) in self.manifests

    async def mount_blob(self, ref: Reference, digest: Digest, source: str, auth: Auth | None = None) -> bool:
        if digest not in self.blobs.get(source, {}):
            return False
        self.mounts.append(digest)
        self.blobs.setdefault(ref.repository, {})[digest] = self.blobs[source][digest]
        return True

    async def push_blob(
        self, ref: Reference, chunks: AsyncIterator[bytes], auth: Auth | None = None
    ) -> tuple[Digest, int]:
        data = b"".join([chunk async for chunk in chunks])
        self.blobs.setdefault(ref.repository, {})[digest_of(data)] = data
        return digest_of(data), len(data)

    async def push_document(self, ref: Reference, body: bytes, auth: Auth | None = None) -> Digest:
        self.blobs.setdefault(ref.repository, {})[digest_of(body)] = body
        return digest_of(body)

    async def push_manifest(self, ref: Reference, media_type: str, body: bytes, auth: Auth | None = None) -> Digest:
        return self.put_document(ref.repository, ref.target, media_type, body)


async def _numbered(chunks: AsyncIterator[bytes]) -> AsyncIterator[tuple[int, bytes]]:
    at = 0
    async for chunk in chunks:
        yield at, chunk
        at += len(chunk)


@dataclass
class Stage:
    """All objects for tests of images, and recorded events and progress."""

    images: Images
    storage: PlainStorage
    registry: FakeRegistry
    events: list[tuple[str, str, str]] = field(default_factory=list)
    lines: list[ProgressLine] = field(default_factory=list)
    users: dict[str, list[Any]] = field(default_factory=dict)

    def said(self) -> list[str]:
        """The progress so far as text, without downloads."""
        return [f"{line.id}: {line.status}" if line.id else line.status or line.stream for line in self.lines]


@asynccontextmanager
async def staged(root: Path, registry: FakeRegistry | None = None) -> AsyncIterator[Stage]:
    """A stage with an empty store, or with what an earlier stage has left in `root`."""
    async with PlainStorage.open(root) as storage:
        registry = registry or FakeRegistry()
        stage = Stage(None, storage, registry)  # type: ignore[arg-type]

        def publish(type: str, action: str, id: str, attributes: Any = None) -> None:
            stage.events.append((action, id, (attributes or {}).get("name", "")))

        stage.images = await Images.open(storage, registry, publish, lambda id: stage.users.get(id, ()))  # type: ignore[arg-type]
        yield stage
