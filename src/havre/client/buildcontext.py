"""A build context for the daemon: a directory as a tar, made while it is sent, without what `.dockerignore` names.

What the tar says of a file is what a build may depend on: its path, kind, mode, time and content. Owners are left out,
for they are the user's; sockets too, for they mean nothing without their process. The Dockerfile and `.dockerignore`
are always sent; one from elsewhere (stdin, another directory) goes under a name of its own.

Source: the Docker documentation, "Build context".
"""

from __future__ import annotations

import os
import stat
import tarfile
from collections.abc import Iterator

from havre.errors import Failed, InvalidInput
from havre.oci.ignore import IgnoreRules, read_ignore_file

_PIECE = 1 << 20
_RECORD = 10240
_ELSEWHERE = ".dockerfile.0f1e2d3c"  # where a Dockerfile goes that is not in the context


class DirectoryContext:
    """The context `root`. `dockerfile` is a path, as the user gave it, or its text where that came from elsewhere."""

    def __init__(self, root: str, dockerfile: str | bytes = "") -> None:
        if not os.path.isdir(root):
            reason = "context must be a directory" if os.path.exists(root) else "path not found"
            raise InvalidInput(f'unable to prepare context: {reason}: "{root}"')
        self._root = os.path.realpath(root)
        self._text: bytes | None = None
        if isinstance(dockerfile, bytes):
            self._text, self.dockerfile = dockerfile, _ELSEWHERE
        else:
            self.dockerfile = self._locate(dockerfile)
        self._rules = IgnoreRules([*self._patterns(), f"!{self.dockerfile}", "!.dockerignore"])

    def _locate(self, given: str) -> str:
        """The Dockerfile's path in the context; its text is kept if it lies elsewhere."""
        path = given or os.path.join(self._root, "Dockerfile")
        real = os.path.realpath(path)
        if not os.path.isfile(real):
            raise InvalidInput(f"unable to prepare context: unable to evaluate symlinks in Dockerfile path: {path}")
        if os.path.commonpath([real, self._root]) == self._root:
            return os.path.relpath(real, self._root)
        with open(real, "rb") as file:
            self._text = file.read()
        return _ELSEWHERE

    def _patterns(self) -> list[str]:
        for name in (f"{self.dockerfile}.dockerignore", ".dockerignore"):
            path = os.path.join(self._root, name)
            if os.path.isfile(path):
                with open(path, errors="replace") as file:
                    return read_ignore_file(file.read())
        return []

    def tar(self) -> Iterator[bytes]:
        """The context in pieces. Raises Failed for what cannot be read."""
        written = 0
        for piece in self._pieces():
            written += len(piece)
            yield piece
        yield bytes(1024 + -(written + 1024) % _RECORD)

    def _pieces(self) -> Iterator[bytes]:
        linked: dict[tuple[int, int], str] = {}
        try:
            for path, name in self._walk(""):
                yield from _member(path, name, linked)
        except OSError as error:
            raise Failed(f"error checking context: can't read '{error.filename}': {error.strerror}") from error
        if self._text is not None:
            member = tarfile.TarInfo(_ELSEWHERE)
            member.size = len(self._text)
            yield member.tobuf(tarfile.PAX_FORMAT) + self._text + bytes(-len(self._text) % 512)

    def _walk(self, below: str) -> Iterator[tuple[str, str]]:
        """(host path, name in the context) of everything to send, a directory before its content."""
        with os.scandir(os.path.join(self._root, below)) as entries:
            found = sorted(entries, key=lambda entry: entry.name)
        for entry in found:
            name = f"{below}/{entry.name}" if below else entry.name
            ignored = self._rules.ignores(name)
            is_directory = entry.is_dir(follow_symlinks=False)
            if not ignored:
                yield entry.path, name
            if is_directory and (not ignored or self._rules.may_take_back(name)):
                yield from self._walk(name)


def _member(path: str, name: str, linked: dict[tuple[int, int], str]) -> Iterator[bytes]:
    status = os.lstat(path)
    kind = stat.S_IFMT(status.st_mode)
    if kind in (stat.S_IFSOCK, stat.S_IFCHR, stat.S_IFBLK):
        return
    member = tarfile.TarInfo(name)
    member.mode = stat.S_IMODE(status.st_mode)
    member.mtime = int(status.st_mtime)
    inode = (status.st_dev, status.st_ino)
    if kind == stat.S_IFDIR:
        member.type = tarfile.DIRTYPE
    elif kind == stat.S_IFLNK:
        member.type, member.linkname = tarfile.SYMTYPE, os.readlink(path)
    elif kind == stat.S_IFIFO:
        member.type = tarfile.FIFOTYPE
    elif inode in linked:
        member.type, member.linkname = tarfile.LNKTYPE, linked[inode]
    else:
        member.size = status.st_size
        if status.st_nlink > 1:
            linked[inode] = name
    yield member.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
    if member.size:
        yield from _content(path, member.size)


def _content(path: str, size: int) -> Iterator[bytes]:
    """As many bytes as the head says, even of a file that changes meanwhile."""
    left = size
    with open(path, "rb", buffering=0) as file:
        while left:
            piece = file.read(min(left, _PIECE)) or bytes(min(left, _PIECE))
            left -= len(piece)
            yield piece
    yield bytes(-size % 512)


def is_tar(head: bytes) -> bool:
    """Whether a stream that begins like this is a tar, compressed or not, and no Dockerfile."""
    magics = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
    return head.startswith(magics) or head[257:262] == b"ustar"


def dockerfile_alone(text: bytes) -> Iterator[bytes]:
    """A context of nothing but a Dockerfile."""
    member = tarfile.TarInfo("Dockerfile")
    member.size = len(text)
    yield member.tobuf(tarfile.PAX_FORMAT) + text + bytes(-len(text) % 512 + 1024)
