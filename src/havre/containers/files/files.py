"""The interface of containers' files for the rest of the daemon: copy, diff, export, commit.

The work is done in `views` and `copying` (live file systems), `commit`, and the storage room (changes of a container).
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager

from havre.containers.files.commit import Commit, CommitOptions
from havre.containers.files.copying import Copying, Feed, PathStat, ReadArchive
from havre.containers.live import Index
from havre.storage import Change, Snapshots
from havre.storage.pipe import PipedStream


class Files:
    """`ref` is a container's ID, name, or an unambiguous prefix of an ID; raises `NotFound` "No such container: x"."""

    def __init__(self, index: Index, copying: Copying, snapshots: Snapshots, commit: Commit) -> None:
        self._index = index
        self._copying = copying
        self._snapshots = snapshots
        self._commit = commit

    async def stat(self, ref: str, path: str) -> PathStat:
        """The status of `path`; a link at its end is not followed unless a `/` follows."""
        return await self._copying.stat(self._index.get(ref), ref, path)

    def reading(self, ref: str, path: str) -> AbstractAsyncContextManager[ReadArchive]:
        """The archive of `path`."""
        return self._copying.reading(self._index.get(ref), ref, path)

    async def write(self, ref: str, path: str, archive: Feed, *, as_user: bool, no_overwrite: bool) -> None:
        """Extract an archive into the directory `path`; see `Copying.write`."""
        live = self._index.get(ref)
        await self._copying.write(live, ref, path, archive, as_user=as_user, no_overwrite=no_overwrite)

    async def changes(self, ref: str) -> Sequence[Change]:
        """The changes of the container to its image's files, sorted by path."""
        return await self._snapshots.changes(self._index.get(ref).container.id)

    def exporting(self, ref: str) -> AbstractAsyncContextManager[PipedStream]:
        """The tar of its root file system, without volumes and other mounts."""
        return self._copying.exporting(self._index.get(ref))

    async def commit(self, ref: str, options: CommitOptions) -> str:
        """Create an image from it. Returns the image's ID."""
        return await self._commit.run(self._index.get(ref), options)
