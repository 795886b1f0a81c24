"""The processes that hold an engine's containers, for tests that kill them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support.engines import Engine


def processes_of(engine: Engine) -> set[int]:
    """conmon and the OCI runtime of this engine's containers, and what they hold."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (text := read(entry / "cmdline")) and str(engine.root / "run") in text:
            found.add(int(entry.name))
    return found - {engine.pid} if engine.running else found


def named(pids: set[int], name: str) -> list[int]:
    """Those that run the program `name`."""
    return sorted(pid for pid in pids if read(Path(f"/proc/{pid}/comm")).strip() == name)


def kill(pid: int) -> bool:
    """SIGKILL; whether it was there."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def read(file: Path) -> str:
    """A file of a process that may have gone: then nothing."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
