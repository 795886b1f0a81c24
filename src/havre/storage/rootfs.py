"""The two kinds of writable root file systems: an overlay over the layers, or a copy of them.

    snapshots/ID/upper  work  empty     overlay: upper and work directories, and a lower for images without layers
    run_root/snapshots/ID               where the overlay is mounted while the container runs

    snapshots/ID/root  record           copy: the files, and their attributes when they were copied

Both have the same interface, blocking; the layers' directories are given (base first) where needed. `upper` gives the
changes in overlayfs' form (whiteouts as devices 0:0), from which a layer is made.

With `ids`, files appear with the mapped owners and are unchanged on disk: overlayfs gets idmapped clones of the mounts
of the layers and the upper directory. Kernels before 6.15 accept only attached mounts, though overlayfs clones them
again, so they are attached, stacked, for as short as possible:

    run_root/snapshots/ID.lowers
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Protocol

import msgspec

from havre.linux import mounts, trees
from havre.linux.idmap import IdRange, as_root_of, user_namespace
from havre.storage import changes
from havre.storage.changes import Kinds, Record, Seen
from havre.storage.drivers import Writable, mount_overlay
from havre.storage.layerfiles import RootEntry

_LOWERS = ".lowers"


class RootFs(Protocol):
    """Creates a root file system in the directory `home` and mounts it at `target`; `mount` returns where it is
    visible."""

    copies: bool
    """Whether the layers are needed only at creation, rather than while it is mounted."""

    def create(self, home: Path, layers: Sequence[Path], root: RootEntry | None) -> None: ...
    def mount(self, home: Path, target: Path, layers: Sequence[Path], ids: IdRange | None) -> Path: ...
    def unmount(self, target: Path) -> None: ...
    def size(self, home: Path) -> int: ...
    def changes(self, home: Path, view: Path, layers: Sequence[Path]) -> Kinds: ...
    def upper(self, home: Path) -> AbstractContextManager[Path]: ...


class OverlayRoot:
    """An overlay: created in a millisecond, whatever the image's size."""

    copies = False

    def __init__(self, *, append: bool) -> None:
        self._append = append

    def create(self, home: Path, layers: Sequence[Path], root: RootEntry | None) -> None:
        """The upper directory becomes the container's `/`, so it takes the metadata of the image's."""
        for name in ("upper", "work", "empty"):
            (home / name).mkdir()
        _apply_root(home / "upper", root)

    def mount(self, home: Path, target: Path, layers: Sequence[Path], ids: IdRange | None) -> Path:
        """Mount it at `target`. Idempotent."""
        if target.is_mount():
            return target
        target.mkdir(mode=0o700, exist_ok=True)
        try:
            lowers = layers[::-1] or [home / "empty"]
            with _mapped([*lowers, home], target.with_suffix(_LOWERS), ids) as (*seen, own), as_root_of(ids):
                mount_overlay(seen, target, Writable(own / "upper", own / "work"), append=self._append)
        except BaseException:
            target.rmdir()
            raise
        return target

    def unmount(self, target: Path) -> None:
        """Unmount. Idempotent."""
        mounts.unmount_all(target)
        with suppress(FileNotFoundError):
            target.rmdir()

    def size(self, home: Path) -> int:
        """Bytes in the upper directory, copied-up files included."""
        return trees.tree_size(home / "upper")

    def changes(self, home: Path, view: Path, layers: Sequence[Path]) -> Kinds:
        """Compare the upper directory with the merged layers."""
        with self._lower_view(home, view, layers), _open(home / "upper") as upper, _open(view) as lower:
            return changes.compare_with_layers(upper, lower)

    @contextmanager
    def _lower_view(self, home: Path, view: Path, layers: Sequence[Path]) -> Iterator[None]:
        """Mount the layers read-only at `view`; overlayfs needs two lower directories, so empty ones are added."""
        view.mkdir(mode=0o700)
        try:
            lowers = [*layers[::-1], home / "empty", view]
            mount_overlay(lowers[: max(2, len(layers))], view, None, append=self._append)
            yield
        finally:
            mounts.unmount_all(view)
            view.rmdir()

    @contextmanager
    def upper(self, home: Path) -> Iterator[Path]:
        """The upper directory itself."""
        yield home / "upper"


@contextmanager
def _mapped(directories: Sequence[Path], place: Path, ids: IdRange | None) -> Iterator[list[Path]]:
    """Yield the directories as seen with `ids`; they are mounted at `place` for the duration of the block."""
    if ids is None:
        yield list(directories)
        return
    place.mkdir(mode=0o700, exist_ok=True)
    with ExitStack() as stack:
        stack.callback(_take_down, place)
        namespace = stack.enter_context(user_namespace(ids))
        seen = []
        for directory in directories:
            clone = mounts.clone_mount(directory, recursive=False, user_namespace=namespace)
            stack.callback(os.close, clone)
            mounts.attach_mount(clone, place)
            seen.append(Path(f"/proc/self/fd/{clone}"))
        yield seen


