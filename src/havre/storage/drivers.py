"""Storage drivers: how this kernel can mount layers and root file systems on this data root; probed and chosen here.

    driver       a layer on disk     is mounted from           a container's root is
    erofs        {tar, index}        the files themselves      an overlay
    erofs-loop   {tar, index}        two loop devices          an overlay
    overlay      root/               nothing: a directory      an overlay
    copy         root/               nothing: a directory      a full copy

The first that works is chosen unless the user names one. That depends on the kernel and on the data root's file system
(EROFS cannot be mounted from files on tmpfs or overlayfs), so each driver is tried there with a layer of two files and
a
whiteout; the result is stored per kernel release and file system. A layer keeps the form it was stored in: `overlay`
still mounts a layer stored for EROFS where the kernel can.

Sources: Documentation/filesystems/{erofs,overlayfs}.rst of Linux.
"""

from __future__ import annotations

import logging
import os
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, NamedTuple, TypeAlias

import msgspec

from havre.errors import Failed, InvalidInput, Unsupported
from havre.linux import mounts
from havre.linux.loop import attach_loop
from havre.linux.trees import remove_tree
from havre.oci.digest import Digest, digest_of, hex_of
from havre.storage.erofs import Index, read_uuid
from havre.tar.reader import Entry, Extent

Erofs: TypeAlias = Literal["file", "loop"]

NAMES = ("erofs", "erofs-loop", "overlay", "copy")
_DOCKERS_NAMES = {"overlay2": "overlay", "overlayfs": "overlay", "vfs": "copy"}

# redirect_dir=nofollow: the default follows redirect xattrs, which a hostile layer may contain. The others are off so
# that an upper directory is plain files that `diff` can read, independent of the distribution's defaults
# (Documentation/filesystems/overlayfs.rst).
OVERLAY_OPTIONS = (("redirect_dir", "nofollow"), ("metacopy", "off"), ("index", "off"))

_PAGE_BYTES = 4096
_INDEX_HEAD_BYTES = 1536
_SAMPLE = b"havre\n"
_SAMPLE_ID = digest_of(_SAMPLE)

log = logging.getLogger(__name__)
_LAYER_ATTRIBUTES = mounts.ATTR_RDONLY | mounts.ATTR_NOSUID | mounts.ATTR_NODEV


class Abilities(msgspec.Struct, frozen=True):
    """The result of the probe. `append`: overlayfs accepts lower directories one by one (`lowerdir+`, Linux 6.7)."""

    erofs_file: bool
    erofs_loop: bool
    overlay: bool
    append: bool


class Writable(NamedTuple):
    """The upper and work directories of a writable overlay, on one file system."""

    upper: Path
    work: Path


@dataclass(frozen=True, slots=True)
class Driver:
    """A chosen driver. `erofs` is how layers stored for EROFS are mounted, None where they cannot be."""

    name: str
    erofs: Erofs | None
    append: bool

    @property
    def unpacks(self) -> bool:
        """Report whether new layers are stored as directories."""
        return self.name in ("overlay", "copy")

    @property
    def copies(self) -> bool:
        """Report whether a container's root file system is a copy rather than an overlay."""
        return self.name == "copy"


def choose_driver(wanted: str | None, can: Abilities) -> Driver:
    """The driver named (Docker's names are aliases), or the best one. `Unsupported` when it does not work here."""
    wanted = _DOCKERS_NAMES.get(wanted or "", wanted)
    works = {
        "erofs": can.erofs_file and can.overlay,
        "erofs-loop": can.erofs_loop and can.overlay,
        "overlay": can.overlay,
        "copy": True,
    }
    if wanted is not None and wanted not in works:
        raise InvalidInput(f"unknown storage driver {wanted!r}", f"expected one of {', '.join(NAMES)}")
    name = wanted or next(name for name in NAMES if works[name])
    if not works[name]:
        usable = ", ".join(each for each in NAMES if works[each])
        raise Unsupported(
            f"storage driver {name} does not work with this kernel on this data root", f"usable: {usable}"
        )
    best: Erofs | None = "file" if can.erofs_file else "loop" if can.erofs_loop else None
    return Driver(name, "loop" if name == "erofs-loop" else best, can.append)


def probe(scratch: Path) -> Abilities:
    """Try every driver inside `scratch`, a directory created on the data root for this and removed afterwards."""
    remove_tree(scratch)
    try:
        scratch.mkdir(mode=0o700)
        for name in ("layer", "mounted", "plain", "empty", "upper", "work", "merged"):
            (scratch / name).mkdir()
        _write_sample(scratch / "layer")
        (scratch / "plain" / "hidden").touch()
        append = _works(scratch, scratch / "empty", append=True)
        overlay = append or _works(scratch, scratch / "empty", append=False)
        loop = overlay and _works_over(scratch, "loop", append=append)
        file = overlay and _works_over(scratch, "file", append=append)
    finally:
        remove_tree(scratch)
    return Abilities(erofs_file=file, erofs_loop=loop, overlay=overlay, append=append)


def _write_sample(layer: Path) -> None:
    """Write a layer of one file and one whiteout, stored for EROFS."""
    index = Index()
    extents = (Extent(0, len(_SAMPLE), 512),)
    plain = Entry(path=b".wh.hidden", kind="file", mode=0o644, uid=0, gid=0, mtime_s=0, mtime_ns=0)
    index.add(plain)
    index.add(plain._replace(path=b"kept", size=len(_SAMPLE), extents=extents))
    tar = bytes(512) + _SAMPLE.ljust(512, b"\0")
    (layer / "tar").write_bytes(tar)
    (layer / "index").write_bytes(index.render(bytes.fromhex(hex_of(_SAMPLE_ID)[:32]), len(tar)))


