"""Writes images as tars: an OCI layout, a docker-archive, or both.

    blobs/sha256/HEX   configurations, manifests, layers          shared by both formats
    index.json  oci-layout                                         OCI layout
    manifest.json  repositories                                    docker-archive, for `docker load`

`save` writes both, with uncompressed layers; a build exports with the compression asked for. Attestations are stored
beside the image in its index; where the manifests are unchanged, this is the index that the name refers to. A tar
header contains the member's size, so compressed layers are buffered in unlinked temporary files. Output is
deterministic.

Source: OCI image specification, "image-layout.md"; moby's "image/spec".
"""

from __future__ import annotations

import hashlib
import re
import stat
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import IO, Protocol

import msgspec

from havre.aio import in_thread
from havre.errors import InvalidInput, NotFound, Unsupported
from havre.images.index import ImageIndex, rewrite_index
from havre.oci import mediatypes
from havre.oci.attestation import Attested, Predicate, attest
from havre.oci.digest import Digest, digest_of, hex_of
from havre.oci.image import decode_image
from havre.oci.manifest import Descriptor, describe, render_index, render_manifest
from havre.oci.platform import Platform, parse_platform
from havre.oci.reference import Reference
from havre.storage.layers import Layers
from havre.storage.recompress import gzip_stream, zstd_stream
from havre.tar.headers import BLOCK, FLAGS, header
from havre.wire.values import ImageId

CONTAINERD_NAME = "io.containerd.image.name"
REF_NAME = "org.opencontainers.image.ref.name"
_BLOBS = "blobs"
_ANNOTATION = re.compile(r"annotation(?:-([a-z-]+))?(?:\[([^]]*)\])?\.(.+)")
_LEVELS = ("manifest", "manifest-descriptor", "index", "index-descriptor")
_PIECE = 1 << 20

Compressor = Callable[[AsyncIterator[bytes]], AsyncIterator[bytes]]
_COMPRESSORS: Mapping[str, tuple[str, Compressor]] = {
    "gzip": (mediatypes.OCI_LAYER_GZIP, gzip_stream),
    "zstd": (mediatypes.OCI_LAYER_ZSTD, zstd_stream),
}


@dataclass(frozen=True)
class KeptIndex:
    """An index that names refer to, its bytes, and the attestations of its images."""

    index: ImageIndex
    body: bytes
    attested: Mapping[Digest, Attested]


@dataclass(frozen=True)
class LaidOut:
    """An image to write: its configuration, its names, and its attestations.

    `others` are images for other platforms of the same names; a docker-archive contains only the first. `kept` is
    the stored index of these images, None for new ones.
    """

    config: bytes
    names: Sequence[Reference] = ()
    predicates: Sequence[Predicate] = ()
    others: Sequence[LaidOut] = ()
    kept: KeptIndex | None = None

    @property
    def layers(self) -> tuple[Digest, ...]:
        """The diff IDs of this image's own layers, base first."""
        return decode_image(self.config).rootfs.diff_ids


@dataclass(frozen=True, kw_only=True)
class LayoutForm:
    """Options of an export: `compression` is gzip, zstd or uncompressed.

    `annotations` are added to every manifest, `platform_annotations` to those of one platform, `index_annotations`
    to the index; each `_descriptor` to the entry that refers to it, in an index or in `index.json`.
    """

    compression: str = "uncompressed"
    annotations: Mapping[str, str] = field(default_factory=dict)
    platform_annotations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    descriptor_annotations: Mapping[str, str] = field(default_factory=dict)
    platform_descriptor_annotations: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    index_annotations: Mapping[str, str] = field(default_factory=dict)
    index_descriptor_annotations: Mapping[str, str] = field(default_factory=dict)
    for_docker: bool = False

    def annotations_for(self, platform: Platform) -> Mapping[str, str]:
        """The annotations of a platform's manifest."""
        return {**self.annotations, **self.platform_annotations.get(str(platform), {})}

    def descriptor_annotations_for(self, platform: Platform) -> dict[str, str] | None:
        """The annotations of the entry of a platform's manifest; None without any."""
        found = {**self.descriptor_annotations, **self.platform_descriptor_annotations.get(str(platform), {})}
        return found or None

    def check_platforms(self, present: Collection[str]) -> None:
        """Refuse annotations for platforms that are not exported."""
        for platform in (*self.platform_annotations, *self.platform_descriptor_annotations):
            if platform not in present:
                raise InvalidInput(
                    f"invalid annotation: no platform {platform} found in source", f"there is {', '.join(present)}"
                )


