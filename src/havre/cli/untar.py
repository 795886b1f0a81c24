"""Writes an archive that came out of a container, and so is hostile, into a directory here.

Directories are entered one by one from the destination, by descriptor and never through a link, so that no name in the
archive leads outside whatever its links say. What is in the way is replaced, directories merge. Set-user-ID, set-group-
ID and sticky bits are left out: a container's root need not be ours.

Reads ustar, pax and GNU's long names, which is what engines write. Sources: pax(1); docker's documentation of `cp`.
"""

from __future__ import annotations

import os
import stat
import tarfile

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_BLOCK = tarfile.BLOCKSIZE
_MAX_EXTENDED = 1 << 20
_LONG_NAMES = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK)
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def untar(chunks: Iterator[bytes], directory: str, rename: Callable[[str], str], *, keep_owner: bool) -> int:
    """Write the archive's members below `directory`, each under the name that `rename` makes of its own.

    How many bytes were read. Raises `tarfile.TarError` for a damaged archive, OSError.
    """
    source = _Source(chunks)
    writer = _Writer(directory, keep_owner)
    try:
        for member in _members(source):
            member.name = rename(member.name)
            writer.write(member, source)
        writer.finish()
    finally:
        writer.close()
    source.drain()
    return source.count


class _Source:
    """Chunks as a stream that is read by counts."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._view = memoryview(b"")
        self.count = 0

    def _more(self) -> bool:
        data = next(self._chunks, b"")
        self._view = memoryview(data)
        self.count += len(data)
        return bool(data)

    def pieces(self, size: int) -> Iterator[memoryview]:
        """The next `size` bytes."""
        while size:
            if not self._view and not self._more():
                raise tarfile.ReadError("unexpected end of data")
            piece, self._view = self._view[:size], self._view[size:]
            size -= len(piece)
            yield piece

    def exactly(self, size: int) -> bytes:
        """The next `size` bytes at once."""
        return b"".join(self.pieces(size))

    def skip(self, size: int) -> None:
        """Leave `size` bytes out."""
        for _ in self.pieces(size):
            continue

    def drain(self) -> None:
        """Read to the end."""
        while self._more():
            continue


def _members(source: _Source) -> Iterator[tarfile.TarInfo]:
    """The members in order; of each, its `size` bytes and their padding are to be read before the next."""
    extended: dict[str, str] = {}
    while any(block := source.exactly(_BLOCK)):
        member = tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
        if member.type in (tarfile.XHDTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.XGLTYPE, *_LONG_NAMES):
            text = _extended(source, member.size)
            if member.type in _LONG_NAMES:
                key = "path" if member.type == tarfile.GNUTYPE_LONGNAME else "linkpath"
                extended[key] = os.fsdecode(text.partition(b"\0")[0])
            elif member.type != tarfile.XGLTYPE:
                extended |= _pax_records(text)
            continue
        member.name = extended.get("path", member.name).rstrip("/")
        member.linkname = extended.get("linkpath", member.linkname)
        try:
            member.size = int(extended.get("size", member.size)) if member.isreg() else 0
            member.mtime = float(extended.get("mtime", member.mtime))
            member.uid, member.gid = int(extended.get("uid", member.uid)), int(extended.get("gid", member.gid))
        except ValueError as error:
            raise tarfile.ReadError(f"bad extended header: {error}") from error
        extended = {}
        yield member


def _extended(source: _Source, size: int) -> bytes:
    if not 0 <= size <= _MAX_EXTENDED:
        raise tarfile.ReadError(f"extended header of {size} bytes")
    text = source.exactly(size)
    source.skip(-size % _BLOCK)
    return text


def _pax_records(text: bytes) -> dict[str, str]:
    """`LENGTH KEY=VALUE\\n`, where the length counts the whole record."""
    records = {}
    while text:
        length, _, _ = text.partition(b" ")
        if not length.isdigit() or not len(length) < int(length) <= len(text):
            raise tarfile.ReadError("bad extended header")
        key, _, value = text[len(length) + 1 : int(length) - 1].partition(b"=")
        records[os.fsdecode(key)] = os.fsdecode(value)
        text = text[int(length) :]
    return records


class _Writer:
    """Makes members below `directory`."""

    def __init__(self, directory: str, keep_owner: bool) -> None:
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._keep_owner = keep_owner
        self._parent: tuple[str, int] = ("", self._root)  # the last directory that was written to
        self._directories: dict[str, tarfile.TarInfo] = {}

    def write(self, member: tarfile.TarInfo, source: _Source) -> None:
        """Make a member, with its data."""
        above, _, name = _clean(member.name).rpartition("/")
        parent = self._enter(above)
        if member.isdir():
            if name:
                _make_directory(name, parent)
            self._directories[_clean(member.name)] = member
        elif member.isreg():
            self._file(name, parent, member, source)
        else:
            _remove(name, parent)
            self._special(name, parent, member)

    def finish(self) -> None:
        """Directories' modes and times, which filling them changes, from the deepest up."""
        for path in sorted(self._directories, reverse=True):
            descriptor = os.dup(self._enter(path))
            try:
                self._describe(descriptor, self._directories[path])
            finally:
                os.close(descriptor)

    def close(self) -> None:
        """Close all descriptors."""
        self._leave()
        os.close(self._root)

    def _leave(self) -> None:
        if self._parent[1] != self._root:
            os.close(self._parent[1])
        self._parent = ("", self._root)

    def _enter(self, path: str) -> int:
        """A descriptor of a directory below the destination, made if it is missing."""
        if path == self._parent[0]:
            return self._parent[1]
        self._leave()
        here = os.dup(self._root)
        for part in path.split("/") if path else ():
            try:
                try:
                    below = os.open(part, _DIRECTORY, dir_fd=here)
                except FileNotFoundError:
                    os.mkdir(part, dir_fd=here)
                    below = os.open(part, _DIRECTORY, dir_fd=here)
            finally:
                os.close(here)
            here = below
        self._parent = (path, here)
        return here

    def _file(self, name: str, parent: int, member: tarfile.TarInfo, source: _Source) -> None:
        try:
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        except FileExistsError:
            _remove(name, parent)
            descriptor = os.open(name, _NEW_FILE, 0o600, dir_fd=parent)
        try:
            for piece in source.pieces(member.size):
                while piece:
                    piece = piece[os.write(descriptor, piece) :]
            self._describe(descriptor, member)
        finally:
            os.close(descriptor)
        source.skip(-member.size % _BLOCK)

    def _special(self, name: str, parent: int, member: tarfile.TarInfo) -> None:
        if member.islnk():
            above, _, target = _clean(member.linkname).rpartition("/")
            parent = os.dup(parent)
            try:
                os.link(target, name, src_dir_fd=self._enter(above), dst_dir_fd=parent, follow_symlinks=False)
            finally:
                os.close(parent)
            return
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.isfifo():
            os.mkfifo(name, member.mode & 0o777, dir_fd=parent)
        elif member.ischr() or member.isblk():
            kind = 0o020000 if member.ischr() else 0o060000
            os.mknod(name, kind | member.mode & 0o777, os.makedev(member.devmajor, member.devminor), dir_fd=parent)
        else:
            raise tarfile.ReadError(f"{member.name}: unknown type {member.type!r}")
        if self._keep_owner:
            os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)

    def _describe(self, descriptor: int, member: tarfile.TarInfo) -> None:
        if self._keep_owner:
            os.chown(descriptor, member.uid, member.gid)
        os.chmod(descriptor, member.mode & 0o777)
        os.utime(descriptor, (member.mtime, member.mtime))


def _clean(name: str) -> str:
    """A member's name without leading slashes and dots; none may lead up."""
    if not name.startswith(("/", ".")) and "/." not in name and "//" not in name:
        return name
    parts = [part for part in name.split("/") if part not in ("", ".")]
    if ".." in parts:
        raise tarfile.ReadError(f"{name!r} would lead outside of the destination")
    return "/".join(parts)


def _make_directory(name: str, parent: int) -> None:
    try:
        os.mkdir(name, 0o700, dir_fd=parent)
    except FileExistsError:
        if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            os.unlink(name, dir_fd=parent)
            os.mkdir(name, 0o700, dir_fd=parent)


def _remove(name: str, parent: int) -> None:
    """Make room for what is no directory; a directory in the way is an error (IsADirectoryError)."""
    try:
        os.unlink(name, dir_fd=parent)
    except FileNotFoundError:
        return
