"""What a process does with a signal. Source: proc_pid_status(5), pid_namespaces(7)."""

from __future__ import annotations

from pathlib import Path

_HEARD = ("SigCgt", "SigBlk")


def hears(pid: int, number: int) -> bool | None:
    """Whether a process catches the signal or keeps it until it does; None if there is no such process.

    The first process of a PID namespace does not get what it does not hear, and never learns of it.
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    masks = dict(line.split(":\t", 1) for line in lines if line.startswith(_HEARD))
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks.values())
