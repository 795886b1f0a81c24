"""A build context as a tar, generated while it is sent: supported by every daemon."""

from __future__ import annotations

import stat
import tarfile

from havre.client.buildcontext import DirectoryContext, Member, TextContext, content_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_RECORD = 10240
_TYPES = {stat.S_IFDIR: tarfile.DIRTYPE, stat.S_IFLNK: tarfile.SYMTYPE, stat.S_IFIFO: tarfile.FIFOTYPE}


def tar_of(context: DirectoryContext | TextContext) -> Iterator[bytes]:
    """Yield the tar in pieces. Raises Failed for an unreadable file."""
    written = 0
    for member in context.members():
        for piece in _pieces(member):
            written += len(piece)
            yield piece
    yield bytes(1024 + -(written + 1024) % _RECORD)


def _pieces(member: Member) -> Iterator[bytes]:
    header = tarfile.TarInfo(member.name)
    header.mode = stat.S_IMODE(member.mode)
    header.mtime = 0 if member.content else member.mtime_ns // 10**9
    header.size, header.linkname = member.size, member.link
    header.type = _TYPES.get(stat.S_IFMT(member.mode), tarfile.LNKTYPE if member.link else tarfile.REGTYPE)
    yield header.tobuf(tarfile.PAX_FORMAT, errors="surrogateescape")
    if member.size:
        yield from content_of(member)
        yield bytes(-member.size % 512)


def is_tar(head: bytes) -> bool:
    """Report whether a stream with this beginning is a tar, compressed or not, rather than a Dockerfile."""
    magics = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
    return head.startswith(magics) or head[257:262] == b"ustar"
