"""The tree of commands: the group of each word, and the module of each group's table.

Only the table of the group in use is imported; the tree itself is a few short strings.
"""

from __future__ import annotations

from havre.cli.parser import Command, load, parse
from havre.golang.flags import Flag, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

# Management groups and what they manage; the table of each is havre.cli.commands.GROUP:COMMANDS.
GROUPS = {
    "builder": "Build, and manage the cache of builds",
    "buildx": "Build, in the words of docker's plugin",
    "checkpoint": "Manage checkpoints",
    "compose": "Define and run projects of several containers",
    "container": "Manage containers",
    "context": "Manage contexts",
    "image": "Manage images",
    "manifest": "Manage manifests and manifest lists",
    "network": "Manage networks",
    "registry": "Serve a registry",
    "system": "Manage the engine",
    "volume": "Manage volumes",
}

# Groups with flags of their own, before the command.
_FLAGGED = {"compose": "commands.compose:FLAGS"}

# Top-level words by the group whose table has them.
_TOP = {
    "container": "attach commit cp create diff exec export kill logs pause port ps rename restart rm run start stats "
    "stop top unpause update wait",
    "image": "build history images import load pull push rmi save tag",
    "system": "events info",
    "top": "__complete completion daemon inspect login logout search version",
}
TOP = {word: group for group, words in _TOP.items() for word in words.split()}

COMMON = ("run", "exec", "ps", "pull", "push", "images", "login", "logout", "search", "version", "info")


def commands(group: str) -> Sequence[Command]:
    """The table of a group (or of "top")."""
    table: Sequence[Command] = load(f"commands.{group}:COMMANDS")
    return table


def group_flags(group: str) -> Sequence[Flag]:
    """The flags between a group's name and the command."""
    flags: Sequence[Flag] = load(_FLAGGED[group]) if group in _FLAGGED else ()
    return flags


def group_options(words: list[str]) -> Options:
    """The values of the group's own flags on a command line. Raises UsageError."""
    flags = group_flags(words[0])
    return parse(flags, words[1:], stop=True)[0] if flags else Options(())


def find(words: list[str]) -> tuple[Command | None, str, list[str]]:
    """The command that `words` begin with, the path as typed (or the group's name), and the remaining words.

    The command is None where the words are only a group's name, or unknown (then the path is "").
    """
    first = words[0]
    if first in TOP:
        group = TOP[first]
        command = next(c for c in commands(group) if first == c.top)
        return command, first, words[1:]
    if first not in GROUPS:
        return None, "", words
    rest = words[1:]
    if first in _FLAGGED:
        options, behind = parse(group_flags(first), rest, stop=True)
        rest = rest if "help" in options.given else behind
    if rest and (found := next((c for c in commands(first) if rest[0] in c.names), None)):
        return found, f"{first} {rest[0]}", rest[1:]
    return None, first, rest


def aliases(group: str, command: Command) -> list[str]:
    """Every path that runs `command`."""
    paths = [f"{group} {name}" for name in command.names if group != "top"]
    return [*paths, command.top] if command.top else paths
