"""glibc's malloc arenas: limits how many there are.

glibc opens an arena for each new thread, up to eight for each processor. An arena retains much of what its threads
freed, so a process whose threads take turns with large buffers retains the buffers of all of them.

Source: mallopt(3), M_ARENA_MAX.
"""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8

_libc = ctypes.CDLL(None)


def limit_arenas(count: int) -> None:
    """Limit malloc to `count` arenas. Call before threads start. Does nothing on C libraries without arenas."""
    if hasattr(_libc, "mallopt"):
        _libc.mallopt(_M_ARENA_MAX, count)
