"""TCP connections of a network namespace, read from /proc/PID/net/tcp and tcp6.

Source: proc_net_tcp(5), Linux's net/tcp_states.h.
"""

from __future__ import annotations

import errno
from pathlib import Path

_LISTEN = "0A"
_OPEN = frozenset(("01", "03", "04", "08", "09"))
"""ESTABLISHED, SYN_RECV, FIN_WAIT1, CLOSE_WAIT, LAST_ACK: states in which one side may still send."""
_LOOPBACK = ("0100007F", "00000000000000000000000001000000", "0000000000000000FFFF00000100007F")


def count_served(pid: int) -> int:
    """Count the non-loopback connections to listening ports in the network namespace of process `pid`; 0 when it has
    ended."""
    try:
        return served([Path(f"/proc/{pid}/net/{name}").read_text() for name in ("tcp", "tcp6")])
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESRCH, errno.EINVAL):  # EINVAL: a zombie has no network namespace
            raise
        return 0


def served(tables: list[str]) -> int:
    """As `count_served`, from the texts of both tables: a heading line, then `sl local:port remote:port state ...`."""
    rows = [line.split()[1:4] for table in tables for line in table.splitlines()[1:]]
    listening = {local.rpartition(":")[2] for local, _, state in rows if state == _LISTEN}
    return sum(
        state in _OPEN and local.rpartition(":")[2] in listening and local.rpartition(":")[0] not in _LOOPBACK
        for local, _, state in rows
    )
