"""Signal dispositions of a process. Source: proc_pid_status(5), pid_namespaces(7)."""

from __future__ import annotations

from pathlib import Path

_HEARD = ("SigCgt", "SigBlk")


def hears(pid: int, number: int) -> bool | None:
    """Report whether a process catches or blocks the signal; None if there is no such process.

    The init process of a PID namespace ignores signals for which it has no handler (pid_namespaces(7)).
    """
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return None
    masks = dict(line.split(":\t", 1) for line in lines if line.startswith(_HEARD))
    return any(int(mask, 16) >> (number - 1) & 1 for mask in masks.values())
