"""What becomes of a result: the answer's metadata, and the files that a client wants instead of an image.

Source: moby/buildkit exporter/containerimage/exptypes; moby's builder-next/exporter.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable

from havre.api.buildkit import filesend
from havre.api.buildkit.options import Export
from havre.api.buildkit.sessions import Session
from havre.build.outputs import Outputs
from havre.build.progress import BuildProgress, Finished, Started, Transfer, Vertex
from havre.build.request import BuildResult
from havre.errors import HavreError
from havre.oci.reference import parse_reference

_TOLD_EVERY = 1 << 20  # bytes between two words about a transfer
_TITLES = {"local": "exporting to client directory", "tar": "exporting to client tarball"}


def describe_image(result: BuildResult, export: Export) -> dict[str, str]:
    """What clients print, and write into --iidfile and --metadata-file."""
    digest = f"sha256:{hashlib.sha256(result.config).hexdigest()}"
    told = {"containerimage.config.digest": digest, "containerimage.digest": digest}
    names = [parse_reference(name).with_default_tag().canonical() for name in export.names]
    return told | ({"image.name": ",".join(names)} if names else {})


async def export_files(
    kind: str, result: BuildResult, session: Session, outputs: Outputs, progress: BuildProgress
) -> None:
    """Send the result's files to the client: `local` as a directory, `tar` as one file."""
    title = _TITLES[kind]
    vertex = Vertex(f"sha256:{hashlib.sha256(title.encode()).hexdigest()}", title)
    progress(Started(vertex, time.time()))
    sent = _counter(vertex, progress)
    try:
        async with outputs.mounted(result.layers) as tree:
            if kind == "tar":
                await filesend.send_tar(session, tree.tar(), sent)
            else:
                await filesend.send_tree(session, tree, sent)
    except HavreError as error:
        progress(Finished(vertex, time.time(), error=error.message))
        raise
    sent(0)
    progress(Finished(vertex, time.time()))


def _counter(vertex: Vertex, progress: BuildProgress) -> Callable[[int], None]:
    """Counts bytes, and tells now and then; 0 tells that all are sent."""
    total = told = 0

    def sent(size: int) -> None:
        nonlocal total, told
        total += size
        if size == 0 or total - told >= _TOLD_EVERY:
            told = total
            progress(Transfer(vertex, "copying files", total, 0, time.time(), done=size == 0))

    return sent
