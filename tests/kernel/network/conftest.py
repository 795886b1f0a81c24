"""Networks under test, in a network namespace of their own: the host's links and tables stay untouched."""

from __future__ import annotations

import ctypes
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

_CLONE_NEWNET = 0x40000000
_libc = ctypes.CDLL(None, use_errno=True)


@pytest.fixture(autouse=True)
def fresh_netns() -> Iterator[None]:
    """Move the test's thread to a new network namespace; it and all in it ends with the test."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
    try:
        assert _libc.unshare(_CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        yield
    finally:
        assert _libc.setns(home, _CLONE_NEWNET) == 0, os.strerror(ctypes.get_errno())
        os.close(home)


@pytest.fixture
def run_root(tmp_path: Path) -> Path:
    """A daemon's run directory."""
    return tmp_path / "run"
