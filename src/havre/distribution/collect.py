"""Garbage collection of a registry: at its start, and by `havre registry garbage-collect`, also while it is serving.

    link of a blob that no manifest of its repository refers to, older than a day     removed (an unfinished push)
    blob that no repository links, as blob or as manifest                             removed

All in one exclusive turn: a push that completes meanwhile waits, and a blob reported as present (HEAD) stays for a day.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from havre.aio import in_thread
from havre.distribution.repositories import Repositories
from havre.distribution.turns import Turns
from havre.errors import HavreError, NotFound
from havre.oci.digest import Digest, digest_named, hex_of, parse_any_digest
from havre.oci.manifest import Manifest, decode_document

MIN_AGE_S = 86400.0

log = logging.getLogger(__name__)


async def collect(repositories: Repositories, min_age_s: float = MIN_AGE_S) -> int:
    """Delete blobs that no manifest refers to; returns the bytes freed. Writers wait."""
    async with repositories.turns.alone():
        return await _collect(repositories, min_age_s)


async def collect_beside(root: Path, min_age_s: float = MIN_AGE_S) -> int:
    """As `collect`, for the registry at `root`, which another process may be serving. `NotFound` if there is none."""
    if not (root / "repositories").is_dir():
        raise NotFound(f"there is no registry at {root}", "give --root as to `havre registry serve`")
    async with Turns(root).alone():
        return await _collect(Repositories(root, beside=True), min_age_s)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point; its argument is the registry's root. Returns the exit status."""
    (root,) = sys.argv[1:] if arguments is None else arguments
    try:
        freed = asyncio.run(collect_beside(Path(root)))
    except (HavreError, OSError) as error:
        print(f"havre registry: {error}", file=sys.stderr)
        return 1
    print(f"Total reclaimed space: {freed} bytes")
    return 0


async def _collect(repositories: Repositories, min_age_s: float) -> int:
    held = await in_thread(_unlink_unreferenced, repositories, time.time() - min_age_s)
    freed = 0
    for digest in repositories.blobs.all():
        if hex_of(digest) not in held:
            freed += await repositories.blobs.remove(digest)
    return freed


def _unlink_unreferenced(repositories: Repositories, older_than: float) -> set[str]:
    """Delete unreferenced links; returns the hex digests of everything that repositories still link."""
    held: set[str] = set()
    for folder in repositories.folders():
        manifests = {file.name for file in (folder / "manifests").glob("*")}
        try:
            needed = {hex_of(blob) for name in manifests for blob in _blobs_of(repositories, digest_named(name))}
        except (HavreError, OSError) as error:
            log.warning(
                "a manifest of %s cannot be read, so all blobs of its repository are kept: %s", folder.name, error
            )
            needed = {link.name for link in (folder / "blobs").glob("*")}
        held |= manifests
        for link in (folder / "blobs").glob("*"):
            if link.name not in needed and link.stat().st_mtime < older_than:
                link.unlink()
            else:
                held.add(link.name)
    return held


def _blobs_of(repositories: Repositories, digest: Digest) -> list[Digest]:
    """The blobs that a manifest refers to; none for an index."""
    document = decode_document(repositories.blobs.path(digest).read_bytes(), parse=parse_any_digest)
    return [document.config.digest, *(one.digest for one in document.layers)] if isinstance(document, Manifest) else []


if __name__ == "__main__":
    sys.exit(main())
