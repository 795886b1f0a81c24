"""Receives files from the client by fsutil's protocol, in which only the content requested is sent.

    client                              daemon
    STAT a, STAT b, ... STAT (empty)  -->         the list: every directory before its content
                                      <--  REQ 1  the position in the list of a file whose content is needed
    DATA 1, DATA 1, DATA 1 (empty)    -->         files may interleave, and REQ and STAT may overlap
                                      <--  FIN
    FIN                               -->

The files are written to a `PackedTree` (builds.packed). All input is untrusted.

Source: tonistiigi/fsutil, the head of send.go and receive.go; moby/buildkit session/filesync; Go's io/fs FileMode.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from urllib.parse import quote_plus

from havre.aio import to_its_end
from havre.api.buildkit.messages import Stat
from havre.api.buildkit.sessionmessages import Packet
from havre.api.buildkit.sessions import Session
from havre.api.buildkit.shown import Moved
from havre.builds.intake import PackUpdate
from havre.builds.packed import PackedTree
from havre.errors import Failed, InvalidInput
from havre.tar.reader import Entry

METHOD = "/moby.filesync.v1.FileSync/DiffCopy"

STAT, REQ, DATA, FIN, ERR = range(5)

_BATCH_BYTES = 1 << 20  # passed to the disk's thread at once
_PACKET_COST = 1 << 10  # the cost of a packet in addition to its content

_GO_DIR, _GO_SYMLINK, _GO_DEVICE, _GO_PIPE, _GO_SOCKET = 1 << 31, 1 << 27, 1 << 26, 1 << 25, 1 << 24
_GO_SETUID, _GO_SETGID, _GO_CHAR, _GO_STICKY, _GO_IRREGULAR = 1 << 23, 1 << 22, 1 << 21, 1 << 20, 1 << 19
_GO_KINDS = {
    stat.S_IFDIR: _GO_DIR,
    stat.S_IFLNK: _GO_SYMLINK,
    stat.S_IFIFO: _GO_PIPE,
    stat.S_IFSOCK: _GO_SOCKET,
    stat.S_IFBLK: _GO_DEVICE,
    stat.S_IFCHR: _GO_DEVICE | _GO_CHAR,
}
_KINDS = {
    0: "file",
    _GO_DIR: "dir",
    _GO_SYMLINK: "symlink",
    _GO_PIPE: "fifo",
    _GO_DEVICE: "block",
    _GO_DEVICE | _GO_CHAR: "char",
}
_GO_TYPE = _GO_DIR | _GO_SYMLINK | _GO_PIPE | _GO_SOCKET | _GO_DEVICE | _GO_CHAR | _GO_IRREGULAR
_BITS = ((_GO_SETUID, stat.S_ISUID), (_GO_SETGID, stat.S_ISGID), (_GO_STICKY, stat.S_ISVTX))


async def receive(
    session: Session, name: str, into: PackedTree, moved: Moved, *, follow: Sequence[str], exclude: Sequence[str]
) -> None:
    """Sync the client's directory `name` to `into`: the paths `follow`, without those in `exclude`.

    `follow` may have wildcards and is empty for everything; `exclude` are patterns as in .dockerignore. `moved` gets
    the size of each packet.
    """
    metadata = [
        ("dir-name", name),
        *_render_header("followpaths", follow),
        *_render_header("exclude-patterns", exclude),
    ]
    async with session.converse(METHOD, metadata, Packet, Packet) as stream:
        await stream.send_request()
        with _translated_disk_errors(), closing(_Intake(into)) as intake:
            while not intake.complete:
                packet = await stream.recv_message()
                if packet is None:
                    raise Failed("the client ended the transfer of files too early")
                moved(len(packet.data) or len(packet.stat.path if packet.stat else ""))
                if intake.gather(packet):
                    for id in await to_its_end(intake.apply):
                        await stream.send_message(Packet(type=REQ, id=id))
            await to_its_end(intake.finish)
        await stream.send_message(Packet(type=FIN), end=True)
        while await stream.recv_message() is not None:
            pass


@contextmanager
def _translated_disk_errors() -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if isinstance(error, ConnectionError):
            raise
        raise Failed(f"failed to write the build context: {error.strerror or error}") from error


def _render_header(key: str, values: Sequence[str]) -> list[tuple[str, str]]:
    """Header values must be printable ASCII; others are escaped and marked as such."""
    if all(value.isascii() and value.isprintable() for value in values):
        return [(key, value) for value in values]
    escaped = [(key, quote_plus(os.fsencode(value))) for value in values]
    return [*escaped, (f"{key}-encoded", "1")]


class _Intake:
    """The receiver of one transfer: packets are collected on the event loop and written in a thread."""

    def __init__(self, into: PackedTree) -> None:
        self._tree = PackUpdate(into)
        self._batch: list[Packet] = []
        self._size = 0
        self._ends = 0  # files that end in this batch
        self._count = 0  # entries listed so far
        self._listed = False
        self._wanted: dict[int, Entry] = {}

    @property
    def complete(self) -> bool:
        """Report whether the list and all requested content have arrived."""
        return self._listed and not self._wanted

    def gather(self, packet: Packet) -> bool:
        """Add a packet to the batch. Returns whether the batch should be applied."""
        self._batch.append(packet)
        self._size += len(packet.data) + _PACKET_COST
        self._ends += packet.type == DATA and not packet.data
        if self._size >= _BATCH_BYTES or packet.type not in (STAT, DATA):
            return True
        return (packet.type == STAT and packet.stat is None) or (self._listed and self._ends >= len(self._wanted))

    def apply(self) -> list[int]:
        """Write the batch. Returns the requests to send."""
        asked: list[int] = []
        for packet in self._batch:
            if packet.type == STAT:
                asked += self._list(packet.stat)
            elif packet.type == DATA:
                self._write(packet)
            else:
                problem = packet.data.decode(errors="replace") if packet.type == ERR else "an unexpected packet"
                raise Failed(f"error from sender: {problem}")
        self._batch, self._size, self._ends = [], 0, 0
        return asked

    def _list(self, described: Stat | None) -> list[int]:
        if self._listed:
            raise InvalidInput("the client continues a list of files that has ended")
        if described is None:
            self._listed = True
            return []
        number, self._count = self._count, self._count + 1
        entry = parse_stat(described)
        if entry is None or not self._tree.want(entry):
            return []
        self._wanted[number] = entry
        return [number]

    def _write(self, packet: Packet) -> None:
        entry = self._wanted.get(packet.id)
        if entry is None:
            raise InvalidInput(f"invalid file request {packet.id}")
        if packet.data:
            self._tree.write(entry, packet.data)
        else:
            self._tree.seal(entry)
            del self._wanted[packet.id]

    def finish(self) -> None:
        """Finish the directory as listed."""
        self._tree.finish()

    def close(self) -> None:
        """Close the directory. Idempotent."""
        self._tree.close()


def parse_stat(described: Stat) -> Entry | None:
    """Parse a client's entry; None for a socket, which has no content."""
    kind = _kind(described)
    if kind is None:
        return None
    mode = described.mode & 0o777
    for go, unix in _BITS:
        mode |= unix if described.mode & go else 0
    seconds, nanoseconds = divmod(described.mtime, 10**9)
    return Entry(
        path=os.fsencode(described.path),
        kind=kind,
        mode=mode,
        uid=described.uid & 0xFFFFFFFF,
        gid=described.gid & 0xFFFFFFFF,
        mtime_s=seconds,
        mtime_ns=nanoseconds,
        size=described.size if kind == "file" else 0,
        link=os.fsencode(described.linkname),
        rdev=(described.major, described.minor),
        xattrs={os.fsencode(name): value for name, value in described.xattrs.items()},
    )


