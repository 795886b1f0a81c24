"""The table of commands that stand at top level alone."""

from __future__ import annotations

from havre.cli.commands.shared import filter_flag, format_flag
from havre.cli.parser import Command
from havre.golang.flags import Flag

_DEFAULT_REGISTRY = "The default server is Docker Hub."

COMMANDS = (
    Command("completion", "bash|zsh|fish|man [DIRECTORY]", "Print a shell's completion script, or write the man pages",
            "complete:completion", (1, 2), top="completion"),
    Command("__complete", "", "Complete a command line", "complete:complete", (0, None), top="__complete", hidden=True,
            stop=True),
    Command("daemon", "[OPTIONS]", "Run the daemon", "system:daemon", (0, None), top="daemon", raw=True),
    Command("inspect", "[OPTIONS] NAME|ID [NAME|ID...]", "Return low-level information on objects of any type",
            "inspect:anything", (1, None), (
        format_flag("f", table=False),
        Flag("size", "s", "", "Show total file sizes of containers too"),
        Flag("type", "", "string", "Only look for objects of this type"),
    ), top="inspect"),
    Command("login", "[OPTIONS] [SERVER]", "Log in to a registry", "login:login", (0, 1), (
        Flag("password", "p", "string", "Password"),
        Flag("password-stdin", "", "", "Read the password from stdin"),
        Flag("username", "u", "string", "Username"),
    ), top="login", long="Log in to a registry.\n" + _DEFAULT_REGISTRY),
    Command("logout", "[SERVER]", "Log out from a registry", "login:logout", (0, 1), top="logout",
            long="Log out from a registry.\n" + _DEFAULT_REGISTRY),
    Command("search", "[OPTIONS] TERM", "Search Docker Hub for images", "images:search", (1, 1), (
        filter_flag(),
        Flag("format", "", "string", "Format output using a Go template"),
        Flag("limit", "", "int", "Maximum number of results"),
        Flag("no-trunc", "", "", "Do not truncate output"),
    ), top="search"),
    Command("version", "[OPTIONS]", "Show the versions of client and server", "info:version", (0, 0),
            (format_flag("f", table=False),), top="version"),
)  # fmt: skip
