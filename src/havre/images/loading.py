"""Reads images from a tar: `docker load`.

Reads OCI layouts and docker-archives (drawn in `layout`), older archives included, in one pass and in any order of
members: members that begin like a layer are streamed into the layer store, small JSON documents are kept in memory,
the rest is skipped. The archive is untrusted: member names are never used as paths, blobs named by a digest must
match it, and the diff IDs of a configuration must match the layers. Layers that no image refers to are removed at
the end.

Source: OCI image specification, "image-layout.md"; moby's "image/spec".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field, replace

import msgspec

from havre.aio import in_thread
from havre.errors import InvalidInput, NotFound
from havre.golang import gojson
from havre.images.catalog import Image
from havre.images.documents import read_image
from havre.images.layout import CONTAINERD_NAME, REF_NAME
from havre.images.store import Hold, ImageStore
from havre.oci import mediatypes
from havre.oci.attestation import Attested, is_attestation
from havre.oci.digest import Digest, digest_of, hex_of
from havre.oci.image import decode_image
from havre.oci.manifest import (
    MAX_CONFIG,
    Descriptor,
    Index,
    Manifest,
    decode_document,
)
from havre.oci.platform import Platform
from havre.oci.reference import Reference, parse_reference
from havre.storage.layers import Layers
from havre.tar.compress import Decompressor, kind_of
from havre.tar.headers import BLOCK
from havre.tar.reader import Data, Entry, TarParser
from havre.wire.values import ImageId

MAX_DOCUMENTS = 64 << 20
MAX_IMAGES = 1000
MAX_MEMBERS = 100_000
MAX_NAMES = 10_000
MAX_ARCHIVE = 1 << 40
"""Limit in bytes of an unpacked archive, skipped members included."""
_HEAD = 512
_GATHER = 1 << 20
_BLOB = re.compile(r"blobs/sha256/([0-9a-f]{64})")

Drop = Callable[[Digest], Awaitable[int]]


class _ArchiveItem(msgspec.Struct, rename="pascal"):
    """One image of `manifest.json`."""

    config: str
    repo_tags: list[str] | None = None
    layers: list[str] | None = None


@dataclass(slots=True)
class _Contents:
    """The content of an archive: documents by path, layers (as diff IDs) by path, links from path to path.

    `MAX_DOCUMENTS` limits both what is kept in memory and what is decoded, as one document may be referenced many
    times.
    """

    documents: dict[str, bytes] = field(default_factory=dict)
    layers: dict[str, Digest] = field(default_factory=dict)
    links: dict[str, str] = field(default_factory=dict)
    kept: int = 0
    decoded: int = 0

    def keep(self, size: int) -> None:
        """Count bytes to keep in memory; `InvalidInput` above the limit."""
        self.kept += size
        if self.kept > MAX_DOCUMENTS:
            raise InvalidInput("the archive contains too many documents", f"at most {MAX_DOCUMENTS} bytes are read")

    def find(self, path: str) -> str:
        """Resolve `path` through the archive's links, by which older archives share layers between images."""
        path = _clean(path)
        for _ in range(8):
            if path not in self.links:
                return path
            path = self.links[path]
        raise InvalidInput(f"links in the archive form a loop or are too many: {path[:200]!r}")

    def document(self, path: str) -> bytes:
        """A document; `InvalidInput` if missing."""
        try:
            document = self.documents[self.find(path)]
        except KeyError:
            raise InvalidInput(f"the archive refers to {path[:200]!r} but does not contain it") from None
        self.decoded += len(document)
        if self.decoded > MAX_DOCUMENTS:
            hint = f"documents of at most {MAX_DOCUMENTS} bytes are read"
            raise InvalidInput("the archive refers to too many documents", hint)
        return document

    def holds(self, entry: Descriptor) -> bool:
        """Report whether this document is in the archive."""
        return f"blobs/sha256/{hex_of(entry.digest)}" in self.documents

    def blob(self, digest: Digest) -> bytes:
        """A document by its digest; `InvalidInput` if missing."""
        return self.document(f"blobs/sha256/{hex_of(digest)}")


@dataclass(frozen=True, slots=True)
class _Part:
    """An image of the archive: its configuration, its layers' paths, and its manifest in an index."""

    config: bytes
    layers: Sequence[str]
    manifest: bytes = b""