def _kind(described: Stat) -> str | None:
    kind = described.mode & _GO_TYPE
    if kind == _GO_SOCKET:
        return None
    if kind not in _KINDS:
        raise InvalidInput(f"{described.path[:200]!r} has a type that is not allowed in a build context")
    return "hardlink" if kind == 0 and described.linkname else _KINDS[kind]


def render_entry(entry: Entry) -> Stat:
    """Render an entry of a tree for a client, without its path."""
    mode = entry.mode & 0o777 | next((go for go, kind in _KINDS.items() if kind == entry.kind), 0)
    for go, unix in _BITS:
        mode |= go if entry.mode & unix else 0
    mtime = entry.mtime_s * 10**9 + entry.mtime_ns
    return Stat(mode=mode, uid=entry.uid, gid=entry.gid, size=entry.size, mtime=mtime, linkname=os.fsdecode(entry.link))


def render_stat(path: str, status: os.stat_result, link: str = "") -> Stat:
    """Render a file's attributes for a client."""
    mode = stat.S_IMODE(status.st_mode) & 0o777 | _GO_KINDS.get(stat.S_IFMT(status.st_mode), 0)
    for go, unix in _BITS:
        mode |= go if status.st_mode & unix else 0
    is_device = stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode)
    return Stat(
        path=path,
        mode=mode,
        uid=status.st_uid,
        gid=status.st_gid,
        size=status.st_size if stat.S_ISREG(status.st_mode) else 0,
        mtime=status.st_mtime_ns,
        linkname=link,
        major=os.major(status.st_rdev) if is_device else 0,
        minor=os.minor(status.st_rdev) if is_device else 0,
    )
