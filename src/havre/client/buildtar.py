"""A build context as a tar, generated while it is sent: supported by every daemon."""

from __future__ import annotations

import os
import stat

from havre.client.buildcontext import DirectoryContext, Member, TextContext, content_of
from havre.tar.headers import FLAGS, HARD_LINK, end, header, padding

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator


def tar_of(context: DirectoryContext | TextContext) -> Iterator[bytes]:
    """Yield the tar in pieces. Raises Failed for an unreadable file."""
    written = 0
    for member in context.members():
        for piece in _pieces(member):
            written += len(piece)
            yield piece
    yield end(written)


def _pieces(member: Member) -> Iterator[bytes]:
    kind = stat.S_IFMT(member.mode)
    yield header(
        os.fsencode(member.name) + (b"/" if kind == stat.S_IFDIR else b""),
        HARD_LINK if kind == stat.S_IFREG and member.link else FLAGS[kind],
        mode=stat.S_IMODE(member.mode),
        size=member.size,
        mtime=0 if member.content else member.mtime_ns // 10**9,
        link=os.fsencode(member.link),
    )
    if member.size:
        yield from content_of(member)
        yield padding(member.size)


def is_tar(head: bytes) -> bool:
    """Report whether a stream with this beginning is a tar, compressed or not, rather than a Dockerfile."""
    magics = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0", b"\x28\xb5\x2f\xfd")
    return head.startswith(magics) or head[257:262] == b"ustar"
