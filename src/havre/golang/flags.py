"""Flags as values, and the grammar of GNU-style flags as pflag (and so docker and dockerd) parses them.

    -it   -p80:80   -p 80:80   -p=80:80   --rm   --rm=false   --name x   --name=x   --   -h, --help

A switch takes a value only after `=`. Parsing stops at the first argument if the caller asks for it (`run IMAGE -x`).
One table of `Flag`s serves parsing, help, completion and the man pages, for the command line and for the daemon.

Source: github.com/spf13/pflag, README; error messages are those of pflag and strconv.
"""

from __future__ import annotations

from havre.errors import HavreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence
    from typing import Any

    Read = Callable[["Flag", str], Any]

# By kind: the default that `--help` shows, and the value if the flag is not given; lists start empty.
_LISTS = frozenset(
    ("list", "strings", "map", "maps", "filter", "mount", "ulimit", "network", "gpu-request", "stringToString")
)
_KIND_SHOWN = {"bool?": "", "swap": "bytes", "maps": "map"}
_NUMBERS = frozenset(("int", "uint", "uint16"))
_SHOWN = {"map": "map[]", "maps": "map[]", "ulimit": "[]", "uint16": "0", "duration": "0s", "stringToString": "[]"}


class UsageError(HavreError):
    """A command line that cannot be parsed."""

    exit_code = 125


class Flag:
    """A flag.

    kind    the type that help shows; "" is a switch, "bool?" a switch with a third state, not given (None)
    shown   the default that help shows, if it is not `default`
    check   called by the reader of the values with each item of a list
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
        """The attribute of `Options` that holds its value."""
        return self.long.replace("-", "_")

    @property
    def many(self) -> bool:
        """Report whether repeating the flag appends to a list."""
        return self.kind in _LISTS

    @property
    def shown_kind(self) -> str:
        """The kind as help shows it."""
        return _KIND_SHOWN.get(self.kind, self.kind)

    def initial(self) -> Any:
        """The value if the flag is not given."""
        if self.many:
            return []
        if self.default is not None or self.kind == "bool?":
            return self.default
        if not self.kind:
            return False
        return "" if self.kind == "string" else 0

    def shown_default(self) -> str:
        """The default that help shows in `(default ...)`; "" for none."""
        if self.shown is not None:
            return self.shown
        if self.default is None or self.default is False:
            return _SHOWN.get(self.kind, "")
        if self.default is True:
            return "true"
        return f'"{self.default}"' if self.kind == "string" else str(self.default)


class Options:
    """Values of flags as attributes (dashes become underscores); `given` has the names of those on the command line."""

    def __init__(self, flags: Sequence[Flag]) -> None:
        self.given: set[str] = set()
        for flag in flags:
            setattr(self, flag.name, flag.initial())

    if TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any: ...


def convert(flag: Flag, text: str) -> Any:
    """The value of `text` for a flag of a kind that pflag has. Raises ValueError with Go's message."""
    if flag.kind in ("", "bool?"):
        from havre.golang.units import parse_bool  # imported late: few command lines need it

        return parse_bool(text)
    if flag.kind in _NUMBERS:
        return _parse_int(text, unsigned=flag.kind != "int")
    if flag.kind == "strings":
        return text.split(",") if text else []
    return text


def parse(flags: Sequence[Flag], argv: list[str], *, stop: bool, read: Read | None = None) -> tuple[Options, list[str]]:
    """Options and arguments of a command line; "help" is in `given` for -h and --help.

    `read` converts a flag's text to its value, or raises ValueError (default: `convert`). With `stop`, parsing ends at
    the first argument. Raises `UsageError` with pflag's message.
    """
    options = Options(flags)
    read = read or convert
    arguments: list[str] = []
    index = 0
    while index < len(argv):
        word = argv[index]
        index += 1
        if word == "--":
            return options, arguments + argv[index:]
        if word.startswith("--"):
            index = _long(flags, options, word, argv, index, read)
        elif word.startswith("-") and word != "-":
            index = _shorts(flags, options, word, argv, index, read)
        else:
            arguments.append(word)
            if stop:
                return options, arguments + argv[index:]
        if "help" in options.given:
            break
    return options, arguments


def nearest(word: str, words: Iterable[str]) -> str:
    """` (did you mean X?)` for the closest of `words`, or ""."""
    from difflib import get_close_matches

    close = get_close_matches(word, list(words), 1, 0.7)
    return f" (did you mean {close[0]}?)" if close else ""


def _long(flags: Sequence[Flag], options: Options, word: str, argv: list[str], index: int, read: Read) -> int:
    name, equals, value = word[2:].partition("=")
    flag = next((f for f in flags if f.long == name), None)
    if flag is None:
        if name == "help":
            options.given.add("help")
            return index
        close = nearest(f"--{name}", [f"--{flag.long}" for flag in flags])
        raise UsageError(f"unknown flag: --{name}{close}" if name else f"bad flag syntax: {word}")
    if equals:
        _set(options, flag, value, read)
    elif flag.kind in ("", "bool?"):
        _set(options, flag, "true", read)
    elif index < len(argv):
        _set(options, flag, argv[index], read)
        return index + 1
    else:
        raise UsageError(f"flag needs an argument: --{name}")
    return index


def _shorts(flags: Sequence[Flag], options: Options, word: str, argv: list[str], index: int, read: Read) -> int:
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
            _set(options, flag, rest[1:], read)
            return index
        if flag.kind in ("", "bool?"):
            _set(options, flag, "true", read)
        elif rest:
            _set(options, flag, rest, read)
            return index
        elif index < len(argv):
            _set(options, flag, argv[index], read)
            return index + 1
        else:
            raise UsageError(f"flag needs an argument: '{letter}' in {word}")
    return index


def _set(options: Options, flag: Flag, text: str, read: Read) -> None:
    options.given.add(flag.name)
    try:
        value = read(flag, text)
    except ValueError as error:
        shown = f"-{flag.short}, --{flag.long}" if flag.short else f"--{flag.long}"
        raise UsageError(f'invalid argument "{text}" for "{shown}" flag: {error}') from None
    if flag.many:
        getattr(options, flag.name).extend(value if flag.kind == "strings" else [value])
    else:
        setattr(options, flag.name, value)


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
