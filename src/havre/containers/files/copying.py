"""Files in and out of a container as tar archives: what `cp` and `/containers/{id}/archive` do.

    path           with a link at its end     the archive's topmost name
    /a/b           the link itself            b
    /a/b/          what it leads to           b
    /a/b/.         what it leads to           . (the content)
    /              -                          the empty name

Everything happens below one descriptor of the container's root (`views`): links are resolved there by the kernel, a
swapped one leads nowhere else (CVE-2018-15664), nothing of the container's is run or loaded, and what is compressed is
decompressed in this process (CVE-2019-14271, CVE-2026-41567). Devices and fifos are described, never opened.
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

from havre.aio import in_thread
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

#: Gives all bytes of an archive to a function that takes them in a thread, piece by piece.
Feed: TypeAlias = Callable[[Callable[[Buffer], None]], Awaitable[None]]

_DIRECTORY = os.O_PATH | os.O_DIRECTORY


@dataclass(frozen=True, slots=True)
class PathStat:
    """What is at a path: `mode` is stat(2)'s, `link_target` where a link leads in the end (absolute), else ""."""

    name: str
    size: int
    mode: int
    mtime_ns: int
    link_target: str = ""


@dataclass(frozen=True, slots=True)
class ReadArchive:
    """What was asked for, and its archive."""

    stat: PathStat
    stream: PipedStream


class Copying:
    """Reads and writes the files of containers; `ref` is what the user calls it, for messages."""

    def __init__(self, views: Views, lifecycle: Lifecycle) -> None:
        self._views = views
        self._lifecycle = lifecycle

    async def stat(self, live: Live, ref: str, path: str) -> PathStat:
        """What is at `path`. NotFound; Failed for a path through something that is no directory."""
        async with self._views.open(live) as view:
            return await in_thread(_stat, view.root, ref, path)

    @asynccontextmanager
    async def reading(self, live: Live, ref: str, path: str) -> AsyncIterator[ReadArchive]:
        """The archive of what is at `path`; errors as `stat`."""
        async with self._views.open(live) as view:
            found = await in_thread(_stat, view.root, ref, path)
            self._lifecycle.publish(live.container, "archive-path")
            stream = PipedStream(lambda out: _write_archive(out, view, ref, path))
            try:
                await stream.available()  # what has gone meanwhile is told before anything is sent
                yield ReadArchive(found, stream)
            finally:
                await stream.close()

    @asynccontextmanager
    async def exporting(self, live: Live) -> AsyncIterator[PipedStream]:
        """The tar of the root file system alone: nothing that is mounted upon it."""
        async with self._views.bare(live) as view:
            self._lifecycle.publish(live.container, "export")
            stream = PipedStream(lambda out: write_tree(out, view.root, view.ids))
            try:
                yield stream
            finally:
                await stream.close()

    async def write(self, live: Live, ref: str, path: str, archive: Feed, *, as_user: bool, no_overwrite: bool) -> None:
        """Unpack an archive into the directory `path`, following links.

        With `as_user` everything belongs to the container's user; with `no_overwrite` no directory takes the place of
        something else or the other way round. NotFound, InvalidInput for a damaged archive, Failed for the rest.
        """
        user = live.container.config.user if as_user else ""
        async with self._views.open(live) as view:
            extractor = await in_thread(_open_extractor, view, ref, path, user, no_overwrite)
            try:
                with _told("extracting into", path):
                    await archive(extractor.write)
                    await in_thread(extractor.seal)
            finally:
                extractor.close()
            self._lifecycle.publish(live.container, "extract-to-dir")


def _clean(path: str) -> str:
    """Absolute, without dots, but with the `/` or `/.` at the end that makes a difference."""
    clean = posixpath.normpath("/" + path.lstrip("/"))
    if posixpath.basename(path.rstrip("/")) == ".":
        return clean.rstrip("/") + "/."
    return clean.rstrip("/") + "/" if path.endswith("/") else clean


def _top(path: str) -> str:
    """The archive's topmost name of a clean path."""
    return "." if path.endswith("/.") else posixpath.basename(path.rstrip("/"))


@contextmanager
def _told(doing: str, path: str, ref: str = "") -> Iterator[None]:
    """Translate what the kernel refuses; with `ref`, what is missing is the path that was asked for."""
    try:
        yield
    except OSError as error:
        if ref and isinstance(error, FileNotFoundError):
            raise NotFound(f"Could not find the file {path} in container {ref}") from error
        raise Failed(f"{doing} {path}: {(error.strerror or str(error)).lower()}") from error


@contextmanager
def _found(root: int, path: str) -> Iterator[tuple[int, str, os.stat_result]]:
    """What a clean path names: where to reach it from, its name there ("." where links are followed), its status."""
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
    with _told("lstat", clean, ref), _found(root, clean) as (_, _, status):
        is_link = stat.S_ISLNK(status.st_mode)
        target = resolveat_in_root(root, clean) if is_link else ""
        return PathStat(_top(clean) or "/", status.st_size, status.st_mode, status.st_mtime_ns, target)


def _write_archive(out: BinaryIO, view: View, ref: str, path: str) -> None:
    clean = _clean(path)
    tar = TarWriter(out, ids=view.ids)
    with _told("reading", clean, ref), _found(view.root, clean) as (parent, name, status):
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
    with _told("lstat", clean, ref):
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
    """The mount that an open file lies on, by the kernel's number (proc_pid_fdinfo(5))."""
    lines = Path(f"/proc/self/fdinfo/{descriptor}").read_text().splitlines()
    return next(line for line in lines if line.startswith("mnt_id:"))
