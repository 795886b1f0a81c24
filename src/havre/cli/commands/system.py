"""The table of `havre system` and its top-level forms."""

from __future__ import annotations

from havre.cli.commands.shared import filter_flag, force_flag, format_flag, plan_flags
from havre.cli.parser import Command
from havre.golang.flags import Flag

COMMANDS = (
    Command("check", "[OPTIONS]", "Check stored images, and repair them", "disk:check", (0, 0), (
        Flag("repair", "", "", "Repair defects: fetch again, rebuild, or remove unusable data"),
    ), long="Check what is stored of images, and mend it.\n"
            "Reads every layer completely; the exit code is 1 if any defect is left."),
    Command("df", "[OPTIONS]", "Show disk usage", "disk:df", (0, 0),
            (format_flag(), Flag("verbose", "v", "", "Show what uses the space"))),
    Command("dial-stdio", "", "Proxy standard input and output to the daemon's socket", "system:dial_stdio",
            hidden=True),
    Command("events", "[OPTIONS]", "Get real time events from the server", "system:events", (0, 0), (
        filter_flag(),
        format_flag(table=False),
        Flag("since", "", "string", "Show events since a time"),
        Flag("until", "", "string", "Show events until a time, then end"),
    ), top="events"),
    Command("info", "[OPTIONS]", "Display system-wide information", "info:info", (0, 0),
            (format_flag("f", table=False),), top="info"),
    Command("prune", "[OPTIONS]", "Remove unused data", "prune:system", (0, 0), (
        Flag("all", "a", "", "Remove all unused images, not only dangling ones"),
        filter_flag("", 'Remove only what matches the condition (e.g. "label=<key>=<value>")'),
        force_flag("Do not ask for confirmation"),
        *plan_flags(),
        Flag("volumes", "", "", "Remove anonymous volumes too"),
    )),
)  # fmt: skip
