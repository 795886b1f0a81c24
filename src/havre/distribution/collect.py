"""Garbage of a registry: at its start, before anyone can be in the middle of a push.

link of a blob that no manifest of its repository names, older than a day     goes (a push that was never finished)
blob that no repository holds, as blob or as manifest                         goes
"""

from __future__ import annotations

import logging
import time

from havre.aio import in_thread
from havre.distribution.repositories import Repositories
from havre.errors import HavreError
from havre.oci.digest import Digest, hex_of
from havre.oci.manifest import Manifest, decode_document

MIN_AGE_S = 86400.0

log = logging.getLogger(__name__)


async def collect(repositories: Repositories, min_age_s: float = MIN_AGE_S) -> int:
    """Remove what nothing needs; the bytes freed. Nothing else may write meanwhile."""
    held = await in_thread(_unlink_unneeded, repositories, time.time() - min_age_s)
    freed = 0
    for digest in repositories.blobs.all():
        if hex_of(digest) not in held:
            freed += await repositories.blobs.remove(digest)
    return freed


def _unlink_unneeded(repositories: Repositories, older_than: float) -> set[str]:
    """Drop links that no manifest needs; the hex digests of all that repositories still hold."""
    held: set[str] = set()
    for folder in repositories.folders():
        manifests = {file.name for file in (folder / "manifests").glob("*")}
        try:
            needed = {hex_of(blob) for name in manifests for blob in _blobs_of(repositories, Digest(f"sha256:{name}"))}
        except (HavreError, OSError) as error:
            log.warning("a manifest of %s cannot be read, so everything of it is kept: %s", folder.name, error)
            needed = {link.name for link in (folder / "blobs").glob("*")}
        held |= manifests
        for link in (folder / "blobs").glob("*"):
            if link.name not in needed and link.stat().st_mtime < older_than:
                link.unlink()
            else:
                held.add(link.name)
    return held


def _blobs_of(repositories: Repositories, digest: Digest) -> list[Digest]:
    """The blobs that a manifest names; none for an index."""
    document = decode_document(repositories.blobs.path(digest).read_bytes())
    return [document.config.digest, *(one.digest for one in document.layers)] if isinstance(document, Manifest) else []
