"""The two ways a container gets a writable root file system: an overlay over its layers, or a copy of them.

    snapshots/ID/upper  work  empty     overlay: what the container wrote, the kernel's scratch, a lower for no layers
    run_root/snapshots/ID               where the overlay is mounted while the container runs

    snapshots/ID/root  record           copy: the files themselves, and what they were like when copied

Both answer the same calls, blocking, with the layers' directories given (base first) where they need them. `upper`
gives the changes in overlayfs' form (whiteouts as devices 0:0), from which a layer is made.

Mounted for a container with `ids` of its own, files appear to belong to those, and stay on disk what they are:
overlayfs is given idmapped copies of the mounts that the layers and the upper directory lie on. Kernels before 6.15
want them attached somewhere, though overlayfs keeps clones of its own: they are, one over the other, for no longer.

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
    """A way to make a root file system in the directory `home`, seen at `target` or where `mount` says."""

    copies: bool
    """Whether the layers are needed to create it and never again, rather than while it is mounted."""

    def create(self, home: Path, layers: Sequence[Path], root: RootEntry | None) -> None: ...
    def mount(self, home: Path, target: Path, layers: Sequence[Path], ids: IdRange | None) -> Path: ...
    def unmount(self, target: Path) -> None: ...
    def size(self, home: Path) -> int: ...
    def changes(self, home: Path, view: Path, layers: Sequence[Path]) -> Kinds: ...
    def upper(self, home: Path) -> AbstractContextManager[Path]: ...


class OverlayRoot:
    """An overlay: ready in a millisecond, whatever the image's size."""

    copies = False

    def __init__(self, *, append: bool) -> None:
        self._append = append

    def create(self, home: Path, layers: Sequence[Path], root: RootEntry | None) -> None:
        """The upper directory is the container's `/`, so it takes the metadata of the image's."""
        for name in ("upper", "work", "empty"):
            (home / name).mkdir()
        _apply_root(home / "upper", root)

    def mount(self, home: Path, target: Path, layers: Sequence[Path], ids: IdRange | None) -> Path:
        """Mount it at `target`, unless it is there already."""
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
        """Take it down. Idempotent."""
        mounts.unmount_all(target)
        with suppress(FileNotFoundError):
            target.rmdir()

    def size(self, home: Path) -> int:
        """Bytes written, copies of the image's files included."""
        return trees.tree_size(home / "upper")

    def changes(self, home: Path, view: Path, layers: Sequence[Path]) -> Kinds:
        """The upper directory compared with the merged layers."""
        with self._lower_view(home, view, layers), _open(home / "upper") as upper, _open(view) as lower:
            return changes.compare_with_layers(upper, lower)

    @contextmanager
    def _lower_view(self, home: Path, view: Path, layers: Sequence[Path]) -> Iterator[None]:
        """The layers alone, mounted read-only at `view`; overlayfs wants at least two, so empty ones fill up."""
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
    """The directories as they are for `ids`, for the length of a block; what is mounted there is mounted at `place`."""
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
    """Do to the files in `directory` what layers, as they lie on disk, say of them one after the other."""
    with _open(directory) as target:
        for layer in layers:
            with _open(layer) as source:
                trees.copy_tree(source, target, overlay=True)
    _apply_root(directory, root)


class CopyRoot:
    """A full copy, for kernels and file systems without overlays; shares blocks where the file system can."""

    copies = True

    def create(self, home: Path, layers: Sequence[Path], root: RootEntry | None) -> None:
        """Copy layer upon layer, then record what is there."""
        (home / "root").mkdir()
        merge_layers(layers, home / "root", root)
        with _open(home / "root") as target:
            _write_record(home / "record", changes.record(target))

    def mount(self, home: Path, target: Path, layers: Sequence[Path], ids: IdRange | None) -> Path:
        """Nothing to mount, but for `ids`: the root file system is where it was copied to."""
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
        """Take it down, where it was mounted. Idempotent."""
        if target.exists():
            mounts.unmount_all(target)
            target.rmdir()

    def size(self, home: Path) -> int:
        """Bytes of the files that were added or changed."""
        with _open(home / "root") as root:
            found = changes.touched_since(_read_record(home / "record"), root)
            sizes = {
                (entry.stat.st_dev, entry.stat.st_ino): entry.stat.st_size
                for entry in trees.walk(root)
                if not entry.is_directory and entry.path in found
            }
        return sum(sizes.values())

    def changes(self, home: Path, view: Path, layers: Sequence[Path]) -> Kinds:
        """The copy compared with the record of it."""
        with _open(home / "root") as root:
            return changes.changed_since(_read_record(home / "record"), root)

    @contextmanager
    def upper(self, home: Path) -> Iterator[Path]:
        """A directory of the changed files (hard links to them) and of whiteouts for the deleted ones."""
        upper = Path(tempfile.mkdtemp(prefix="upper-", dir=home))
        try:
            with _open(home / "root") as root, _open(upper) as target:
                _stage(root, target, changes.touched_since(_read_record(home / "record"), root))
            yield upper
        finally:
            trees.remove_tree(upper)


def _stage(root: int, upper: int, found: Kinds) -> None:
    """Fill `upper` with what changed; the metadata of directories comes last, for their content changes their times."""
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
    """Give the container's `/` what the topmost layer that speaks of it says; mode 0755 if none does."""
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
