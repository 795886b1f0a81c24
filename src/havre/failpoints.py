"""Named steps at which a test can make the program die or fail. Without `HAVRE_FAILPOINTS` they do nothing.

    HAVRE_FAILPOINTS="migration.copied=kill"                SIGKILL at the first passage, like `kill -9`
    HAVRE_FAILPOINTS="database.commit=kill@3"               at the third passage
    HAVRE_FAILPOINTS="database.begin=error"                 OSError (EIO) at every passage; error@2: only at the second
    HAVRE_FAILPOINTS="a.step=error;another.step=kill"       several

`POINTS` lists all steps, in the order in which an operation passes them. An unknown name in the variable ends the
program at its start: a test that waits for it would prove nothing.
"""

from __future__ import annotations

import errno
import os
import signal
from collections import Counter
from dataclasses import dataclass

POINTS = {
    "database.begin": "a batch of rows is about to be written",
    "database.commit": "its rows are written, its transaction is open",
    "database.committed": "it is on disk, nobody has been told",
    "migration.copying": "the old database is copied, under a temporary name",
    "migration.copied": "the copy has its name, nothing is changed",
    "migration.step": "the rows of one step are changed, the transaction is open",
    "migration.commit": "all steps are done, the transaction is open",
    "migration.committed": "the new database is on disk, nothing has been read from it",
    "layer.sealed": "a layer's files are complete and on disk, under a temporary name",
    "layer.renamed": "they have their name, the row is missing",
    "layer.recorded": "the row is written, nobody has been told",
    "layer.unrecorded": "the row of a layer that is removed is gone, its files are there",
    "layer.aside": "its files have a temporary name",
    "snapshot.half-made": "a snapshot's directory is filled, under a temporary name",
    "snapshot.made": "it has its name, the row is missing",
    "snapshot.recorded": "the row is written",
    "snapshot.layers-mounted": "its layers are mounted, its root file system is not",
    "snapshot.unmounted": "its root file system is unmounted, its layers are not",
    "snapshot.aside": "it is removed: its directory has a temporary name",
    "snapshot.gone": "its directory is gone, the row is there",
    "volume.made": "a volume's directory is made, the row is missing",
    "volume.copied": "the image's files for it are complete, under a temporary name",
    "volume.marked": "it is renamed: the directory is marked with the new name",
    "volume.renamed": "the directory has the new name, the row the old one",
    "volume.aside": "it is removed: its directory has a temporary name",
    "network.bridge": "a network's bridge is up, without rules",
    "network.made": "it has its rules, the row is missing",
    "network.recorded": "the row is written, nobody has been told",
    "network.unruled": "it is removed: its rules are gone",
    "network.dropped": "its bridge is gone, the row is there",
    "sandbox.held": "addresses and ports of a container that starts are held by sockets",
    "sandbox.made": "its network namespace and devices are there",
    "sandbox.published": "its ports lead to it",
    "sandbox.retracted": "it has ended: its ports lead nowhere, its devices are there",
    "sandbox.closed": "all that it held is given back",
    "endpoint.attached": "a running container has its device on one more network, and no name there",
    "endpoint.ports-moved": "it leaves a network: its ports lead to another endpoint",
    "endpoint.detached": "its device is gone",
    "removal.marked": "a container that is removed is marked as going",
    "removal.taken-down": "nothing of it is mounted, or known to the kernel",
    "removal.freed": "its files are gone, the row is there",
    "removal.forgotten": "the row is gone, nobody has been told",
}

_VARIABLE = "HAVRE_FAILPOINTS"


@dataclass(frozen=True)
class _Trap:
    """What happens at a point, kill or error: at the `nth` passage, 0: at each."""

    action: str
    nth: int = 0


def parse_failpoints(text: str) -> dict[str, _Trap]:
    """The traps by point; ValueError for a name or an action that does not exist."""
    traps = {}
    for item in filter(None, text.split(";")):
        name, _, words = item.partition("=")
        action, _, nth = words.partition("@")
        if name not in POINTS or action not in ("kill", "error"):
            raise ValueError(f"{_VARIABLE}: no failpoint is {item!r}; see havre/failpoints.py")
        traps[name] = _Trap(action, int(nth or 0))
    return traps


_traps = parse_failpoints(os.environ.get(_VARIABLE, ""))
_passages: Counter[str] = Counter()


def arm(text: str) -> None:
    """Set other traps, from now on: for a test's process that passes the points before it comes to its subject."""
    _traps.clear()
    _traps.update(parse_failpoints(text))
    _passages.clear()


def failpoint(name: str) -> None:
    """Mark the step `name`. `OSError` if a test wants it so."""
    if _traps:
        _pass(name)


def _pass(name: str) -> None:
    if (trap := _traps.get(name)) is None:
        return
    _passages[name] += 1
    if trap.nth not in (0, _passages[name]):
        return
    if trap.action == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    raise OSError(errno.EIO, f"failpoint {name}")
