"""The table of `havre builder`."""

from __future__ import annotations

from havre.cli.commands.shared import filter_flag, force_flag, plan_flags
from havre.cli.parser import Command
from havre.golang.flags import Flag

COMMANDS = (
    Command("prune", "[OPTIONS]", "Remove the cache of builds", "prune:builder", (0, 0), (
        Flag("builder", "", "string", "Builder whose cache goes; there is one, default"),
        Flag("all", "a", "", "Remove all of it, not only what no image uses"),
        filter_flag("", 'Keep only what meets the condition (e.g. "until=24h")'),
        force_flag("Do not ask for confirmation"),
        Flag("keep-storage", "", "bytes", "Amount of it to keep"),
        *plan_flags(),
    )),
)  # fmt: skip
