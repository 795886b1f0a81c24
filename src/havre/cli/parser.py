"""Commands and flags as values, and the grammar of GNU-style flags as pflag (and so docker) reads them.

    -it   -p80:80   -p 80:80   -p=80:80   --rm   --rm=false   --name x   --name=x   --   -h, --help

A switch takes a value only by `=`. Reading stops at the first argument where the command says so (`run IMAGE -x`).
One table of `Flag`s yields parsing, help, completion and the man pages.
"""

from __future__ import annotations

from havre.errors import HavreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

# What `--help` shows as the default of a kind, and the value when the flag is not given; lists start empty.
_LISTS = frozenset(("list", "strings", "map", "filter", "mount", "ulimit", "network", "gpu-request", "stringToString"))
_CHECKED = frozenset(("bytes", "swap", "decimal", "duration", "mount", "ulimit", "network", "gpu-request"))
_KIND_SHOWN = {"bool?": "", "swap": "bytes"}
_NUMBERS = frozenset(("int", "uint", "uint16"))
_SHOWN = {"map": "map[]", "ulimit": "[]", "uint16": "0", "duration": "0s", "stringToString": "[]"}


class UsageError(HavreError):
    """A flag that cannot be read; `command` is the path whose help should be seen."""

    exit_code = 125

    def __init__(self, message: str, command: str = "") -> None:
        super().__init__(message)
        self.command = command


class StatusError(HavreError):
    """Ends the program with `code`; `hint` is the path of the command whose help should be seen."""

    def __init__(self, code: int, message: str = "", hint: str | None = None) -> None:
        super().__init__(message, hint)
        self.code = code


class Flag:
    """A flag.

    kind    the type that its help names; "" is a switch, "bool?" a switch that may also be left unsaid
    shown   what help prints as default, where that is not `default` itself
    check   function of `values` that refuses or completes each text of a list
    """

    __slots__ = ("check", "default", "help", "hidden", "kind", "long", "short", "shown")

    def __init__(
        self,
        long: str,
        short: str,
        kind: str,
        help: str,
        default: Any = None,
        shown: str | None = None,
        hidden: bool = False,
        check: str = "",
    ) -> None:
        self.check = check
        self.long = long
        self.short = short
        self.kind = kind
        self.help = help
        self.default = default
        self.shown = shown
        self.hidden = hidden

    @property
    def name(self) -> str:
        """The attribute under which `Options` holds its value."""
        return self.long.replace("-", "_")

    @property
    def many(self) -> bool:
        """Whether repeating the flag adds to a list."""
        return self.kind in _LISTS

    @property
    def shown_kind(self) -> str:
        """The kind as help prints it."""
        return _KIND_SHOWN.get(self.kind, self.kind)

    def initial(self) -> Any:
        """The value when the flag is not given."""
        if self.many:
            return []
        if self.default is not None or self.kind == "bool?":
            return self.default
        if not self.kind:
            return False
        return "" if self.kind == "string" else 0

    def shown_default(self) -> str:
        """What help prints in `(default ...)`, "" for nothing."""
        if self.shown is not None:
            return self.shown
        if self.default is None or self.default is False:
            return _SHOWN.get(self.kind, "")
        if self.default is True:
            return "true"
        return f'"{self.default}"' if self.kind == "string" else str(self.default)


class Command:
    """A command of the tree.

    names       its name inside the group and that name's aliases; `top` is its name at top level, "" for none
    usage       what follows the path in the usage line (several lines for several forms)
    run         "module:function" under havre.cli, imported when the command runs
    arguments   least and most number of arguments (None: no bound)
    flags       the flags, or "module:NAME" where they are many and live in a module of their own
    stop        flags end at the first argument
    raw         nothing is read: every word, --help too, is an argument
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


class Options:
    """Values of flags as attributes (dashes become underscores); `given` holds the names that the user gave."""

    def __init__(self, flags: Sequence[Flag]) -> None:
        self.given: set[str] = set()
        for flag in flags:
            setattr(self, flag.name, flag.initial())

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def parse(flags: Sequence[Flag], argv: list[str], *, stop: bool) -> tuple[Options, list[str]]:
    """Options and arguments of a command line; "help" is in `given` for -h and --help.

    Raises UsageError in pflag's words.
    """
    options = Options(flags)
    arguments: list[str] = []
    index = 0
    while index < len(argv):
        word = argv[index]
        index += 1
        if word == "--":
            return options, arguments + argv[index:]
        if word.startswith("--"):
            index = _long(flags, options, word, argv, index)
        elif word.startswith("-") and word != "-":
            index = _shorts(flags, options, word, argv, index)
        else:
            arguments.append(word)
            if stop:
                return options, arguments + argv[index:]
        if "help" in options.given:
            break
    return options, arguments


def nearest(word: str, words: Iterable[str]) -> str:
    """` (did you mean X?)` for the closest of `words`, or nothing."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(words), 1, 0.7)
    return f" (did you mean {close[0]}?)" if close else ""


