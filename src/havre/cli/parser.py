"""Commands as values, and the parsing of their flags' values; `golang.flags` has the flags' grammar."""

from __future__ import annotations

from havre.errors import HavreError
from havre.golang import flags as pflag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from havre.golang.flags import Flag, Options

_CHECKED = frozenset(("bytes", "swap", "decimal", "duration", "mount", "ulimit", "network", "gpu-request"))


class StatusError(HavreError):
    """Exits with `code`; `hint` is the path of the command whose help is suggested."""

    def __init__(self, code: int, message: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.code = code


class Command:
    """A command of the tree.

    names       its name inside the group and that name's aliases; `top` is its name at top level, "" for none
    usage       the usage line after the path (several lines for several forms)
    run         "module:function" under havre.cli, imported when the command runs
    arguments   minimum and maximum number of arguments (None: unlimited)
    flags       the flags, or "module:NAME" of a separate module for long tables
    stop        flags end at the first argument
    raw         no parsing: every word, --help included, is an argument
    """

    __slots__ = ("_flags", "arguments", "hidden", "long", "names", "raw", "run", "stop", "summary", "top", "usage")

    def __init__(
        self,
        names: str,
        usage: str,
        summary: str,
        run: str,
        arguments: tuple[int, int | None] = (0, 0),
        flags: Sequence[Flag] | str = (),
        *,
        top: str = "",
        long: str = "",
        stop: bool = False,
        raw: bool = False,
        hidden: bool = False,
    ) -> None:
        self.raw = raw
        self.names = names.split()
        self.usage = usage
        self.summary = summary
        self.run = run
        self.arguments = arguments
        self._flags = flags
        self.top = top
        self.long = long
        self.stop = stop
        self.hidden = hidden

    @property
    def flags(self) -> Sequence[Flag]:
        """The flags in the order of the table."""
        if isinstance(self._flags, str):
            loaded: Sequence[Flag] = load(self._flags)
            self._flags = loaded
        return self._flags

    def function(self) -> Callable[..., int]:
        """The function that runs it: `(cli, options, arguments) -> exit code`."""
        function: Callable[..., int] = load(self.run)
        return function


def load(reference: str) -> Any:
    """The object that "module:name" names, module relative to havre.cli."""
    module, _, name = reference.partition(":")
    return getattr(__import__(f"havre.cli.{module}", fromlist=[name]), name)


def parse(flags: Sequence[Flag], argv: list[str], *, stop: bool) -> tuple[Options, list[str]]:
    """Options and arguments of a command line. Raises UsageError."""
    return pflag.parse(flags, argv, stop=stop, read=convert)


def convert(flag: Flag, text: str) -> Any:
    """The value of a flag's text. Raises ValueError with the reason in Go's words."""
    if flag.kind == "filter":
        if "=" not in text:
            raise ValueError("bad format of filter (expected name=value)")
        name, _, value = text.partition("=")
        return name.strip().lower(), value.strip()
    if flag.kind in _CHECKED:
        return load(f"values:read_{flag.kind.replace('-', '_')}")(text)
    return load(f"values:{flag.check}")(text) if flag.check else pflag.convert(flag, text)
