"""The table of `havre builder`."""

from __future__ import annotations

from havre.cli.commands.shared import filter_flag, force_flag, plan_flags
from havre.cli.parser import Command
from havre.golang.flags import Flag

COMMANDS = (
    Command("prune", "[OPTIONS]", "Remove build cache", "prune:builder", (0, 0), (
        Flag("builder", "", "string", "Builder whose cache is pruned; the only one is default"),
        Flag("all", "a", "", "Remove all unused build cache, not just dangling ones"),
        filter_flag("", 'Remove only what matches the condition (e.g. "until=24h")'),
        force_flag("Do not ask for confirmation"),
        Flag("keep-storage", "", "bytes", "Amount of disk space to keep for cache"),
        *plan_flags(),
    )),
)  # fmt: skip