def _works_over(scratch: Path, how: Erofs, *, append: bool) -> bool:
    """Report whether a layer mounted by `how` works as an overlay's lower directory, whiteouts included."""
    try:
        mount_layer(scratch / "layer", scratch / "mounted", _SAMPLE_ID, how)
    except OSError as error:
        log.info("EROFS layers cannot be mounted by %s: %s", how, error)
        return False
    try:
        return _works(scratch, scratch / "mounted", append=append)
    finally:
        mounts.unmount_all(scratch / "mounted")


def _works(scratch: Path, top: Path, *, append: bool) -> bool:
    """Report whether an overlay over `top` and a plain directory can be mounted, read and written."""
    merged = scratch / "merged"
    try:
        writable = Writable(scratch / "upper", scratch / "work")
        mount_overlay([top, scratch / "plain"], merged, writable, append=append)
    except OSError as error:
        log.info("overlays cannot be mounted over %s (lowerdir+: %s): %s", top.name, append, error)
        return False
    try:
        (merged / "written").write_bytes(_SAMPLE)
        if top.name == "empty":
            return (merged / "hidden").exists()
        return (merged / "kept").read_bytes() == _SAMPLE and not (merged / "hidden").exists()
    except OSError as error:
        log.info("the overlay over %s cannot be used: %s", top.name, error)
        return False
    finally:
        mounts.unmount_all(merged)


def mount_layer(directory: Path, target: Path, diff_id: Digest, how: Erofs) -> None:
    """Mount the EROFS layer in `directory` read-only at `target`. `Failed` when index and tar do not match."""
    index, tar = directory / "index", directory / "tar"
    _check_index(index, tar, diff_id)
    with ExitStack() as stack:
        if how == "loop":
            sources = [_loop_name(stack, path) for path in (index, tar)]
        else:
            sources = [_short_name(stack, path) for path in (index, tar)]
        options = [("source", sources[0]), ("device", sources[1]), ("ro", None)]
        mounts.mount_filesystem("erofs", options, target, _LAYER_ATTRIBUTES)


def mount_overlay(lowers: Sequence[Path], target: Path, writable: Writable | None, *, append: bool) -> None:
    """Mount `lowers` (topmost first) at `target`, with the upper directory of `writable` or read-only.

    overlayfs needs at least one lower directory, or two without an upper one.
    """
    with ExitStack() as stack:
        if append:
            options: list[tuple[str, str | None]] = [("source", "overlay"), *OVERLAY_OPTIONS]
            options += [("lowerdir+", _short_name(stack, lower)) for lower in lowers]
            if writable is not None:
                options += [("upperdir", _short_name(stack, writable.upper))]
                options += [("workdir", _short_name(stack, writable.work))]
            mounts.mount_filesystem("overlay", options, target)
        else:
            mounts.mount("overlay", target, "overlay", 0, _options_in_one(stack, lowers, writable))


def _options_in_one(stack: ExitStack, lowers: Sequence[Path], writable: Writable | None) -> str:
    """The option string for kernels before `lowerdir+`: limited to one page, so each directory gets a short name."""
    options = [f"{key}={value}" for key, value in OVERLAY_OPTIONS]
    options += ["lowerdir=" + ":".join(_descriptor_name(stack, lower) for lower in lowers)]
    if writable is not None:
        options += [f"upperdir={_descriptor_name(stack, writable.upper)}"]
        options += [f"workdir={_descriptor_name(stack, writable.work)}"]
    text = ",".join(options)
    if len(text) >= _PAGE_BYTES:
        raise Unsupported(f"{len(lowers)} layers are too many for this kernel's overlayfs", "Linux 6.7 takes 500")
    return text


def _short_name(stack: ExitStack, path: Path) -> str:
    """A name for `path` short enough for one mount option, valid while `stack` is open."""
    if len(os.fsencode(path)) <= mounts.OPTION_MAX_BYTES:
        return str(path)
    return _descriptor_name(stack, path)


def _descriptor_name(stack: ExitStack, path: Path) -> str:
    descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
    stack.callback(os.close, descriptor)
    return f"/proc/self/fd/{descriptor}"


def _loop_name(stack: ExitStack, path: Path) -> str:
    descriptor, name = attach_loop(path)
    stack.callback(os.close, descriptor)  # the mount keeps the device open
    return name


def _check_index(index: Path, tar: Path, diff_id: Digest) -> None:
    """The kernel mounts any index with any tar, so compare the index's UUID with the layer and its block count with
    the tar."""
    with index.open("rb") as file:
        head = file.read(_INDEX_HEAD_BYTES)
    uuid = read_uuid(head)
    if uuid is None or uuid.hex() != hex_of(diff_id)[:32]:
        raise Failed(f"the index of layer {diff_id} belongs to another layer", "remove its image and pull it again")
    (blocks,) = struct.unpack_from("<I", head, 1152 + 64)  # in the device slot
    if tar.stat().st_size < (blocks - 1) * 512:
        raise Failed(f"the data of layer {diff_id} is truncated", "remove its image and pull it again")
