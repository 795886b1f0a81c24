"""Help texts, in docker's layout: usage, description, aliases, options wrapped to the terminal's width."""

from __future__ import annotations

import posix

from havre.cli.tree import COMMON, GROUPS, TOP, aliases, commands, group_flags
from havre.golang.flaghelp import render_flags

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from havre.cli.parser import Command
    from havre.golang.flags import Flag

PROGRAM = "havre"


def usage_lines(path: str, command: Command) -> str:
    """`Usage:  havre PATH ...`, with further forms on separate lines."""
    first, *more = command.usage.split("\n")
    lines = [f"Usage:  {PROGRAM} {path} {first}".rstrip()]
    return "\n".join(lines + [f"\t{PROGRAM} {command.top or path} {line}" for line in more])


def command_help(group: str, path: str, command: Command) -> str:
    """The whole help of a command, called by `path`."""
    parts = [f"\n{usage_lines(path, command)}\n", command.long or command.summary]
    names = aliases(group, command)
    if len(names) > 1:
        parts.append("\nAliases:\n  " + ", ".join(f"{PROGRAM} {name}" for name in names))
    if any(not flag.hidden for flag in command.flags):
        parts.append("\nOptions:\n" + render_flags(command.flags, width()))
    return "\n".join(parts) + "\n"


def group_help(group: str) -> str:
    """The help of a management group."""
    rows = [(c.names[0], c.summary) for c in commands(group) if not c.hidden]
    flags = group_flags(group)
    options = f"Options:\n{render_flags(flags, width())}\n\n" if flags else ""
    words = f"{group} [OPTIONS]" if flags else group
    return (
        f"\nUsage:  {PROGRAM} {words} COMMAND\n\n{GROUPS[group]}\n\n{options}Commands:\n{_rows(rows)}\n\n"
        f"Run '{PROGRAM} {group} COMMAND --help' for more information on a command.\n"
    )


def top_help(flags: Sequence[Flag]) -> str:
    """The help of the program."""
    summaries = {c.top: c.summary for group in (*GROUPS, "top") for c in commands(group) if c.top and not c.hidden}
    others = sorted(name for name in TOP if name not in COMMON and name in summaries)
    return (
        f"\nUsage:  {PROGRAM} [OPTIONS] COMMAND\n\nA container engine that speaks Docker's language\n\n"
        f"Common Commands:\n{_rows([(name, summaries[name]) for name in COMMON])}\n\n"
        f"Management Commands:\n{_rows(sorted(GROUPS.items()))}\n\n"
        f"Commands:\n{_rows([(name, summaries[name]) for name in others])}\n\n"
        f"Global Options:\n{render_flags(flags, width())}\n\n"
        f"Run '{PROGRAM} COMMAND --help' for more information on a command.\n"
    )


def _rows(rows: Iterable[tuple[str, str]]) -> str:
    return "\n".join(f"  {name:<10}  {summary}" for name, summary in rows)


def width() -> int:
    """The terminal's width."""
    try:
        return posix.get_terminal_size(0).columns - 1
    except OSError:
        return 79
