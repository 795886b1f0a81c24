"""Deletions in a layer: how a tar says them and how overlayfs wants them (OCI image specification, "layer.md").

    in the tar                  on disk, in a lower or upper directory of an overlay
    --------------------------  -----------------------------------------------------------------
    DIR/.wh.NAME                DIR/NAME, a character device 0:0; DIR carries an empty ...overlay.origin, without
                                which a directory that no other layer has would list the device
    DIR/.wh..wh..opq            DIR carries ...overlay.opaque=y: nothing of lower layers shows
    .wh..wh.* otherwise         nothing: aufs' own bookkeeping

The attributes' prefix is `trusted.`, which an overlay reads that is not mounted with `userxattr`, and hides.
A whiteout hides lower layers only: beside a file of the same name in the same layer it does nothing, and a directory of
that name becomes opaque.
"""

from __future__ import annotations

from havre.errors import InvalidInput

PREFIX = b".wh."
OPAQUE_MARKER = b".wh..wh..opq"
_BOOKKEEPING = b".wh..wh."

OPAQUE_XATTRS = {b"trusted.overlay.opaque": b"y"}
ORIGIN_XATTRS = {b"trusted.overlay.origin": b""}


def is_bookkeeping(path: bytes) -> bool:
    """Whether `path` is, or lies in, something that only aufs understood."""
    if _BOOKKEEPING not in path:
        return False
    parts = path.split(b"/")
    return any(part.startswith(_BOOKKEEPING) for part in parts[:-1]) or (
        parts[-1].startswith(_BOOKKEEPING) and parts[-1] != OPAQUE_MARKER
    )


def hidden_name(name: bytes) -> bytes | None:
    """The name that the whiteout `name` hides, None when it is none; raises `InvalidInput` for a nameless one."""
    if not name.startswith(PREFIX) or name == OPAQUE_MARKER:
        return None
    hidden = name[len(PREFIX) :]
    if hidden in (b"", b".", b".."):
        raise InvalidInput(f"whiteout {name!r} in a layer hides no possible name")
    return hidden
