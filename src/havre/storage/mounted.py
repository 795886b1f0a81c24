"""Layers as directories: each is mounted once for all users, with a reference count.

    run_root/layers/HEX    a mounted EROFS layer, in the host's mount table, so that a restarted daemon finds it
    data_root/layers/HEX/root    an unpacked layer, used in place

Mounting a layer twice would cache its files twice (480 MB measured for one image). A layer stays mounted after its last
user: the next container probably needs it, with a warm cache. `sweep` unmounts idle layers. Blocking and thread-safe.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from havre.errors import Failed, NotFound
from havre.linux import mounts
from havre.oci.digest import Digest, hex_of
from havre.storage.drivers import Driver, mount_layer


class MountedLayers:
    """The layers under `store` (data_root/layers) in use, mounted below `mount_root` (run_root/layers)."""

    def __init__(self, store: Path, mount_root: Path, driver: Driver) -> None:
        self._store = store
        self._mount_root = mount_root
        self._driver = driver
        self._lock = threading.Lock()
        self._users: defaultdict[Digest, set[str]] = defaultdict(set)
        self._idle_since: dict[Digest, float] = {}

    def adopt(self) -> None:
        """After a restart: register layers that an earlier daemon left mounted as idle until they are claimed."""
        now = time.monotonic()
        for entry in mounts.mounts_below(self._mount_root):
            if entry.target.parent == self._mount_root:
                self._idle_since[Digest(f"sha256:{entry.target.name}")] = now

    def claim(self, user: str, layers: Sequence[Digest]) -> None:
        """Register `user`, whose root file system is already mounted, as a user of `layers`."""
        with self._lock:
            for layer in layers:
                self._users[layer].add(user)
                self._idle_since.pop(layer, None)

    def acquire(self, user: str, layers: Sequence[Digest]) -> list[Path]:
        """The directories of `layers`, mounted as needed and kept until `release(user)`.

        `NotFound` for a layer that is not in the store, `Failed` where one cannot be mounted; then nothing is acquired.
        """
        try:
            with self._lock:
                return [self._acquire(user, layer) for layer in layers]
        except BaseException:
            self.release(user)
            raise

    def release(self, user: str) -> None:
        """Release all layers of `user`. Idempotent."""
        now = time.monotonic()
        with self._lock:
            for layer in [layer for layer, users in self._users.items() if user in users]:
                users = self._users[layer]
                users.discard(user)
                if not users:
                    del self._users[layer]
                    if self._target(layer).is_mount():
                        self._idle_since[layer] = now

    @contextmanager
    def held(self, user: str, layers: Sequence[Digest]) -> Iterator[list[Path]]:
        """`acquire` for the duration of a block."""
        directories = self.acquire(user, layers)
        try:
            yield directories
        finally:
            self.release(user)

    def sweep(self, idle_s: float, only: Digest | None = None) -> bool:
        """Unmount layers (or `only` that one) unused for `idle_s` seconds; returns whether idle ones remain."""
        latest = time.monotonic() - idle_s
        with self._lock:
            for layer, since in list(self._idle_since.items()):
                if since <= latest and only in (None, layer):
                    del self._idle_since[layer]
                    target = self._target(layer)
                    mounts.unmount_all(target)
                    with suppress(FileNotFoundError):
                        target.rmdir()
            return bool(self._idle_since)

    def _acquire(self, user: str, layer: Digest) -> Path:
        directory = self._store / hex_of(layer)
        unpacked = directory / "root"
        if unpacked.is_dir():
            self._users[layer].add(user)
            return unpacked
        if not directory.is_dir():
            raise NotFound(f"layer {layer} is not in the store", "pull its image again")
        target = self._target(layer)
        if not target.is_mount():
            self._mount(directory, target, layer)
        self._idle_since.pop(layer, None)
        self._users[layer].add(user)
        return target

    def _mount(self, directory: Path, target: Path, layer: Digest) -> None:
        if self._driver.erofs is None:
            raise Failed(
                f"layer {layer} is stored as EROFS, which this kernel cannot mount",
                "remove its image and pull it again",
            )
        target.mkdir(mode=0o700, exist_ok=True)
        try:
            mount_layer(directory, target, layer, self._driver.erofs)
        except OSError as error:
            target.rmdir()
            raise Failed(f"mounting layer {layer}: {error}") from error
        except BaseException:
            target.rmdir()
            raise

    def _target(self, layer: Digest) -> Path:
        return self._mount_root / hex_of(layer)
