"""Flags that several tables share."""

from __future__ import annotations

from havre.golang.flags import Flag

_TEMPLATE_HELP = (
    "'TEMPLATE':         Print output using the given Go template.\n"
    "Refer to https://docs.docker.com/go/formatting/ for how to write\ntemplates"
)


def format_flag(short: str = "", *, table: bool = True) -> Flag:
    """`--format`, for a listing (with tables) or for inspection (without)."""
    tables = (
        "'table':            Print output in table format with column headers (default)\n"
        "'table TEMPLATE':   Print output in table format using the given Go template\n"
    )
    head = "Format output using a custom template:\n"
    return Flag("format", short, "string", head + (tables if table else "") +
                "'json':             Print in JSON format\n" + _TEMPLATE_HELP)  # fmt: skip


def filter_flag(short: str = "f", help: str = "Show only what matches the condition") -> Flag:
    """`--filter`."""
    return Flag("filter", short, "filter", help)


def force_flag(help: str) -> Flag:
    """`-f, --force`."""
    return Flag("force", "f", "", help)


def plan_flags() -> tuple[Flag, ...]:
    """`--dry-run` and `--plan` of everything that prunes."""
    return (
        Flag("dry-run", "", "", "Show what would be removed, the reasons and the plan's ID; remove nothing"),
        Flag("plan", "", "string", "Remove exactly what --dry-run showed under this ID"),
    )
