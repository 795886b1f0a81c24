"""Checkpoints of containers: create, ls, rm. `start --checkpoint` is in `attach`."""

from __future__ import annotations

import sys

from havre.cli.format.table import Listing

TYPE_CHECKING = False
if TYPE_CHECKING:
    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.golang.flags import Options


def create(session: Session, options: Options, arguments: list[str]) -> int:
    """Create one and print its name."""
    container, name = arguments
    body = {"CheckpointID": name, "CheckpointDir": options.checkpoint_dir, "Exit": not options.leave_running}
    session.client.post(f"/containers/{container}/checkpoints", body=body)
    print(name)
    return 0


def ls(session: Session, options: Options, arguments: list[str]) -> int:
    """List those of a container."""
    query = {"dir": options.checkpoint_dir} if options.checkpoint_dir else {}
    found = session.client.get(f"/containers/{arguments[0]}/checkpoints", query) or []
    fields: Fields = {"Name": ("CHECKPOINT NAME", lambda checkpoint: checkpoint["Name"])}
    sys.stdout.write(Listing("*checkpoint.checkpointContext", fields, ["Name"]).render(found, ""))
    return 0


def rm(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove one."""
    container, name = arguments
    query = {"dir": options.checkpoint_dir} if options.checkpoint_dir else {}
    session.client.delete(f"/containers/{container}/checkpoints/{name}", query)
    return 0
