"""Snapshots: containers' writable root file systems, from creation to removal and across restarts of the daemon.

               create                 mount                    unmount               remove
    (nothing) ----> data_root/      ----> run_root/          ----> as before       ----> (nothing)
                    snapshots/ID,         snapshots/ID,            mounting            row, directory
                    a row                 layers held              layers idle

Every call is idempotent, and a failed one leaves the previous state. A directory is created as `ID.tmp` and renamed,
and
removed by renaming it to `ID.gone` first: `recover` removes these after a kill, and compares rows and directories with
the kernel's mounts. `rootfs` creates and mounts the root file systems.

Unmounting an overlay syncs the whole file system below it (syncfs(2)), which may take long on a busy disk. Unmounting
and removing can therefore run in the background; the next operation on the same snapshot waits for it.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import logging
import re
import threading
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO, Literal, TypeVar

import msgspec

from havre.aio import in_thread, spawn, to_its_end
from havre.errors import Conflict, Failed, HavreError, InvalidInput, NotFound
from havre.failpoints import failpoint
from havre.linux import mounts, trees
from havre.linux.idmap import IdRange
from havre.linux.room import hint_when_full
from havre.oci.digest import Digest
from havre.storage.changes import Change, as_changes
from havre.storage.db import Table
from havre.storage.diff import write_diff
from havre.storage.drivers import Driver
from havre.storage.layerfiles import RootEntry
from havre.storage.layers import Layers
from havre.storage.mounted import MountedLayers
from havre.storage.pipe import stream_from
from havre.storage.rootfs import CopyRoot, OverlayRoot, RootFs, merge_layers

IDLE_S = 2.0
"""Seconds that a layer stays mounted after its last user: long enough for the next of several containers in
sequence."""

_STREAMS = 4  # each occupies a thread while it is read

T = TypeVar("T")

log = logging.getLogger(__name__)

_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,127}")  # no dot: names with a dot are used internally


class SnapshotRow(msgspec.Struct, frozen=True):
    """A persisted snapshot: its layers, base first, and the kind of its root file system."""

    layers: list[Digest]
    form: Literal["overlay", "copy"]


class Snapshots:
    """The snapshots under `root` (data_root/snapshots), mounted below `mount_root` (run_root/snapshots)."""

    def __init__(
        self,
        root: Path,
        mount_root: Path,
        rows: Table[SnapshotRow],
        layers: Layers,
        mounted: MountedLayers,
        driver: Driver,
    ) -> None:
        self._root = root
        self._mount_root = mount_root
        self._table = rows
        self._layers = layers
        self._mounted = mounted
        self._form: Literal["overlay", "copy"] = "copy" if driver.copies else "overlay"
        self._makers: dict[str, RootFs] = {"overlay": OverlayRoot(append=driver.append), "copy": CopyRoot()}
        self._rows: dict[str, SnapshotRow] = {}
        self._locks: dict[str, threading.Lock] = {}
        self._views = itertools.count()
        self._streams = asyncio.Semaphore(_STREAMS)
        self._sweep: asyncio.TimerHandle | None = None
        self._leaving: dict[str, asyncio.Task[None]] = {}

    async def load(self) -> None:
        """Read the rows. Call first."""
        self._rows = await self._table.all()

    async def close(self) -> None:
        """Unmount unused layers. Mounted snapshots stay: their containers keep running."""
        await self._all_left()
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        await in_thread(self._mounted.sweep, 0)

    def layers_in_use(self) -> set[Digest]:
        """All layers of all snapshots."""
        return {layer for row in self._rows.values() for layer in row.layers}

    async def unmount_layer(self, layer: Digest) -> None:
        """Unmount `layer`, used by no snapshot, before its removal: a mount would keep its space allocated."""
        await self._all_left()
        await in_thread(self._mounted.sweep, 0, layer)

    async def create(self, id: str, layers: Sequence[Digest]) -> None:
        """Create the snapshot `id` of `layers`, base first. `Conflict` if it exists, `NotFound` for a missing layer."""
        if _ID.fullmatch(id) is None:
            raise InvalidInput(f"invalid snapshot ID {id!r}", "letters, digits, _ and - only")
        if id in self._rows:
            raise Conflict(f"snapshot {id} exists")
        await self._left(id)
        root = self._root_entry(layers)
        row = self._rows[id] = SnapshotRow(distinct(layers), self._form)
        try:
            await in_thread(self._create, id, row, root)
            await self._table.put(id, row, lazily=True)  # lazy: its container's row is written durably
            failpoint("snapshot.recorded")
        except BaseException:
            try:
                await asyncio.shield(in_thread(self._discard, id))
            finally:
                del self._rows[id]
            raise
        finally:
            self._sweep_later()

    async def mount(self, id: str, ids: IdRange | None = None) -> Path:
        """The directory of the snapshot's files, mounted if necessary.

        With `ids` the files appear with owners mapped to that range of the host; unchanged on disk.
        """
        await self._left(id)
        return await in_thread(self._mount, id, self._row(id), ids)

    async def merge(self, id: str, layers: Sequence[Digest]) -> None:
        """Apply these layers, lowest first, to the snapshot's files, whiteouts included."""
        directory, root = await self.mount(id), self._root_entry([*self._row(id).layers, *layers])
        await to_its_end(self._merge, f"{id}-merge", directory, layers, root)

    def _merge(self, user: str, directory: Path, layers: Sequence[Digest], root: RootEntry | None) -> None:
        with _attempt(f"merging layers into {directory}"), self._mounted.held(user, layers) as lowers:
            merge_layers(lowers, directory, root)

    async def unmount(self, id: str) -> None:
        """Unmount the snapshot; its files stay."""
        self.unmount_later(id)
        await self._left(id)

    def unmount_later(self, id: str) -> None:
        """As `unmount`, in the background."""
        row = self._rows.get(id)
        if row is not None and id not in self._leaving and (self._mount_root / id).exists():
            self._leave(id, functools.partial(self._unmount, id, row))

    async def remove(self, id: str) -> None:
        """Unmount the snapshot and remove its files; their space is free on return."""
        await self._left(id)
        if (row := self._rows.get(id)) is None and id not in self._table.damaged:
            return
        await in_thread(self._take_away, id, row or SnapshotRow([], self._form))
        await self._table.delete(id)
        self._rows.pop(id, None)
        self._locks.pop(id, None)
        self._sweep_later()

    async def abandon(self, id: str) -> None:
        """As `remove`, but the files are removed in the background, or at the next daemon's `recover`."""
        if (row := self._rows.get(id)) is not None:
            await self._table.delete(id, lazily=True)  # lazy, as above: `recover` removes snapshots without a container
            self._rows.pop(id, None)
            self._leave(id, functools.partial(self._take_away, id, row))

    def _leave(self, id: str, work: Callable[[], None]) -> None:
        """Run `work` in a thread, after earlier background work on this snapshot. Best effort: failures are logged."""
        after = self._leave_after(self._leaving.get(id), work)
        task = self._leaving[id] = spawn(after, f"take down snapshot {id[:12]}")
        task.add_done_callback(functools.partial(self._has_left, id))

    async def _leave_after(self, earlier: asyncio.Task[None] | None, work: Callable[[], None]) -> None:
        if earlier is not None:
            await asyncio.wait([earlier])
        try:
            await in_thread(work)
        except Failed as error:
            log.error("%s", error)

    def _has_left(self, id: str, task: asyncio.Task[None]) -> None:
        if self._leaving.get(id) is task:
            del self._leaving[id]
            if id not in self._rows:
                self._locks.pop(id, None)
            self._sweep_later()

    async def _left(self, id: str) -> None:
        """Wait for the background work on this snapshot."""
        while (task := self._leaving.get(id)) is not None:
            await asyncio.wait([task])

    async def _all_left(self) -> None:
        for id in list(self._leaving):
            await self._left(id)

    async def size(self, id: str) -> int:
        """Bytes of the files in the writable layer. `NotFound` when the snapshot is removed meanwhile."""
        maker = self._makers[self._row(id).form]

        def measure() -> int:
            try:
                return maker.size(self._root / id)
            except FileNotFoundError:
                raise NotFound(f"no snapshot {id}") from None

        return await self._examine(f"measuring snapshot {id}", measure)

    async def changes(self, id: str) -> list[Change]:
        """The differences from the layers, ordered by path."""
        row = self._row(id)

        def compare() -> list[Change]:
            view = f"{id}.view{next(self._views)}"  # unique: several comparisons may run at once
            with self._mounted.held(view, row.layers) as lowers:
                return as_changes(self._makers[row.form].changes(self._root / id, self._mount_root / view, lowers))

        found = await self._examine(f"comparing snapshot {id} with its layers", compare)
        self._sweep_later()
        return found

    async def diff_tar(self, id: str, newest_s: int | None = None) -> AsyncIterator[bytes]:
        """The writable layer as an uncompressed tar with whiteouts, in pieces; must be closed unless read to the end.

        Times after `newest_s` are clamped to it.
        """
        row, home = self._row(id), self._root / id

        def write(out: BinaryIO) -> None:
            with _attempt(f"reading snapshot {id}"), self._makers[row.form].upper(home) as upper:
                write_diff(upper, out, newest_s)

        async with self._streams:
            async for piece in stream_from(write):
                yield piece

    async def recover(self, in_use: Collection[str], known: Collection[str]) -> None:
        """After a restart: unmount snapshots not `in_use`, remove those not `known` and incomplete ones."""
        for id in [id for id in (*self._rows, *self._table.damaged) if id not in known]:
            await self.remove(id)
        await in_thread(self._reconcile, frozenset(in_use))
        for id in [id for id in self._rows if not (self._root / id).exists()]:
            await self._make_again(id)

    async def _make_again(self, id: str) -> None:
        """Recreate a snapshot lost in a power cut: rows are durable before directory entries, which are not synced. An
        empty
        snapshot equals a new one.
        """
        row = self._rows[id]
        try:
            await in_thread(self._create, id, row, self._root_entry(row.layers))
        except HavreError as error:
            log.error("snapshot %s is lost: %s", id, error)
        else:
            log.warning("snapshot %s was lost and has been recreated", id)

    def _row(self, id: str) -> SnapshotRow:
        try:
            return self._rows[id]
        except KeyError:
            raise NotFound(f"no snapshot {id}") from None

    def _root_entry(self, layers: Sequence[Digest]) -> RootEntry | None:
        """The root directory's metadata of the topmost layer that has it. `NotFound` for a missing layer."""
        found = None
        for diff_id in layers:
            if (layer := self._layers.get(diff_id)) is None:
                raise NotFound(f"layer {diff_id} is not in the store", "pull its image again")
            found = layer.root or found
        return found

    @staticmethod
    async def _examine(what: str, work: Callable[[], T]) -> T:
        """Read a snapshot in a thread, without a lock: it may take long, and the container may run meanwhile."""

        def attempt() -> T:
            with _attempt(what):
                return work()

        return await in_thread(attempt)

    def _create(self, id: str, row: SnapshotRow, root: RootEntry | None) -> None:
        maker, half_made = self._makers[row.form], self._root / f"{id}.tmp"
        held = self._mounted.held(half_made.name, row.layers if maker.copies else ())
        with self._locked(id), _attempt(f"creating snapshot {id}"), held as lowers:
            trees.remove_tree(half_made)
            half_made.mkdir(mode=0o700)
            maker.create(half_made, lowers, root)
            failpoint("snapshot.half-made")
            half_made.rename(self._root / id)
            failpoint("snapshot.made")

    def _mount(self, id: str, row: SnapshotRow, ids: IdRange | None) -> Path:
        maker, target = self._makers[row.form], self._mount_root / id
        with self._locked(id), _attempt(f"mounting snapshot {id}"):
            if maker.copies:
                return maker.mount(self._root / id, target, [], ids)
            lowers = self._mounted.acquire(id, row.layers)
            failpoint("snapshot.layers-mounted")
            try:
                return maker.mount(self._root / id, target, lowers, ids)
            except BaseException:
                self._mounted.release(id)
                raise

    def _unmount(self, id: str, row: SnapshotRow) -> None:
        with self._locked(id), _attempt(f"unmounting snapshot {id}"):
            self._makers[row.form].unmount(self._mount_root / id)
            failpoint("snapshot.unmounted")
            self._mounted.release(id)

    def _take_away(self, id: str, row: SnapshotRow) -> None:
        self._unmount(id, row)
        self._discard(id)

    def _discard(self, id: str) -> None:
        """Remove the directory of `id`, complete or not."""
        gone = self._root / f"{id}.gone"
        with self._locked(id), _attempt(f"removing snapshot {id}"):
            trees.remove_tree(self._root / f"{id}.tmp")
            trees.remove_tree(gone)
            with suppress(FileNotFoundError):
                (self._root / id).rename(gone)
            failpoint("snapshot.aside")
            trees.remove_tree(gone)
            failpoint("snapshot.gone")

    def _reconcile(self, in_use: frozenset[str]) -> None:
        with _attempt("recovering the snapshots"):
            self._mounted.adopt()
            for target in self._leftover_mounts(in_use):
                mounts.unmount_all(target)
            mounted = {entry.target for entry in mounts.mounts_below(self._mount_root)}
            for directory in self._mount_root.iterdir():
                if directory not in mounted:
                    directory.rmdir()
            for directory in self._root.iterdir():
                if directory.name not in self._rows and directory.name not in self._table.damaged:
                    trees.remove_tree(directory)
            self._mounted.sweep(0)

    def _leftover_mounts(self, in_use: frozenset[str]) -> Iterator[Path]:
        """Yield mounts without a running container; claims the layers of the others."""
        for entry in mounts.mounts_below(self._mount_root):
            id = entry.target.name
            if id in in_use and id in self._rows:
                self._mounted.claim(id, self._rows[id].layers)
            else:
                yield entry.target

    @contextmanager
    def _locked(self, id: str) -> Iterator[None]:
        """Serialise creation, mount, unmount and removal of one snapshot."""
        with self._locks.setdefault(id, threading.Lock()):
            yield

    def _sweep_later(self) -> None:
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(IDLE_S, self._sweep_now)

    def _sweep_now(self) -> None:
        self._sweep = None
        spawn(self._sweep_idle(), "unmount idle layers")

    async def _sweep_idle(self) -> None:
        if await in_thread(self._mounted.sweep, IDLE_S):
            self._sweep_later()


def distinct(layers: Sequence[Digest]) -> list[Digest]:
    """The layers, base first, without duplicates: overlayfs rejects a directory given twice.

    The topmost occurrence is kept: it decides every path in it, so the same layer further down has no effect.
    """
    return list(dict.fromkeys(reversed(layers)))[::-1]


@contextmanager
def _attempt(what: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise Failed(f"{what}: {error}", hint_when_full(error)) from error
