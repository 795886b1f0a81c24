"""What becomes of a result: the answer's metadata, and the files that a client wants instead of an image.

Source: moby/buildkit exporter/containerimage/exptypes; moby's builder-next/exporter.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence

import msgspec

from havre.api.buildkit import filesend
from havre.api.buildkit.contentstore import write_blob
from havre.api.buildkit.options import Export
from havre.api.buildkit.sessions import Session
from havre.api.buildkit.shown import counted, tell_done
from havre.build.outputs import Outputs
from havre.build.progress import BuildProgress, shown
from havre.build.request import BuildResult
from havre.engine.images import Images
from havre.engine.layout import LaidOut, Layout, LayoutForm
from havre.errors import Failed, Unsupported
from havre.oci.digest import Digest, digest_of
from havre.oci.image import decode_image
from havre.oci.reference import parse_reference

_EXPORTED = "export"  # the client's name of the directory that `tar=false` is for
_TITLES = {
    "local": "exporting to client directory",
    "tar": "exporting to client tarball",
    "oci": "exporting to oci image format",
    "docker": "exporting to docker image format",
}


def export_image(result: BuildResult, export: Export, progress: BuildProgress) -> dict[str, str]:
    """Tell of the image, which the builder has stored and named; the answer's metadata is what clients print."""
    digest = digest_of(result.config)
    names = [parse_reference(name).with_default_tag().canonical() for name in export.names]
    with shown("exporting to image", progress) as vertex:
        tell_done(vertex, f"writing image {digest}", progress)
        for name in names:
            tell_done(vertex, f"naming to {name}", progress)
    told = {"containerimage.config.digest": digest, "containerimage.digest": digest}
    return told | ({"image.name": ",".join(names)} if names else {})


async def export_layout(
    result: BuildResult, export: Export, session: Session, images: Images, progress: BuildProgress
) -> dict[str, str]:
    """Send the image to the client as a file, an OCI layout or a docker-archive; the answer's metadata."""
    names = [parse_reference(name).with_default_tag() for name in export.names]
    with shown(_TITLES[export.kind], progress) as vertex:
        rest = [each for each in result.platforms.values() if each.config != result.config]
        others = [LaidOut(each.config, predicates=each.predicates) for each in rest]
        image = LaidOut(result.config, names, result.predicates, others)
        async with images.laid_out(image, export.form) as layout:
            if export.unpacked:
                await _write_blobs(layout, _EXPORTED, session)
            else:
                with counted(vertex, "sending tarball", progress) as moved:
                    await filesend.send_tar(session, layout.tar(), moved)
    top = layout.tops[0]
    unnamed = msgspec.structs.replace(top, annotations=None)  # the client writes the names
    told = {
        "containerimage.config.digest": digest_of(result.config),
        "containerimage.digest": top.digest,
        "containerimage.descriptor": base64.b64encode(msgspec.json.encode(unnamed)).decode(),
    }
    return told | ({"image.name": ",".join(name.canonical() for name in names)} if names else {})


async def export_cache(
    document: bytes, store: str, session: Session, images: Images, progress: BuildProgress
) -> dict[str, str]:
    """Put a cache into the client's directory `store`; the answer's metadata names its manifest to the client."""
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
    """The layers whose files are sent, by the directory that they lie in at the client's: `linux_arm64`, or ""."""
    if len(result.platforms) > 1 and export.split is False:
        raise Unsupported("platform-split=false is not supported for several platforms", "build them one by one")
    if result.platforms:
        return {platform.replace("/", "_"): each.layers for platform, each in result.platforms.items()}
    platform = str(decode_image(result.config).platform) if export.split else ""
    return {platform.replace("/", "_"): result.layers}