@dataclass(frozen=True, slots=True)
class _Found:
    """What a name of the archive refers to: an image, or the images of an index (its document) present in the archive.

    `attested` are the index's attestations present in the archive.
    """

    parts: Sequence[_Part]
    names: Sequence[Reference]
    index: bytes = b""
    attested: Sequence[Attested] = ()


@dataclass(frozen=True, slots=True)
class Loaded:
    """A loaded image, its names, and the images that those names referred to before."""

    image: Image
    names: Sequence[Reference]
    replaced: Mapping[Reference, ImageId | None]


class Loader:
    """Loads one archive."""

    def __init__(self, layers: Layers, store: ImageStore, hold: Hold, drop: Drop) -> None:
        self._layers = layers
        self._store = store
        self._hold = hold
        self._drop = drop
        self._fresh: list[Digest] = []

    async def load(self, chunks: AsyncIterator[bytes], platforms: Sequence[Platform] = ()) -> list[Loaded]:
        """Store and name the images of the archive, or those for `platforms`.

        Raises `InvalidInput`, or `NotFound` if none is for these platforms; then nothing is stored.
        """
        try:
            with ExitStack() as held:
                contents = await self._read(chunks, held)
                found = _select(_describe(contents), platforms)
                for part in (part for each in found for part in each.parts):
                    self._check(part, contents)
                return [loaded for each in found for loaded in await self._keep(each)]
        finally:
            for diff_id in self._fresh:
                await self._drop(diff_id)

    async def _keep(self, found: _Found) -> list[Loaded]:
        before = {name: self._store.named(name) for name in found.names}
        if found.index and found.names:
            members = [(part.config, part.manifest) for part in found.parts]
            kept = (await self._store.keep_index(found.index, members, found.names, found.attested, dated=False))[:1]
        else:
            kept = [await self._store.keep(part.config, found.names, dated=False) for part in found.parts]
        here = {image.id for name in found.names for image in self._store.all_of(name)}
        replaced = {name: old for name, old in before.items() if old is not None and old not in here}
        return [Loaded(image, found.names, replaced) for image in kept]

    async def _read(self, chunks: AsyncIterator[bytes], held: ExitStack) -> _Contents:
        contents, reader, members = _Contents(), _Reader(chunks), 0
        async for entry in reader.entries():
            members += 1
            if members > MAX_MEMBERS:
                raise InvalidInput("the archive has too many members", f"at most {MAX_MEMBERS} are read")
            contents.keep(2 * len(entry.path) + len(entry.link))
            path = _clean(entry.path.decode(errors="surrogateescape"))
            if entry.kind in ("symlink", "hardlink"):
                target = entry.link.decode(errors="surrogateescape")
                base = posixpath.dirname(path) if entry.kind == "symlink" else ""
                contents.links[path] = _clean(posixpath.join(base, target))
            if entry.kind != "file":
                continue
            head = await reader.head()
            if head.lstrip()[:1] in (b"{", b"[") and entry.size <= MAX_CONFIG:
                contents.keep(entry.size)
                contents.documents[path] = _held_to_name(path, b"".join([chunk async for chunk in reader.data()]))
            elif _is_layer(head):
                contents.layers[path] = await self._take_layer(path, reader, held)
        return contents

    async def _take_layer(self, path: str, reader: _Reader, held: ExitStack) -> Digest:
        """Store a layer, unless its path has the digest of one that is present."""
        claimed = _claimed_digest(path)
        if claimed is not None and self._layers.get(claimed) is not None:
            held.enter_context(self._hold(claimed))
            return claimed
        async with self._layers.ingest(digest=claimed) as sink:
            async for chunk in reader.data():
                await sink.write(chunk)
            done = await sink.finish()
        held.enter_context(self._hold(done.diff_id))
        self._fresh.append(done.diff_id)
        return done.diff_id

    def _check(self, image: _Part, contents: _Contents) -> None:
        """Refuse a configuration whose diff IDs do not match the layers."""
        diff_ids = read_image(image.config).rootfs.diff_ids
        if len(image.layers) != len(diff_ids):
            raise InvalidInput(
                f"invalid manifest, layers length mismatch: expected {len(diff_ids)}, got {len(image.layers)}"
            )
        for path, diff_id in zip(image.layers, diff_ids, strict=True):
            came = contents.layers.get(contents.find(path))
            if came is None and self._layers.get(diff_id) is None:
                raise InvalidInput(f"the archive refers to layer {path[:200]!r} but does not contain it")
            if came is not None and came != diff_id:
                raise InvalidInput(f"invalid diffID for layer {path[:200]}: expected {diff_id}, got {came}")


