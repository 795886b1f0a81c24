"""Copies files from and to containers as tar archives, for `cp` and `/containers/{id}/archive`.

        path           with a link at its end     the archive's topmost name
        /a/b           the link itself            b
        /a/b/          its target                 b
        /a/b/.         its target                 . (the content)
        /              -                          the empty name

All paths are resolved by the kernel below one descriptor of the container's root (`views`): a link that is swapped
concurrently cannot lead outside (CVE-2018-15664). No program or library of the container is used, and compressed
archives are decompressed in this process (CVE-2019-14271, CVE-2026-41567). Devices and FIFOs are never opened.
"""

from __future__ import annotations

import os
import posixpath
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, TypeAlias

from havre.aio import in_thread, owned
from havre.containers.files.views import View, Views
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.live import Live
from havre.errors import Failed, NotFound
from havre.linux import trees
from havre.linux.openat2 import openat_in_root, resolveat_in_root
from havre.runtime import resolve_user
from havre.storage.pipe import PipedStream
from havre.tar.compress import Buffer
from havre.tar.extract import Extractor
from havre.tar.whole import add_entry, write_tree
from havre.tar.writer import TarWriter

#: Passes all bytes of an archive to a function, which it calls in a thread, piece by piece.
Feed: TypeAlias = Callable[[Callable[[Buffer], None]], Awaitable[None]]

_DIRECTORY = os.O_PATH | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class PathStat:
    """A file's status: `mode` as in stat(2); `link_target` is a link's resolved target (absolute), or ""."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str = ""


@dataclass(frozen=True, slots=True)
class ReadArchive:
    """The status of the requested file, and its archive."""

    stat: PathStat
    stream: PipedStream


class Copying:
    """Reads and writes files of containers; `ref` is the user's name for the container, for messages."""

    def __init__(self, views: Views, lifecycle: Lifecycle) -> None:
        self._views = views
        self._lifecycle = lifecycle

    async def stat(self, live: Live, ref: str, path: str) -> PathStat:
        """The status of `path`. Raises `NotFound`; `Failed` if a component is not a directory."""
        async with self._views.open(live) as view:
            return await in_thread(_stat, view.root, ref, path)

    @asynccontextmanager
    async def reading(self, live: Live, ref: str, path: str) -> AsyncIterator[ReadArchive]:
        """The archive of `path`; raises as `stat`."""
        async with self._views.open(live) as view:
            found = await in_thread(_stat, view.root, ref, path)
            self._lifecycle.publish(live.container, "archive-path")
            stream = PipedStream(lambda out: _write_archive(out, view, ref, path))
            try:
                await stream.available()  # raises for a file that was removed, before the response starts
                yield ReadArchive(found, stream)
            finally:
                await stream.close()

    @asynccontextmanager
    async def exporting(self, live: Live) -> AsyncIterator[PipedStream]:
        """The tar of the root file system without any mounts on it."""
        async with self._views.bare(live) as view:
            self._lifecycle.publish(live.container, "export")
            stream = PipedStream(lambda out: write_tree(out, view.root, view.ids))
            try:
                yield stream
            finally:
                await stream.close()

    async def write(self, live: Live, ref: str, path: str, archive: Feed, *, as_user: bool, no_overwrite: bool) -> None:
        """Extract an archive into the directory `path`, following links.

        With `as_user`, everything is owned by the container's user; with `no_overwrite`, a directory does not replace
        another type of file or vice versa. Raises `NotFound`, `InvalidInput` for a damaged archive, `Failed` otherwise.
        """
        user = live.container.spec.config.user if as_user else ""
        async with self._views.open(live) as view:
            extractor = await owned(Extractor.close, _open_extractor, view, ref, path, user, no_overwrite)
            try:
                with _errors_named("extracting into", path):
                    await archive(extractor.write)
                    await in_thread(extractor.seal)
            finally:
                extractor.close()
            self._lifecycle.publish(live.container, "extract-to-dir")


def _clean(path: str) -> str:
    """Normalise to an absolute path without dots, but keep a trailing `/` or `/.`, which are significant."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if posixpath.basename(path.rstrip("/")) == ".":
        return clean.rstrip("/") + "/."
    return clean.rstrip("/") + "/" if path.endswith("/") else clean


def _top(path: str) -> str:
    """The archive's topmost name for a clean path."""
    return "." if path.endswith("/.") else posixpath.basename(path.rstrip("/"))


@contextmanager
def _errors_named(doing: str, path: str, ref: str = "") -> Iterator[None]:
    """Translate errors of the kernel; with `ref`, ENOENT means that the requested path does not exist."""
    try:
        yield
    except OSError as error:
        if ref and isinstance(error, FileNotFoundError):
            raise NotFound(f"Could not find the file {path} in container {ref}") from error
        raise Failed(f"{doing} {path}: {(error.strerror or str(error)).lower()}") from error


@contextmanager
def _found(root: int, path: str) -> Iterator[tuple[int, str, os.stat_result]]:
    """A descriptor of the parent of a clean path, the name in it ("." if links are followed), and the status."""
    follows = path.endswith(("/", "/."))
    above, _, name = path.rpartition("/")
    parent = openat_in_root(root, path if follows else above, _DIRECTORY)
    try:
        name = "." if follows else name
        yield parent, name, os.stat(name, dir_fd=parent, follow_symlinks=False)
    finally:
        os.close(parent)


def _stat(root: int, ref: str, path: str) -> PathStat:
    clean = _clean(path)
    with _errors_named("lstat", clean, ref), _found(root, clean) as (_, _, status):
        is_link = stat.S_ISLNK(status.st_mode)
        target = resolveat_in_root(root, clean) if is_link else ""
        return PathStat(_top(clean) or "/", status.st_size, status.st_mode, status.st_mtime_ns, target)


def _write_archive(out: BinaryIO, view: View, ref: str, path: str) -> None:
    clean = _clean(path)
    tar = TarWriter(out, ids=view.ids)
    with _errors_named("reading", clean, ref), _found(view.root, clean) as (parent, name, status):
        top = os.fsencode(_top(clean))
        tar.add(top, status, parent, name)
        if stat.S_ISDIR(status.st_mode):
            directory = trees.open_directory(name, parent)
            try:
                for entry in trees.walk(directory, view.closed):
                    add_entry(tar, top + b"/", entry)
            finally:
                os.close(directory)
    tar.finish()


def _open_extractor(view: View, ref: str, path: str, user: str, no_overwrite: bool) -> Extractor:
    clean, root = _clean(path), view.root
    with _errors_named("lstat", clean, ref):
        try:
            target = openat_in_root(root, clean, _DIRECTORY)
        except NotADirectoryError:
            raise Failed("extraction point is not a directory") from None
        try:
            if os.fstatvfs(target).f_flag & os.ST_RDONLY:
                what = "container rootfs" if _mount_of(target) == _mount_of(root) else "mounted volume"
                raise Failed(f"{what} is marked read-only")
        finally:
            os.close(target)
    owner = None
    if user:
        resolved = resolve_user(Path(f"/proc/self/fd/{root}"), user)
        owner = (resolved.uid, resolved.gid)
    return Extractor(os.dup(root), clean.removesuffix("."), owner, no_overwrite=no_overwrite, ids=view.ids)


def _mount_of(descriptor: int) -> str:
    """The mount ID of an open file (proc_pid_fdinfo(5))."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(line for line in lines if line.startswith("mnt_id:"))