def layout_form(attributes: Mapping[str, str], *, for_docker: bool = False) -> LayoutForm:
    """The form in an exporter's attributes: `compression`, `annotation[-LEVEL][[PLATFORM]].KEY`; others are ignored.

    `InvalidInput`, or `Unsupported` for an unknown level. Source: moby/buildkit docs/annotations.md.
    """
    found: dict[str, dict[str, str]] = {level: {} for level in _LEVELS}
    of_platform: dict[str, dict[str, dict[str, str]]] = {level: {} for level in _LEVELS}
    for name, text in attributes.items():
        if not name.startswith("annotation"):
            continue
        if (parts := _ANNOTATION.fullmatch(name)) is None:
            raise InvalidInput(f"invalid annotation {name}", "expected annotation.KEY, or annotation-index.KEY")
        level, platform, key = parts[1] or "manifest", parts[2], parts[3]
        if level not in _LEVELS or (platform and level.startswith("index")):
            raise Unsupported(f"the attribute {name} is not supported", f"the levels are {', '.join(_LEVELS)}")
        own = of_platform[level].setdefault(str(parse_platform(platform)), {}) if platform else found[level]
        own[key] = text
    compression = attributes.get("compression") or ("uncompressed" if for_docker else "gzip")
    return LayoutForm(
        compression=compression,
        annotations=found["manifest"],
        platform_annotations=of_platform["manifest"],
        descriptor_annotations=found["manifest-descriptor"],
        platform_descriptor_annotations=of_platform["manifest-descriptor"],
        index_annotations=found["index"],
        index_descriptor_annotations=found["index-descriptor"],
        for_docker=for_docker,
    )


class LayerForm(Protocol):
    """Reads layers in one compression."""

    async def describe(self, diff_id: Digest) -> Descriptor:
        """The descriptor of a layer for a manifest; `NotFound` if the layer is not present."""

    def content(self, diff_id: Digest) -> AsyncIterator[bytes]:
        """The bytes of a layer for which `describe` was called."""


@contextmanager
def layer_form(compression: str, layers: Layers, scratch: Path) -> Iterator[LayerForm]:
    """Layers in one compression, for the duration of a block; `InvalidInput` for an unknown compression."""
    if compression == "uncompressed":
        yield _Plain(layers)
        return
    if compression not in _COMPRESSORS:
        known = ", ".join((*_COMPRESSORS, "uncompressed"))
        raise InvalidInput(f"unsupported layer compression type: {compression}", f"one of {known} is expected")
    with ExitStack() as files:
        yield _Compressed(layers, scratch, files, *_COMPRESSORS[compression])


