"""How many arenas the C library makes for threads."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import ctypes, sys, threading
from havre.linux.heap import limit_arenas

if sys.argv[1:]:
    limit_arenas(int(sys.argv[1]))
together = threading.Barrier(6)
blocks = []

def fill():
    together.wait()
    blocks.append(bytes(100_000))
    together.wait()

threads = [threading.Thread(target=fill) for _ in range(6)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
libc = ctypes.CDLL(None)
libc.fdopen.restype = ctypes.c_void_p
out = ctypes.c_void_p(libc.fdopen(1, b"w"))
libc.malloc_info(0, out)
libc.fflush(out)
"""


@pytest.mark.parametrize(("limit", "fewest", "most"), [([], 3, 100), (["2"], 1, 2)])
def test_threads_share_the_arenas_there_may_be(limit: list[str], fewest: int, most: int) -> None:
    told = subprocess.run([sys.executable, "-c", PROGRAM, *limit], check=True, capture_output=True, text=True).stdout
    assert fewest <= told.count("<heap nr=") <= most
