"""The table of `havre buildx`, for those whose scripts call buildx: the daemon is the one builder, `default`."""

from __future__ import annotations

from havre.cli.commands.builder import PRUNE_FLAGS
from havre.cli.commands.image import BUILD_FLAGS
from havre.cli.commands.shared import filter_flag, format_flag
from havre.cli.parser import Command
from havre.golang.flags import Flag

_BUILDER = Flag("builder", "", "string", "Builder to use; only default exists")

COMMANDS = (
    Command("build b", "[OPTIONS] PATH | URL | -", "Build an image from a Dockerfile", "build:build", (1, 1),
            BUILD_FLAGS),
    Command("du", "[OPTIONS]", "Show the disk usage of the build cache", "buildx:du", (0, 0), (
        _BUILDER,
        filter_flag("", "Show only what matches the condition (type, id, shared, inuse)"),
        format_flag(),
        Flag("verbose", "", "", "Show all fields of each record"),
    )),
    Command("inspect", "[OPTIONS] [NAME]", "Show a builder", "buildx:inspect", (0, 1), (
        Flag("bootstrap", "", "", "Wait for the builder to run; the daemon always does"),
        _BUILDER,
    )),
    Command("ls", "[OPTIONS]", "List builders", "buildx:ls", (0, 0), (
        format_flag(),
        Flag("no-trunc", "", "", "Do not truncate output"),
    )),
    Command("prune", "[OPTIONS]", "Remove build cache", "prune:builder", (0, 0), PRUNE_FLAGS),
    Command("use", "[OPTIONS] NAME", "Choose the builder; only default exists", "buildx:use", (1, 1), (
        Flag("default", "", "", "For the current context alone"),
        Flag("global", "", "", "For all contexts"),
    )),
    Command("version", "", "Show the version", "buildx:version"),
)  # fmt: skip