class _Reader:
    """Reads the members of a tar in sequence; unread data of a member is skipped."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._events = _events(chunks)
        self._next: Entry | None = None
        self._head = b""
        self._over = False

    async def entries(self) -> AsyncIterator[Entry]:
        """The headers of all members."""
        while True:
            async for _ in self.data():
                pass
            if self._next is None:
                return
            entry, self._next = self._next, None
            yield entry

    async def head(self) -> bytes:
        """The first 512 bytes of the current member, which `data` returns again."""
        gathered = bytearray()
        async for chunk in self.data():
            gathered += chunk
            if len(gathered) >= _HEAD:
                break
        self._head = bytes(gathered)
        return self._head[:_HEAD]

    async def data(self) -> AsyncIterator[bytes | memoryview]:
        """The remaining data of the current member; the buffers behind the views are not reused."""
        if self._head:
            head, self._head = self._head, b""
            yield head
        while self._next is None and not self._over:
            try:
                event = await anext(self._events)
            except StopAsyncIteration:
                self._over = True
                return
            if isinstance(event, Entry):
                self._next = event
            else:
                yield event.view


async def _events(chunks: AsyncIterator[bytes]) -> AsyncIterator[Entry | Data]:
    """Decompress and parse. Raises `InvalidInput` for a damaged or truncated stream."""
    decompressor, parser, size = Decompressor(), TarParser(data=True), 0
    async for chunk in _gathered(chunks):
        decompressor.feed(chunk)
        while piece := await _next_piece(decompressor):
            size += len(piece)
            if size > MAX_ARCHIVE:
                raise InvalidInput(f"the archive unpacks to more than {MAX_ARCHIVE} bytes")
            for event in parser.feed(piece):
                yield event
    for event in parser.feed(decompressor.finish()):
        yield event
    parser.finish()


async def _next_piece(decompressor: Decompressor) -> bytes:
    """The next piece of the tar; decompression runs in a thread."""
    return decompressor.read() if decompressor.kind == "" else await in_thread(decompressor.read)


async def _gathered(chunks: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """`chunks` in pieces of about 1 MiB."""
    gathered, size = list[bytes](), 0
    async for chunk in chunks:
        gathered.append(chunk)
        size += len(chunk)
        if size >= _GATHER:
            yield b"".join(gathered)
            gathered, size = [], 0
    yield b"".join(gathered)


def _describe(contents: _Contents) -> list[_Found]:
    """The images of the archive, by its docker-archive or OCI index; docker-archives have one platform a name."""
    top = contents.documents.get("index.json")
    index = decode_document(contents.document("index.json"), mediatypes.OCI_INDEX) if top is not None else None
    several = isinstance(index, Index) and any(entry.media_type in mediatypes.INDEXES for entry in index.manifests)
    if "manifest.json" in contents.documents and not several:
        return _describe_docker(contents)
    if isinstance(index, Index):
        return _describe_oci(contents, index)
    if index is not None:
        raise InvalidInput("index.json of the archive is not an index")
    raise InvalidInput(
        "the archive contains no images", "expected manifest.json (docker-archive) or index.json (OCI layout)"
    )


def _select(found: Sequence[_Found], platforms: Sequence[Platform]) -> list[_Found]:
    """The images for these platforms, or all if none are given; raises `NotFound` if there is none."""
    if not platforms:
        return list(found)

    def is_wanted(part: _Part) -> bool:
        own = decode_image(part.config).platform
        return any(own.same_as(platform) for platform in platforms)

    chosen = [replace(each, parts=parts) for each in found if (parts := list(filter(is_wanted, each.parts)))]
    if not chosen:
        raise NotFound(f"the archive contains no image for {', '.join(map(str, platforms))}")
    return chosen


def _describe_docker(contents: _Contents) -> list[_Found]:
    items = gojson.decode(contents.document("manifest.json"), list[_ArchiveItem], "invalid manifest.json")
    if len(items) > MAX_IMAGES:
        raise InvalidInput(f"the archive contains {len(items)} images", f"at most {MAX_IMAGES} are loaded")
    if (names := sum(len(item.repo_tags or ()) for item in items)) > MAX_NAMES:
        raise InvalidInput(f"the archive gives its images {names} names", f"at most {MAX_NAMES} are given")
    return [
        _Found(
            [_Part(contents.document(item.config), item.layers or ())], [_tag(name) for name in item.repo_tags or ()]
        )
        for item in items
    ]


def _describe_oci(contents: _Contents, index: Index) -> list[_Found]:
    found: dict[Digest, _Found] = {}
    for entry in index.manifests:
        body = contents.blob(entry.digest)
        document = decode_document(body, entry.media_type)
        if isinstance(document, Index):
            key, parts = entry.digest, _describe_platforms(contents, document)
            attested = [each for one in document.manifests if (each := _describe_attested(contents, one)) is not None]
        else:
            key, parts, body, attested = document.config.digest, [_describe_image(contents, document)], b"", []
        names = [*found[key].names] if key in found else []
        name = _annotated_name(entry)
        found[key] = _Found(parts, [*names, name] if name else names, body, attested)
    return list(found.values())


def _describe_attested(contents: _Contents, entry: Descriptor) -> Attested | None:
    """An attestation of an index; None for other entries, and for one that is incomplete in the archive."""
    if not is_attestation(entry) or not contents.holds(entry):
        return None
    body = contents.blob(entry.digest)
    manifest = decode_document(body, entry.media_type)
    parts = [] if isinstance(manifest, Index) else [*manifest.layers, manifest.config]
    if not parts or not all(map(contents.holds, parts)):
        return None
    return Attested(entry, (*(contents.blob(part.digest) for part in parts), body))


def _describe_platforms(contents: _Contents, index: Index) -> list[_Part]:
    """The images of an index that are in the archive; the others may be missing."""
    parts = []
    for entry in index.manifests:
        if is_attestation(entry) or not contents.holds(entry):
            continue
        body = contents.blob(entry.digest)
        document = decode_document(body, entry.media_type)
        if isinstance(document, Index):
            raise InvalidInput("an index of the archive contains another index")
        if all(mediatypes.is_layer(layer.media_type) for layer in document.layers):
            parts.append(replace(_describe_image(contents, document), manifest=body))
    if not parts:
        raise InvalidInput("no image of an index is in the archive")
    return parts


def _describe_image(contents: _Contents, manifest: Manifest) -> _Part:
    paths = [f"blobs/sha256/{hex_of(layer.digest)}" for layer in manifest.layers]
    return _Part(contents.blob(manifest.config.digest), paths)


def _annotated_name(entry: Descriptor) -> Reference | None:
    """The full name that an index gives an image; None if it is only a tag."""
    annotations = entry.annotations or {}
    text = annotations.get(CONTAINERD_NAME) or annotations.get(REF_NAME, "")
    return _tag(text) if "/" in text or ":" in text else None


def _tag(name: str) -> Reference:
    ref = parse_reference(name).with_default_tag()
    if ref.digest is not None:
        raise InvalidInput(f"invalid tag {name[:200]!r} in the archive")
    return ref


def _held_to_name(path: str, body: bytes) -> bytes:
    claimed = _claimed_digest(path)
    if claimed is not None and digest_of(body) != claimed:
        raise InvalidInput(f"{path} in the archive does not match the digest in its name", "the archive is damaged")
    return body


def _claimed_digest(path: str) -> Digest | None:
    match = _BLOB.fullmatch(path)
    return Digest(f"sha256:{match.group(1)}") if match else None


def _is_layer(head: bytes) -> bool:
    """Report whether a member begins like a tar (valid header checksum, or empty) or like compressed data."""
    if kind_of(head):
        return True
    if len(head) < BLOCK:
        return False
    if not any(head):
        return True
    stated = head[148:156].strip(b"\0 ")
    return (
        bool(stated) and not stated.strip(b"01234567") and int(stated, 8) == sum(head[:148]) + 8 * 32 + sum(head[156:])
    )


def _clean(path: str) -> str:
    """A member's name with its dots resolved, never above the archive's root."""
    return posixpath.normpath(posixpath.join("/", path)).lstrip("/")
