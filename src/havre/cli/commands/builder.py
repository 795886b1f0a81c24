"""The table of `havre builder`."""

from __future__ import annotations

from havre.cli.commands.image import BUILD_FLAGS
from havre.cli.commands.shared import filter_flag, force_flag, plan_flags
from havre.cli.parser import Command
from havre.golang.flags import Flag

PRUNE_FLAGS = (
    Flag("builder", "", "string", "Builder whose cache is pruned; the only one is default"),
    Flag("all", "a", "", "Remove all unused build cache, not just dangling ones"),
    filter_flag("", 'Remove only what matches the condition (e.g. "until=24h")'),
    force_flag("Do not ask for confirmation"),
    Flag("keep-storage", "", "bytes", "Amount of disk space to keep for cache; older name of --reserved-space"),
    Flag("max-used-space", "", "bytes", "Amount of disk space that the cache may use at most"),
    Flag("min-free-space", "", "bytes", "Amount of disk space that shall be free afterwards"),
    Flag("reserved-space", "", "bytes", "Amount of disk space that is always kept for cache"),
    *plan_flags(),
)
COMMANDS = (
    Command(
        "build", "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile", "build:build", (1, 1), BUILD_FLAGS
    ),
    Command("prune", "[OPTIONS]", "Remove build cache", "prune:builder", (0, 0), PRUNE_FLAGS),
)