def _take_down(place: Path) -> None:
    mounts.unmount_all(place)
    place.rmdir()


def merge_layers(layers: Sequence[Path], directory: Path, root: RootEntry | None) -> None:
    """Apply stored layers to the files in `directory`, lowest first."""
    with _open(directory) as target:
        for layer in layers:
            with _open(layer) as source:
                trees.copy_tree(source, target, overlay=True)
    _apply_root(directory, root)


class CopyRoot:
    """A full copy, for kernels and file systems without overlays; shares blocks where supported (FICLONE)."""

    copies = True

    def create(self, home: Path, layers: Sequence[Path], root: RootEntry | None) -> None:
        """Copy the layers in order, then record the result."""
        (home / "root").mkdir()
        merge_layers(layers, home / "root", root)
        with _open(home / "root") as target:
            _write_record(home / "record", changes.record(target))

    def mount(self, home: Path, target: Path, layers: Sequence[Path], ids: IdRange | None) -> Path:
        """Nothing to mount, except with `ids`: the copy itself is the root file system."""
        if ids is None:
            return home / "root"
        if not target.is_mount():
            target.mkdir(mode=0o700, exist_ok=True)
            try:
                with user_namespace(ids) as namespace:
                    mounts.bind_mount(home / "root", target, recursive=False, user_namespace=namespace)
            except BaseException:
                target.rmdir()
                raise
        return target

    def unmount(self, target: Path) -> None:
        """Unmount, where it was mounted. Idempotent."""
        if target.exists():
            mounts.unmount_all(target)
            target.rmdir()

    def size(self, home: Path) -> int:
        """Bytes of added or changed files."""
        with _open(home / "root") as root:
            found = changes.touched_since(_read_record(home / "record"), root)
            sizes = {
                (entry.stat.st_dev, entry.stat.st_ino): entry.stat.st_size
                for entry in trees.walk(root)
                if not entry.is_directory and entry.path in found
            }
        return sum(sizes.values())

    def changes(self, home: Path, view: Path, layers: Sequence[Path]) -> Kinds:
        """Compare the copy with its record."""
        with _open(home / "root") as root:
            return changes.changed_since(_read_record(home / "record"), root)

    @contextmanager
    def upper(self, home: Path) -> Iterator[Path]:
        """Yield a directory with the changed files (as hard links) and whiteouts for the deleted ones."""
        upper = Path(tempfile.mkdtemp(prefix="upper-", dir=home))
        try:
            with _open(home / "root") as root, _open(upper) as target:
                _stage(root, target, changes.touched_since(_read_record(home / "record"), root))
            yield upper
        finally:
            trees.remove_tree(upper)


def _stage(root: int, upper: int, found: Kinds) -> None:
    """Fill `upper` with the changes; directories' metadata comes last, because filling them changes their times."""
    directories = [""]
    for entry in trees.walk(root):
        if entry.path not in found:
            continue
        if entry.is_directory:
            os.mkdir(entry.path, dir_fd=upper)
            directories.append(entry.path)
        else:
            os.link(entry.name, entry.path, src_dir_fd=entry.parent, dst_dir_fd=upper, follow_symlinks=False)
    for path, kind in found.items():
        if kind == "D":
            trees.make_whiteout(path, upper)
    for path in directories:
        with _open(path or ".", root) as source, _open(path or ".", upper) as target:
            trees.copy_metadata(source, target)


def _apply_root(directory: Path, root: RootEntry | None) -> None:
    """Apply the root directory's metadata of the topmost layer that has it; mode 0755 if none does."""
    if root is None:
        directory.chmod(0o755)
        return
    os.chown(directory, root.uid, root.gid)
    directory.chmod(root.mode)
    for name, value in root.xattrs.items():
        os.setxattr(directory, name, value)
    os.utime(directory, ns=(root.mtime_ns, root.mtime_ns))


def _write_record(path: Path, record: Record) -> None:
    path.write_bytes(msgspec.msgpack.encode([(os.fsencode(name), row) for name, row in record.items()]))


def _read_record(path: Path) -> Record:
    rows = msgspec.msgpack.decode(path.read_bytes(), type=list[tuple[bytes, Seen]])
    return {os.fsdecode(name): row for name, row in rows}


@contextmanager
def _open(directory: Path | str, parent: int | None = None) -> Iterator[int]:
    descriptor = trees.open_directory(directory, parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
