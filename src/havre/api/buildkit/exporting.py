"""Exports a build's result: pushes it, sends files to the client, and returns the response's metadata.

Source: moby/buildkit exporter/containerimage/exptypes; moby's builder-next/exporter.
"""

from __future__ import annotations

import base64
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

import msgspec

from havre.api.buildkit import filesend
from havre.api.buildkit.contentstore import write_blob
from havre.api.buildkit.exporters import Export, Push
from havre.api.buildkit.sessions import Session
from havre.api.buildkit.shown import counted, tell_done
from havre.builds.outputs import Outputs
from havre.builds.progress import BuildProgress, Transfer, Vertex, shown
from havre.builds.request import BuildResult
from havre.errors import Failed, Unsupported
from havre.images.images import Images
from havre.images.layout import LaidOut, Layout, LayoutForm
from havre.images.progress import ProgressLine
from havre.oci.digest import Digest, digest_of
from havre.oci.image import decode_image
from havre.oci.manifest import Descriptor
from havre.oci.reference import Reference, parse_reference
from havre.registry import Auth

Credentials: TypeAlias = Callable[[str], Awaitable[Auth | None]]
"""Returns the credentials of a registry."""

_EXPORTED = "export"  # the client's name of the directory for `tar=false`
_TITLES = {
    "local": "exporting to client directory",
    "tar": "exporting to client tarball",
    "oci": "exporting to oci image format",
    "docker": "exporting to docker image format",
}


async def export_image(
    result: BuildResult, export: Export, credentials: Credentials, images: Images, progress: BuildProgress
) -> dict[str, str]:
    """Report the image, which the builder has stored and named, and push it if requested.

    Returns the metadata that clients print; the digest is that of the pushed manifest.
    """
    digest = digest_of(result.config)
    names = [parse_reference(name).with_default_tag().canonical() for name in export.names]
    told: dict[str, str] = {"containerimage.config.digest": digest, "containerimage.digest": digest}
    with shown("exporting to image", progress) as vertex:
        if export.kept:
            tell_done(vertex, f"writing image {digest}", progress)
            for tag in export.tags:
                tell_done(vertex, f"naming to {parse_reference(tag).with_default_tag().canonical()}", progress)
        if export.push is not None:
            for name in export.names:
                pushed = await _push(name, result, export.push, credentials, images, vertex, progress)
                told |= _described(pushed)
    return told | ({"image.name": ",".join(names)} if names else {})


async def _push(
    name: str,
    result: BuildResult,
    push: Push,
    credentials: Credentials,
    images: Images,
    vertex: Vertex,
    progress: BuildProgress,
) -> Descriptor:
    """Push a result under one of its names. Returns the descriptor pushed."""
    ref = parse_reference(name).with_default_tag()
    auth = await credentials(ref.registry)

    def tell(line: ProgressLine) -> None:
        if line.id and line.status not in ("Preparing", "Waiting"):
            done = line.status != "Pushing"  # it was pushed or present
            progress(Transfer(vertex, f"pushing layer {line.id}", line.current, line.total, time.time(), done=done))

    if push.form is None:
        (pushed,) = await images.push(
            ref.familiar_name, ref.tag or "", auth=auth, progress=tell, insecure=push.insecure
        )
    else:
        image = _laid_out(result, [ref])
        pushed = await images.push_laid_out(
            image, push.form, name, auth, by_digest=push.by_digest, insecure=push.insecure
        )
    shown_name = ref.name if push.by_digest else ref.canonical()
    tell_done(vertex, f"pushing manifest for {shown_name}@{pushed.digest}", progress)
    return pushed


def _laid_out(result: BuildResult, names: Sequence[Reference]) -> LaidOut:
    """The image of a result, with those for other platforms."""
    rest = [each for each in result.platforms.values() if each.config != result.config]
    others = [LaidOut(each.config, predicates=each.predicates) for each in rest]
    return LaidOut(result.config, names, result.predicates, others)


def _described(top: Descriptor) -> dict[str, str]:
    """The response's metadata on a pushed or exported descriptor; the client adds the names."""
    unnamed = msgspec.structs.replace(top, annotations=None)
    return {
        "containerimage.digest": top.digest,
        "containerimage.descriptor": base64.b64encode(msgspec.json.encode(unnamed)).decode(),
    }


async def export_layout(
    result: BuildResult, export: Export, session: Session, images: Images, progress: BuildProgress
) -> dict[str, str]:
    """Send the image to the client as an OCI layout or docker-archive. Returns the response's metadata."""
    names = [parse_reference(name).with_default_tag() for name in export.names]
    with shown(_TITLES[export.kind], progress) as vertex:
        async with images.laid_out(_laid_out(result, names), export.form) as layout:
            if export.unpacked:
                await _write_blobs(layout, _EXPORTED, session)
            else:
                with counted(vertex, "sending tarball", progress) as moved:
                    await filesend.send_tar(session, layout.tar(), moved)
    told = {"containerimage.config.digest": digest_of(result.config), **_described(layout.tops[0])}
    return told | ({"image.name": ",".join(name.canonical() for name in names)} if names else {})


async def export_cache(
    document: bytes, store: str, session: Session, images: Images, progress: BuildProgress
) -> dict[str, str]:
    """Write a cache to the client's directory `store`. Returns metadata with its manifest."""
    with shown("exporting cache to client directory", progress):
        async with images.laid_out(LaidOut(document), LayoutForm(compression="gzip")) as layout:
            await _write_blobs(layout, store, session)
            return {"cache.manifest": msgspec.json.encode(layout.tops[0]).decode()}


async def _write_blobs(layout: Layout, store: str, session: Session) -> None:
    for digest, size, pieces in layout.blobs():
        await write_blob(session, store, digest, size, pieces)


async def export_files(
    export: Export, result: BuildResult, session: Session, outputs: Outputs, progress: BuildProgress
) -> None:
    """Send the result's files to the client: `local` as a directory, `tar` as one file."""
    parts = _parts(export, result)
    with shown(_TITLES[export.kind], progress) as vertex:
        async with outputs.mounted(parts) as tree:
            with counted(vertex, "copying files", progress) as moved:
                try:
                    if export.kind == "tar":
                        await filesend.send_tar(session, tree.tar(), moved)
                    else:
                        await filesend.send_tree(session, tree, moved)
                except OSError as error:
                    raise Failed(f"failed to read what was built: {error.strerror or error}") from error


def _parts(export: Export, result: BuildResult) -> Mapping[str, Sequence[Digest]]:
    """The layers whose files are sent, by directory at the client: `linux_arm64`, or ""."""
    if len(result.platforms) > 1 and export.split is False:
        raise Unsupported("platform-split=false is not supported for several platforms", "build them one by one")
    if result.platforms:
        return {platform.replace("/", "_"): each.layers for platform, each in result.platforms.items()}
    platform = str(decode_image(result.config).platform) if export.split else ""
    return {platform.replace("/", "_"): result.layers}
