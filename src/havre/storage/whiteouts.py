"""Whiteouts: deletions in a layer's tar, and their form in overlayfs (OCI image specification, "layer.md").

    in the tar                  on disk, in a lower or upper directory of an overlay
    --------------------------  -----------------------------------------------------------------
    DIR/.wh.NAME                DIR/NAME, a character device 0:0; DIR has an empty ...overlay.origin, without
                                which a directory that only this layer has would list the device
    DIR/.wh..wh..opq            DIR has ...overlay.opaque=y: hides lower layers completely
    .wh..wh.* otherwise         nothing: aufs' own bookkeeping

The attributes' prefix is `trusted.`, which overlays mounted without `userxattr` read, and hide.
A whiteout hides lower layers only: beside a file of the same name in the same layer it has no effect, and a directory
of
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
    """Report whether `path` is aufs' bookkeeping, or lies in it."""
    if _BOOKKEEPING not in path:
        return False
    parts = path.split(b"/")
    return any(part.startswith(_BOOKKEEPING) for part in parts[:-1]) or (
        parts[-1].startswith(_BOOKKEEPING) and parts[-1] != OPAQUE_MARKER
    )


def hidden_name(name: bytes) -> bytes | None:
    """The name hidden by the whiteout `name`, None when it is not a whiteout. `InvalidInput` for one without a name."""
    if not name.startswith(PREFIX) or name == OPAQUE_MARKER:
        return None
    hidden = name[len(PREFIX) :]
    if hidden in (b"", b".", b".."):
        raise InvalidInput(f"whiteout {name!r} in a layer hides an impossible name")
    return hidden