def _long(flags: Sequence[Flag], options: Options, word: str, argv: list[str], index: int) -> int:
    name, equals, value = word[2:].partition("=")
    flag = next((f for f in flags if f.long == name), None)
    if flag is None:
        if name == "help":
            options.given.add("help")
            return index
        close = nearest(f"--{name}", [f"--{flag.long}" for flag in flags])
        raise UsageError(f"unknown flag: --{name}{close}" if name else f"bad flag syntax: {word}")
    if equals:
        _set(options, flag, value)
    elif flag.kind in ("", "bool?"):
        _set(options, flag, "true")
    elif index < len(argv):
        _set(options, flag, argv[index])
        return index + 1
    else:
        raise UsageError(f"flag needs an argument: --{name}")
    return index


def _shorts(flags: Sequence[Flag], options: Options, word: str, argv: list[str], index: int) -> int:
    rest = word[1:]
    while rest:
        letter, rest = rest[0], rest[1:]
        flag = next((f for f in flags if f.short == letter), None)
        if flag is None:
            if letter == "h":
                options.given |= {"help", "h"}
                return index
            raise UsageError(f"unknown shorthand flag: '{letter}' in {word}")
        if rest.startswith("=") and (len(rest) > 1 or flag.kind not in ("", "bool?")):
            _set(options, flag, rest[1:])
            return index
        if flag.kind in ("", "bool?"):
            _set(options, flag, "true")
        elif rest:
            _set(options, flag, rest)
            return index
        elif index < len(argv):
            _set(options, flag, argv[index])
            return index + 1
        else:
            raise UsageError(f"flag needs an argument: '{letter}' in {word}")
    return index


def _set(options: Options, flag: Flag, text: str) -> None:
    options.given.add(flag.name)
    try:
        value = convert(flag, text)
    except ValueError as error:
        shown = f"-{flag.short}, --{flag.long}" if flag.short else f"--{flag.long}"
        raise UsageError(f'invalid argument "{text}" for "{shown}" flag: {error}') from None
    if flag.many:
        getattr(options, flag.name).extend(value if flag.kind == "strings" else [value])
    else:
        setattr(options, flag.name, value)


def convert(flag: Flag, text: str) -> Any:
    """The value of a flag's text. Raises ValueError with the reason in Go's words."""
    kind = flag.kind
    if kind in ("", "bool?"):
        return parse_bool(text)
    if kind in _NUMBERS:
        return _parse_int(text, unsigned=kind != "int")
    if kind == "strings":
        return text.split(",") if text else []
    if kind == "filter":
        if "=" not in text:
            raise ValueError("bad format of filter (expected name=value)")
        name, _, value = text.partition("=")
        return name.strip().lower(), value.strip()
    if kind in _CHECKED:
        return load(f"values:read_{kind.replace('-', '_')}")(text)
    return load(f"values:{flag.check}")(text) if flag.check else text


def parse_bool(text: str) -> bool:
    """Go's strconv.ParseBool."""
    if text in ("1", "t", "T", "TRUE", "true", "True"):
        return True
    if text in ("0", "f", "F", "FALSE", "false", "False"):
        return False
    raise ValueError(f'strconv.ParseBool: parsing "{text}": invalid syntax')


def _parse_int(text: str, *, unsigned: bool) -> int:
    name = "ParseUint" if unsigned else "ParseInt"
    digits = text.lstrip("+-") if not unsigned else text
    try:
        if not digits or digits != text.lstrip("+-") or text.startswith(("++", "--")) or " " in text:
            raise ValueError
        value = int(text, 0) if digits[:1] != "0" or len(digits) < 2 or not digits.isdigit() else int(text, 8)
    except ValueError:
        raise ValueError(f'strconv.{name}: parsing "{text}": invalid syntax') from None
    if not -(1 << 63) <= value < 1 << 63:
        raise ValueError(f'strconv.{name}: parsing "{text}": value out of range')
    return value
