"""`Storage`: an opened data root. Probes the kernel and connects the parts of the room."""

from __future__ import annotations

import fcntl
import logging
import os
import platform
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import ExitStack, asynccontextmanager, contextmanager
from pathlib import Path

from havre.aio import finish, in_thread
from havre.errors import Conflict, Failed, Unsupported
from havre.linux.idmap import IdRange
from havre.linux.mounts import mount_of
from havre.linux.room import free_bytes, hint_when_full
from havre.linux.trees import sync_directory
from havre.oci.digest import Digest
from havre.storage.blobs import Blobs
from havre.storage.db import Database, Table
from havre.storage.drivers import Abilities, Driver, choose_driver, probe
from havre.storage.layers import LAYER_LIMIT, LayerRow, Layers
from havre.storage.mounted import MountedLayers
from havre.storage.snapshots import SnapshotRow, Snapshots

log = logging.getLogger(__name__)

_PROBE_BYTES = 1 << 20  # free bytes that a probe may need


class Storage:
    """An opened data root. The public attributes are its parts; see their classes."""

    def __init__(
        self, lock: int, db: Database, blobs: Blobs, layers: Layers, snapshots: Snapshots, driver: Driver, backing: str
    ) -> None:
        self.db = db
        self.blobs = blobs
        self.layers = layers
        self.snapshots = snapshots
        self.driver = driver.name
        self._backing = backing
        self.driver_status = _describe(driver, backing)
        self._lock = lock
        self._held: Counter[Digest] = Counter()

    @classmethod
    async def open(
        cls, data_root: Path, run_root: Path, *, driver: str | None = None, layer_limit: int = LAYER_LIMIT
    ) -> Storage:
        """Open the store at `data_root`, creating it if missing. `driver` None: the best that works.

        `layer_limit`: maximum bytes that an incoming layer may unpack to.

        `Conflict` when another daemon uses it, `Unsupported` when the driver named does not work or a newer version
        wrote the
        database, `Failed` otherwise.
        """
        with ExitStack() as undo:
            # Resolved, because the kernel's mount table contains no symbolic links (/var/run).
            data_root, run_root = data_root.resolve(), run_root.resolve()
            lock = await in_thread(_prepare, data_root, run_root)
            undo.callback(os.close, lock)
            db = await Database.open(data_root / "havre.db")
            try:
                backing = await in_thread(_filesystem, data_root)
                chosen = choose_driver(driver, await _abilities(db.table("drivers", Abilities), data_root, backing))
                blobs = await in_thread(Blobs, data_root / "blobs")
                layers = Layers(data_root / "layers", db.table("layers", LayerRow), chosen.unpacks, layer_limit)
                await layers.load()
                mounted = MountedLayers(data_root / "layers", run_root / "layers", chosen)
                rows = db.table("snapshots", SnapshotRow)
                snapshots = Snapshots(data_root / "snapshots", run_root / "snapshots", rows, layers, mounted, chosen)
                await snapshots.load()
            except BaseException:
                await db.close()
                raise
            undo.pop_all()
        return cls(lock, db, blobs, layers, snapshots, chosen, backing)

    async def close(self) -> None:
        """Unmount idle layers, close the database, release the lock. Mounts of running containers stay."""
        await self.snapshots.close()
        await self.layers.swept()
        await self.db.close()
        os.close(self._lock)

    async def check_mapping(self, ids: IdRange) -> None:
        """Try a root file system mapped to `ids`. `Unsupported` where the kernel or file system lacks idmapped
        mounts."""
        probe = f"probe-{secrets.token_hex(8)}"
        await self.snapshots.create(probe, [])
        try:
            await self.snapshots.mount(probe, ids)
        except Failed as error:
            raise Unsupported(
                f"this kernel, or the {self._backing} below the data root, cannot show files with other user IDs "
                f"(idmapped mounts): {error.message}",
                "Linux 5.19 can, on ext4, xfs and btrfs; leave userns-remap out, or move the data root",
            ) from error
        finally:
            await self.snapshots.remove(probe)

    @contextmanager
    def hold(self, *digests: Digest) -> Iterator[None]:
        """Protect `digests` (of layers or blobs, present or not) from garbage collection for the duration of a
        block."""
        self._held.update(digests)
        try:
            yield
        finally:
            self._held.subtract(digests)
            self._held = +self._held

    @asynccontextmanager
    async def mounted(self, layers: Sequence[Digest]) -> AsyncIterator[Path]:
        """The merged files of the layers, base first, for the duration of a block; writes are discarded."""
        id = f"view-{secrets.token_hex(8)}"
        with self.hold(*layers):
            try:
                await self.snapshots.create(id, layers)
                yield await self.snapshots.mount(id)
            finally:
                await finish(self.snapshots.remove(id))

    def held(self) -> set[Digest]:
        """The digests held, and layers that have just arrived and are not held yet."""
        return set(self._held) | set(self.layers.arriving)


async def _abilities(rows: Table[Abilities], data_root: Path, backing: str) -> Abilities:
    """What works here: the stored result for this kernel and file system, otherwise probed."""
    key = f"{platform.release()} {backing}"
    known = await rows.all()
    if key in known:
        return known[key]
    earlier = next((can for kernel, can in known.items() if kernel.endswith(f" {backing}")), None)
    if earlier is not None and free_bytes(data_root) < _PROBE_BYTES:  # the probe would only fail for lack of space
        log.warning("%s is full: assuming that storage drivers work as with an earlier kernel", data_root)
        return earlier
    try:
        found = await in_thread(probe, data_root / "probe.tmp")
    except OSError as error:
        raise Failed(f"probing the storage drivers in {data_root}: {error}", hint_when_full(error)) from error
    try:
        await rows.put(key, found)
    except Failed as error:
        log.warning("the result of the storage drivers' probe is not recorded: %s", error)
    return found


def _prepare(data_root: Path, run_root: Path) -> int:
    """Create the directories, accessible to root only, and take the lock; returns its descriptor."""
    try:
        for root in (data_root, run_root):
            root.mkdir(mode=0o711, parents=True, exist_ok=True)
            root.chmod(0o711)
        sync_directory(data_root.parent)
        for directory in (data_root / "layers", data_root / "snapshots", run_root / "layers", run_root / "snapshots"):
            directory.mkdir(mode=0o700, exist_ok=True)
            directory.chmod(0o700)
        lock = os.open(data_root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        sync_directory(data_root)
    except OSError as error:
        raise Failed(f"preparing {data_root} and {run_root}: {error}", "havre's daemon runs as root") from error
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(lock)
        raise Conflict(f"another daemon uses {data_root}", "stop it, or choose another --data-root") from None
    return lock


def _filesystem(data_root: Path) -> str:
    """The type of the data root's file system."""
    return mount_of(data_root).fstype


def _describe(driver: Driver, backing: str) -> list[tuple[str, str]]:
    """The storage driver's rows of `info`."""
    layers = (
        "unpacked" if driver.unpacks else f"EROFS, mounted from {'loop devices' if driver.erofs == 'loop' else 'files'}"
    )
    root = "copies" if driver.copies else "overlays"
    return [("Backing Filesystem", backing), ("Layers", layers), ("Root Filesystems", root)]
