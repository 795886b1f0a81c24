"""The processes of an engine's containers, for tests that kill them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

from support.engines import Engine


def processes_of(engine: Engine) -> set[int]:
    """conmon, the OCI runtime and the processes of this engine's containers."""
    found = set()
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit() and (text := read(entry / "cmdline")) and str(engine.root / "run") in text:
            found.add(int(entry.name))
    return found - {engine.pid} if engine.running else found


def named(pids: set[int], name: str) -> list[int]:
    """Those that run the program `name`."""
    return sorted(pid for pid in pids if read(Path(f"/proc/{pid}/comm")).strip() == name)


def kill(pid: int) -> bool:
    """Send SIGKILL. Returns whether the process existed."""
    try:
        os.kill(pid, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def read(file: Path) -> str:
    """The content of a process's file; empty if the process has exited."""
    try:
        return file.read_text()
    except (FileNotFoundError, ProcessLookupError):
        return ""