class _Plain:
    """Uncompressed layers."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers

    async def describe(self, diff_id: Digest) -> Descriptor:
        layer = self._layers.get(diff_id)
        if layer is None:
            raise NotFound(f"layer {diff_id} is not in the store", "pull, load or build its image again")
        return Descriptor(mediatypes.OCI_LAYER, diff_id, layer.size)

    def content(self, diff_id: Digest) -> AsyncIterator[bytes]:
        return self._layers.open_tar(diff_id)


class _Compressed:
    """Layers compressed into unlinked temporary files."""

    def __init__(self, layers: Layers, scratch: Path, files: ExitStack, media_type: str, compress: Compressor) -> None:
        self._plain = _Plain(layers)
        self._scratch = scratch
        self._files = files
        self._media_type = media_type
        self._compress = compress
        self._compressed: dict[Digest, IO[bytes]] = {}

    async def describe(self, diff_id: Digest) -> Descriptor:
        await self._plain.describe(diff_id)
        file = await in_thread(tempfile.TemporaryFile, "w+b", dir=self._scratch)
        self._files.enter_context(file)
        hashed = hashlib.sha256()
        async for piece in self._compress(self._plain.content(diff_id)):
            hashed.update(piece)
            await in_thread(file.write, piece)
        self._compressed[diff_id] = file
        return Descriptor(self._media_type, Digest(f"sha256:{hashed.hexdigest()}"), file.tell())

    async def content(self, diff_id: Digest) -> AsyncIterator[bytes]:
        file = self._compressed[diff_id]
        file.seek(0)
        while piece := await in_thread(file.read, _PIECE):
            yield piece


@dataclass(frozen=True)
class Layout:
    """The content of a tar: documents by path, layers by path with their sizes, and the entries of `index.json`.

    `times` are in seconds since the epoch, by path, where not 0.
    """

    layers: LayerForm
    documents: Mapping[str, bytes]
    tars: Mapping[str, tuple[Digest, int]]
    tops: Sequence[Descriptor]
    times: Mapping[str, int]

    async def tar(self) -> AsyncGenerator[bytes, None]:
        """The bytes of the tar; close the generator if it is abandoned early."""
        yield _header(_BLOBS, directory=True) + _header(f"{_BLOBS}/sha256", directory=True)
        for path in sorted({**self.documents, **self.tars}):
            size = self._size(path)
            yield _header(path, size, time=self.times.get(path, 0))
            async for piece in self._content(path):
                yield piece
            yield bytes(-size % BLOCK)
        yield bytes(2 * BLOCK)

    def blobs(self) -> Iterator[tuple[Digest, int, AsyncIterator[bytes]]]:
        """The blobs: digest, size, content."""
        for path in sorted({**self.documents, **self.tars}):
            if path.startswith(_BLOBS):
                yield Digest(f"sha256:{path.rpartition('/')[2]}"), self._size(path), self._content(path)

    def document(self, digest: Digest) -> bytes | None:
        """A document by its digest; None for a layer."""
        return self.documents.get(_path(digest))

    def content(self, digest: Digest) -> AsyncIterator[bytes]:
        """The bytes of one blob."""
        return self._content(_path(digest))

    def _size(self, path: str) -> int:
        return len(self.documents[path]) if path in self.documents else self.tars[path][1]

    async def _content(self, path: str) -> AsyncIterator[bytes]:
        if path in self.documents:
            yield self.documents[path]
            return
        async for piece in self.layers.content(self.tars[path][0]):
            yield piece


async def plan_layout(images: Sequence[LaidOut], layers: LayerForm, form: LayoutForm) -> Layout:
    """Plan the tar of the images. Compresses their layers."""
    documents: dict[str, bytes] = {}
    tars: dict[str, tuple[Digest, int]] = {}
    tops: list[Descriptor] = []
    items: list[dict[str, object]] = []
    repositories = dict[str, dict[str, str]]()
    times = dict[str, int]()
    for image in images:
        parts = [(part, [await layers.describe(id) for id in part.layers]) for part in (image, *image.others)]
        found = _documents(parts, image, form)
        documents |= {_path(digest_of(body)): body for body in found.bodies}
        for part, described in parts:
            pairs = zip(part.layers, described, strict=True)
            own = {_path(layer.digest): (diff_id, layer.size) for diff_id, layer in pairs}
            tars |= own
            created = _created(part.config) if form.for_docker else 0
            times |= {path: max(created, times.get(path, 0)) for path in (_path(digest_of(part.config)), *own)}
        own_notes = found.top.annotations or {}
        named = [msgspec.structs.replace(found.top, annotations=own_notes | _annotations(name)) for name in image.names]
        tops += named or [found.top]
        items.append(_render_item(image, parts[0][1]))
        top_layer = hex_of(image.layers[-1]) if image.layers else ""
        for name in image.names:
            repositories.setdefault(name.familiar_name, {})[name.tag or ""] = top_layer
    documents["index.json"] = _json({"schemaVersion": 2, "mediaType": mediatypes.OCI_INDEX, "manifests": tops})
    documents["oci-layout"] = _json({"imageLayoutVersion": "1.0.0"})
    if form.for_docker:
        documents["manifest.json"] = _json(items)
        documents |= {"repositories": _json(repositories)} if repositories else {}
    return Layout(layers, documents, tars, tops, times)


@dataclass(frozen=True)
class _Documents:
    """The entry of an image in `index.json`, and the documents that it refers to."""

    top: Descriptor
    bodies: Sequence[bytes]


def _documents(parts: Sequence[tuple[LaidOut, Sequence[Descriptor]]], image: LaidOut, form: LayoutForm) -> _Documents:
    """A single image is referenced by its manifest; attestations or several platforms need an index."""
    entries: list[Descriptor] = []
    attestations: list[Descriptor] = []
    moved: dict[Digest, Descriptor] = {}
    bodies: list[bytes] = []
    form.check_platforms([str(decode_image(part.config).platform) for part, _ in parts])
    for part, layers in parts:
        config = describe(mediatypes.OCI_CONFIG, part.config)
        platform = decode_image(part.config).platform
        body = render_manifest(config, layers, mediatypes.OCI_MANIFEST, form.annotations_for(platform))
        notes = form.descriptor_annotations_for(platform)
        entry = msgspec.structs.replace(describe(mediatypes.OCI_MANIFEST, body), platform=platform, annotations=notes)
        entries.append(entry)
        bodies += [part.config, body]
        if image.kept is not None:
            moved[image.kept.index.manifest_of(ImageId(digest_of(part.config))).digest] = entry
        if part.predicates:
            attested = attest(entry.digest, platform, image.names, part.predicates)
            attestations.append(attested.manifest)
            bodies += attested.documents
    if image.kept is not None and (found := _documents_of_kept(image.kept, moved, bodies)) is not None:
        return found
    if len(entries) == 1 and not attestations:
        if form.index_annotations or form.index_descriptor_annotations:
            raise Unsupported("index annotations not supported for single platform export", "annotate the manifest")
        return _Documents(msgspec.structs.replace(entries[0], platform=None), bodies)
    index = render_index([*entries, *attestations], mediatypes.OCI_INDEX, form.index_annotations)
    top = describe(mediatypes.OCI_INDEX, index)
    top = msgspec.structs.replace(top, annotations=dict(form.index_descriptor_annotations) or None)
    return _Documents(top, [*bodies, index])


def _documents_of_kept(
    kept: KeptIndex, moved: Mapping[Digest, Descriptor], bodies: Sequence[bytes]
) -> _Documents | None:
    """The stored index, unchanged if all its manifests are; None if only one image would be left in it."""
    document = msgspec.structs.replace(kept.index.document, media_type=mediatypes.OCI_INDEX)
    new = rewrite_index(document, kept.body, moved, kept.attested, elsewhere=False)
    if len(new.entries) < 2 and new.body != kept.body:
        return None
    attested = [document for each in new.attested for document in each.documents]
    return _Documents(describe(mediatypes.OCI_INDEX, new.body), [*bodies, *attested, new.body])


def _render_item(image: LaidOut, layers: Sequence[Descriptor]) -> dict[str, object]:
    return {
        "Config": _path(digest_of(image.config)),
        "RepoTags": [name.familiar() for name in image.names],
        "Layers": [_path(layer.digest) for layer in layers],
        "LayerSources": {layer.digest: layer for layer in layers},
    }


def _annotations(name: Reference) -> dict[str, str]:
    return {CONTAINERD_NAME: name.canonical(), REF_NAME: name.tag or ""}


def _json(value: object) -> bytes:
    return msgspec.json.encode(value, order="deterministic")


def _path(digest: Digest) -> str:
    return f"{_BLOBS}/sha256/{hex_of(digest)}"


def _created(config: bytes) -> int:
    """The creation time of an image in seconds since the epoch, as dockerd dates its files; 0 if missing or
    negative."""
    try:
        return max(int(datetime.fromisoformat(decode_image(config).created or "").timestamp()), 0)
    except ValueError:
        return 0


def _header(path: str, size: int = 0, *, time: int = 0, directory: bool = False) -> bytes:
    if directory:
        return header(path.encode() + b"/", FLAGS[stat.S_IFDIR], mode=0o755, mtime=time)
    return header(path.encode(), size=size, mtime=time)
