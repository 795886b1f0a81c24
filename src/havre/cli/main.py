"""The entry point: parses global options, finds and runs the command, and maps errors to exit codes.

The launcher starts the interpreter with `-I -S`, puts the source tree first on `sys.path`, sets `SITE` to the directory
of third-party packages and calls `main()`. Only what the command needs is imported on this path.

    0 success    1 refused or failed    125 invalid flags, or `run` failed before the container started
    126, 127 the container's command cannot be run, does not exist    130 interrupted    else the container's own

Why: docs/decisions/070.
"""

from __future__ import annotations

import posix
import sys

from havre.cli.parser import StatusError, parse
from havre.cli.tree import GROUPS, TOP, commands, find, group_options
from havre.errors import HavreError
from havre.golang.flags import Flag, Options, UsageError, nearest
from havre.visible import Guarded

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from havre.cli.parser import Command

SITE = ""
"""The directory of third-party packages, added to `sys.path` by `use_site()`; set by the launcher."""


def use_site() -> None:
    """Make third-party packages importable; called just before the first import of one."""
    if SITE and SITE not in sys.path:
        sys.path.append(SITE)


def global_flags() -> tuple[Flag, ...]:
    """The flags before the command."""
    return (
        Flag("config", "", "string", "Directory of the client's config files", shown='"$HOME/.docker"'),
        Flag("context", "c", "string", "Name of the context that selects the daemon (overrides "
             'DOCKER_HOST and the context set by "havre context use")'),
        Flag("debug", "D", "", "Show debugging output"),
        Flag("host", "H", "list", "Socket of the daemon to connect to"),
        Flag("log-level", "l", "string", 'Level of logging ("debug", "info", "warn", "error", "fatal")', "info"),
        Flag("tls", "", "", "Use TLS; --tlsverify implies it"),
        Flag("tlscacert", "", "string", "Trust only certificates that this CA signed", shown='"$HOME/.docker/ca.pem"'),
        Flag("tlscert", "", "string", "Path of the client's TLS certificate", shown='"$HOME/.docker/cert.pem"'),
        Flag("tlskey", "", "string", "Path of the client's TLS key", shown='"$HOME/.docker/key.pem"'),
        Flag("tlsverify", "", "", "Use TLS and verify the daemon"),
        Flag("version", "v", "", "Print the version and quit"),
    )  # fmt: skip


def main() -> NoReturn:
    """Run the command line of this process and exit."""
    sys.stdout.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    sys.stderr.reconfigure(encoding="utf-8", errors="surrogateescape")  # type: ignore[union-attr]
    sys.stderr = Guarded(sys.stderr)
    if sys.stdout.isatty():
        sys.stdout = Guarded(sys.stdout)
    try:
        code = _run(sys.argv[1:])
        sys.stdout.flush()
    except KeyboardInterrupt:
        code = 130
    except BrokenPipeError:  # `havre ... | head`: the reader has closed the pipe
        posix._exit(141)
    sys.stderr.flush()
    posix._exit(code)  # skips the interpreter's teardown, which costs a millisecond


def _run(argv: list[str]) -> int:
    command_path = ""
    try:
        options, words = parse(global_flags(), argv, stop=True)
        if "version" in options.given:
            from havre import __version__

            print(f"havre version {__version__}")
            return 0
        if "help" in options.given or not words:
            return _print_top_help(words)
        command_path = words[0] if words[0] in GROUPS else ""
        command, command_path, rest = find(words)
        if words[0] == "help":
            return _help_for(words[1:])
        if command is None:
            return _no_command(words, command_path, rest)
        return _run_command(options, command, words, command_path, rest)
    except StatusError as error:
        _print_status(error)
        return error.code
    except UsageError as error:
        print(f"{error}\nSee '{' '.join(['havre', *command_path.split()])} --help'.", file=sys.stderr)
        if not command_path:
            from havre.cli.help import top_help

            print(top_help(global_flags()), file=sys.stderr)
        return error.exit_code
    except HavreError as error:
        sys.stdout.flush()
        print(error, file=sys.stderr)
        return error.exit_code


def _print_status(error: StatusError) -> None:
    sys.stdout.flush()
    if error.message:
        sys.stderr.write(error.message)  # its message may be Drawn
        sys.stderr.write("\n")
    if error.hint:
        print(f"See 'havre {error.hint} --help'.", file=sys.stderr)


def _run_command(options: Options, command: Command, line: list[str], path: str, words: list[str]) -> int:
    from havre.cli.session import Session

    flags, arguments = (Options(()), words) if command.raw else parse(command.flags, words, stop=command.stop)
    if "help" in flags.given:
        if "h" in flags.given:
            print("Flag shorthand -h has been deprecated, please use --help", file=sys.stderr)
        return _print_command_help(line[0], path, command)
    _check_count(command, path, len(arguments))
    session = Session(options, path, group_options(line))
    return command.function()(session, flags, arguments)


def _check_count(command: Command, path: str, count: int) -> None:
    least, most = command.arguments
    if count >= least and (most is None or count <= most):
        return
    plural = "argument" if (most if most is not None and count > most else least) == 1 else "arguments"
    if most == 0:
        demand = "accepts no arguments."
    elif least == most:
        demand = f"requires exactly {least} {plural}."
    elif most is None:
        demand = f"requires at least {least} {plural}."
    elif least == 0:
        demand = f"requires at most {most} {plural}."
    else:
        demand = f"requires at least {least} and at most {most} arguments."
    from havre.cli.help import usage_lines

    text = f"\"havre {path}\" {demand}\nSee 'havre {path} --help'.\n\n{usage_lines(path, command)}\n\n{command.summary}"
    raise StatusError(1, text)


def _no_command(words: list[str], group: str, rest: list[str]) -> int:
    if not group:
        from havre.cli.pointers import pointer

        if instead := pointer(words[0]):
            raise StatusError(1, f"havre: '{words[0]}' is not a havre command: {instead}.\nSee 'havre --help'")
        close = nearest(words[0], (*GROUPS, *TOP))
        raise StatusError(1, f"havre: '{words[0]}' is not a havre command{close}.\nSee 'havre --help'")
    from havre.cli.help import group_help

    asks_help = any(word in ("-h", "--help") for word in rest)
    flag = next((word for word in rest if word.startswith("-")), None)
    if flag and not asks_help:
        raise UsageError(f"unknown flag: {flag}" if flag.startswith("--") else
                         f"unknown shorthand flag: '{flag[1]}' in {flag}")  # fmt: skip
    failed = bool(rest) and not asks_help
    print(group_help(group), end="", file=sys.stderr if failed else sys.stdout)
    if failed:
        close = nearest(rest[0], [name for command in commands(group) for name in command.names])
        print(f"\nhavre: '{group} {rest[0]}' is not a havre command{close}.", file=sys.stderr)
    return 1 if failed else 0


def _print_top_help(words: list[str]) -> int:
    from havre.cli.help import top_help

    print(top_help(global_flags()))
    return 0


def _print_command_help(group: str, path: str, command: Command) -> int:
    from havre.cli.help import command_help
    from havre.cli.tree import TOP

    print(command_help(TOP.get(group, group), path, command), end="")
    return 0


def _help_for(words: list[str]) -> int:
    if not words:
        return _print_top_help(words)
    command, path, rest = find(words)
    if command is None:
        return _no_command(words, path, [*rest, "--help"])
    return _print_command_help(words[0], path, command)
