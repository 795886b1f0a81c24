"""The table of `havre checkpoint`."""

from __future__ import annotations

from havre.cli.parser import Command
from havre.golang.flags import Flag

_DIRECTORY = Flag("checkpoint-dir", "", "string", "Use another directory than the container's own for checkpoints")

COMMANDS = (
    Command("create", "[OPTIONS] CONTAINER CHECKPOINT", "Create a checkpoint from a running container",
            "checkpoints:create", (2, 2), (
        _DIRECTORY,
        Flag("leave-running", "", "", "Leave the container running after the checkpoint"),
    )),
    Command("ls list", "[OPTIONS] CONTAINER", "List the checkpoints of a container", "checkpoints:ls", (1, 1),
            (_DIRECTORY,)),
    Command("rm remove", "[OPTIONS] CONTAINER CHECKPOINT", "Remove a checkpoint", "checkpoints:rm", (2, 2),
            (_DIRECTORY,)),
)  # fmt: skip
