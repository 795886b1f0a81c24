"""The C library's heap: in how many arenas threads may allocate.

glibc opens an arena for each new thread, up to eight for each processor. Each keeps much of what its threads have given
back, so that a process whose threads take turns with large buffers holds the buffers of all of them.

Source: mallopt(3), M_ARENA_MAX.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8

_libc = ctypes.CDLL(None)


def limit_arenas(count: int) -> None:
    """Let all threads together use `count` arenas; before they start. C libraries without arenas have nothing to do."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, count)
