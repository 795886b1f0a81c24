"""Types of a Compose file's keys: each validates, reads and renders values.

Each kind has four operations, so that no key is described twice:

    problem   the error of a value as written (short forms included), or None
    read      the canonical value, after expansion of short forms; numbers and sizes are still as written
    absent    whether a canonical value is omitted from the output, as Go's `omitempty` does
    dump      the value as printed by `config`, in YAML or in JSON (whose text is also hashed)

Source: the Compose specification's JSON schema; the order and the JSON names of docker compose's own output.
"""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from havre.compose.timestamps import Timestamp
from havre.compose.tree import Path
from havre.compose.yamlwrite import natural_key, sort_deep
from havre.golang.scalars import float32, go_text
from havre.golang.units import format_duration, parse_duration, parse_size

JSON, YAML = "json", "yaml"
_KEYS_TOLD = 12
Found = Iterator[tuple[Path, str, str | None]]
"""Problems: path, error, and a hint."""


def described(value: Any) -> str:
    """Render a value for an error message."""
    if isinstance(value, dict | list):
        return "a mapping" if isinstance(value, dict) else "a list"
    if isinstance(value, Timestamp):
        return f"the time {value}; quote it"
    return "nothing" if value is None else repr(value) if isinstance(value, str) else go_text(value)


class Kind:
    """Text, and the base of the other kinds."""

    expected = "text"
    takes: tuple[type, ...] = (str,)

    def accepts(self, value: Any) -> bool:
        """Report whether a value has this kind at its top level; `problems` checks its content."""
        if isinstance(value, Timestamp):
            return False
        return isinstance(value, self.takes) and not (isinstance(value, bool) and bool not in self.takes)

    def problems(self, value: Any, path: Path) -> Found:
        """Yield the errors of a value as written."""
        if not self.accepts(value):
            yield path, f"expected {self.expected}, found {described(value)}", None

    def read(self, value: Any) -> Any:
        """The canonical value. Raises ValueError."""
        return go_text(value)

    def absent(self, value: Any, form: str) -> bool:
        """Report whether a canonical value is omitted."""
        return value is None or value == "" or value == [] or value == {}

    def dump(self, value: Any, form: str) -> Any:
        """The value for output."""
        return value


class Choice(Kind):
    """One of a few words."""

    def __init__(self, words: tuple[str, ...]) -> None:
        self.words = words

    @property
    def expected(self) -> str:  # type: ignore[override]
        return "one of " + ", ".join(self.words)

    def accepts(self, value: Any) -> bool:
        return value in self.words


class Boolean(Kind):
    """true or false, or text after substitution."""

    expected = "true or false"
    takes: tuple[type, ...] = (bool, str)

    def read(self, value: Any) -> Any:
        if isinstance(value, bool):
            return value
        if str(value).lower() in ("true", "false"):
            return str(value).lower() == "true"
        raise ValueError(f"expected true or false, found {described(value)}")

    def absent(self, value: Any, form: str) -> bool:
        return not value


class Strict(Boolean):
    """true or false and nothing else."""

    takes: tuple[type, ...] = (bool,)


class Integer(Kind):
    """A whole number, or text after substitution."""

    expected = "a whole number"
    takes: tuple[type, ...] = (int, str)

    def read(self, value: Any) -> Any:
        try:
            return int(value)
        except ValueError:
            raise ValueError(f"expected {self.expected}, found {described(value)}") from None

    def absent(self, value: Any, form: str) -> bool:
        return not value


class Number(Integer):
    """A number that docker stores as an integer."""

    expected = "a number"
    takes: tuple[type, ...] = (int, float, str)


class Fraction(Number):
    """A number that docker stores as a 32-bit float."""

    def read(self, value: Any) -> Any:
        number = float32(float(value))
        return int(number) if number.is_integer() else number


class Size(Number):
    """Bytes: a number, or text such as 64m. Printed as text."""

    expected = "a size such as 64m"

    def read(self, value: Any) -> Any:
        return parse_size(value) if isinstance(value, str) else int(value)

    def dump(self, value: Any, form: str) -> Any:
        return str(value)


class Duration(Kind):
    """A time such as 1m30s; canonical in nanoseconds."""

    expected = "a duration such as 1m30s"

    def read(self, value: Any) -> Any:
        return parse_duration(go_text(value))

    def absent(self, value: Any, form: str) -> bool:
        return not value

    def dump(self, value: Any, form: str) -> Any:
        return format_duration(value)


class Loose(Kind):
    """Text or a number, stored as text."""

    expected = "text or a number"
    takes: tuple[type, ...] = (str, int, float)


class Count(Loose):
    """A number of devices, or `all`, which is -1."""

    def read(self, value: Any) -> Any:
        return -1 if str(value).lower() == "all" else int(value)


class AnyText(Kind):
    """Text or nothing."""

    takes: tuple[type, ...] = (str, type(None))

    def read(self, value: Any) -> Any:
        return value or ""


class Texts(Kind):
    """A list of texts."""

    expected = "a list of texts"
    takes: tuple[type, ...] = (list,)
    item: tuple[type, ...] = (str,)

    def problems(self, value: Any, path: Path) -> Found:
        yield from super().problems(value, path)
        for index, member in enumerate(value if isinstance(value, list) else ()):
            if not isinstance(member, self.item) or isinstance(member, bool | Timestamp):
                yield (*path, str(index)), f"expected text, found {described(member)}", None

    def read(self, value: Any) -> Any:
        return [go_text(item) for item in ([value] if not isinstance(value, list) else value)]


class LooseTexts(Texts):
    """A list of texts or numbers."""

    item = (str, int, float)


class TextOrTexts(Texts):
    """A text or a list of texts."""

    expected = "text or a list of texts"
    takes: tuple[type, ...] = (str, list)


class Command(TextOrTexts):
    """A command: a list of words, or text that is split as a shell would. null and an empty list differ."""

    takes: tuple[type, ...] = (str, list, type(None))

    def read(self, value: Any) -> Any:
        if value is None or isinstance(value, list):
            return value
        return _shell_words(value)

    def absent(self, value: Any, form: str) -> bool:
        return value is None


def _shell_words(text: str) -> list[str]:
    """Words up to the first operator: like docker, ignores what follows an unquoted `;`, `|`, `&`, `<` or `>`."""
    lexer = shlex.shlex(text, posix=True, punctuation_chars=";|&<>()")
    lexer.whitespace_split = True
    lexer.commenters = ""
    words: list[str] = []
    for word in lexer:
        if word and set(word) <= set(";|&<>()"):
            if words and words[-1].isdigit() and word[0] in "<>":
                words.pop()
            break
        words.append(word)
    return words


class HealthTest(TextOrTexts):
    """A health check's test: text is run by the shell."""

    def read(self, value: Any) -> Any:
        return ["CMD-SHELL", value] if isinstance(value, str) else value


class Pairs(Kind):
    """`NAME: value` or a list of `NAME=value`; `nothing` is the value of a bare name."""

    def __init__(
        self,
        nothing: str | None = "",
        *,
        lists: bool = True,
        values: tuple[type, ...] = (str, int, float, bool, type(None)),
    ) -> None:
        self.nothing = nothing
        self.lists = lists
        self.values = values

    @property
    def expected(self) -> str:  # type: ignore[override]
        return "a mapping or a list of NAME=VALUE" if self.lists else "a mapping"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, dict) or (self.lists and isinstance(value, list))

    def problems(self, value: Any, path: Path) -> Found:
        yield from super().problems(value, path)
        if isinstance(value, dict):
            for key, member in value.items():
                if not key:
                    yield path, "a name is empty", None
                if not isinstance(member, self.values):
                    yield (*path, key), f"expected text or a number, found {described(member)}", None
        for index, member in enumerate(value if isinstance(value, list) else ()):
            if not isinstance(member, str) or isinstance(member, Timestamp):
                yield (*path, str(index)), f"expected NAME=VALUE, found {described(member)}", None

    def read(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self.nothing if member is None else go_text(member) for key, member in value.items()}
        split = (go_text(item).partition("=") for item in value)
        return {name: text if equals else self.nothing for name, equals, text in split}

    def dump(self, value: Any, form: str) -> Any:
        return {key: value[key] for key in (sorted(value, key=natural_key) if form == YAML else sorted(value))}


class Unwritten(Pairs):
    """Pairs that are validated and then ignored, as docker compose does."""

    def __init__(self) -> None:
        super().__init__(lists=False)

    def absent(self, value: Any, form: str) -> bool:
        return True


class Hosts(Pairs):
    """Host names with their addresses: a mapping to one or several, or a list of `HOST=IP` or `HOST:IP`."""

    def __init__(self) -> None:
        super().__init__(values=(str, list, type(None)))

    def read(self, value: Any) -> Any:
        hosts: dict[str, list[str]] = {}
        pairs = value.items() if isinstance(value, dict) else (_host_pair(go_text(item)) for item in value)
        for name, addresses in pairs:
            if not name or set(name) & set(":="):
                raise ValueError(f"bad host name '{name}'")
            split = addresses if isinstance(addresses, list) else (addresses or "").split(",")
            hosts.setdefault(name, []).extend(_unbracketed(go_text(address)) for address in split)
        return hosts

    def dump(self, value: Any, form: str) -> Any:
        return sorted(f"{name}={address}" for name, addresses in value.items() for address in addresses)


def _unbracketed(address: str) -> str:
    return address[1:-1] if len(address) > 2 and address[0] == "[" and address[-1] == "]" else address


def _host_pair(text: str) -> tuple[str, str]:
    for separator in "=:":
        name, found, address = text.partition(separator)
        if found:
            return name, address
    raise ValueError(f"invalid additional host, missing IP: {text}")


class Anything(Kind):
    """A value that is passed on unchanged."""

    def accepts(self, value: Any) -> bool:
        return True

    def read(self, value: Any) -> Any:
        return value

    def dump(self, value: Any, form: str) -> Any:
        return sort_deep(value)


class Key(NamedTuple):
    """A key of a mapping.

    always    written even when it is empty
    pointer   omitted only when it was not given, so that 0 and false are written
    names     its name in YAML and in JSON where these differ from the key
    """

    name: str
    kind: Kind
    always: str = ""
    pointer: bool = False
    json_name: str = ""


class Struct(Kind):
    """A mapping with known keys, in the order in which they are written, and `x-` extensions."""

    def __init__(
        self,
        noun: str,
        keys: Sequence[Key],
        *,
        short: Kind | None = None,
        required: tuple[str, ...] = (),
        null: bool = False,
        extensible: bool = True,
        sole: str = "",
    ) -> None:
        self.noun = noun
        self.keys = keys
        self.short = short
        self.required = required
        self.null = null
        self.extensible = extensible
        self.sole = sole
        self.by_name = {key.name: key for key in keys}

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"{self.short.expected} or a mapping" if self.short else "a mapping"

    def accepts(self, value: Any) -> bool:
        fits_short = self.short is not None and self.short.accepts(value)
        return isinstance(value, dict) or fits_short or (self.null and value is None)

    def problems(self, value: Any, path: Path) -> Found:
        if not self.accepts(value):
            yield path, f"expected {self.expected}, found {described(value)}", None
        elif isinstance(value, dict):
            yield from self._key_problems(value, path)
        elif self.short is not None and value is not None:
            yield from self.short.problems(value, path)

    def _key_problems(self, value: dict[str, Any], path: Path) -> Found:
        for name, member in value.items():
            key = self.by_name.get(name)
            if key is not None:
                yield from key.kind.problems(member, (*path, name))
            elif not (self.extensible and name.startswith("x-")):
                yield (*path, name), f"unknown key of {self.noun}", self._nearest(name)
        for name in self.required:
            if name not in value:
                yield path, f"the key {name!r} is missing", None

    def _nearest(self, name: str) -> str | None:
        from difflib import get_close_matches

        near = get_close_matches(name, self.by_name, 1, 0.6)
        if near:
            return f"did you mean {near[0]!r}?"
        return "its keys are " + ", ".join(sorted(self.by_name)) if len(self.keys) <= _KEYS_TOLD else None

    def read(self, value: Any) -> Any:
        if value is None:
            return {}
        result: dict[str, Any] = {}
        for key in self.keys:
            if key.name in value and (value[key.name] is not None or isinstance(key.kind, Command | Struct)):
                if value[key.name] is None and not isinstance(key.kind, Command):
                    continue
                result[key.name] = _read_at(key.kind, value[key.name], key.name)
        result.update({name: member for name, member in value.items() if name.startswith("x-") and self.extensible})
        return result

    def absent(self, value: Any, form: str) -> bool:
        if form == JSON or value is None:
            return value is None
        return all(name in self.by_name and self._left_out(self.by_name[name], value, form) for name in value)

    def _left_out(self, key: Key, value: dict[str, Any], form: str) -> bool:
        member = value.get(key.name)
        if form in key.always:
            return False
        if key.pointer:
            return member is None
        if isinstance(key.kind, Struct) and form == JSON:
            return False  # Go's encoder never omits a struct that is a value
        return member is None or key.kind.absent(member, form)

    def dump(self, value: Any, form: str) -> Any:
        if value is None:
            return None
        result: dict[str, Any] = {}
        for key in self.keys:
            if not self._left_out(key, value, form):
                member = value.get(key.name)
                zero: Any = {} if isinstance(key.kind, Struct) else None
                name = (key.json_name or key.name) if form == JSON else key.name
                result[name] = zero if member is None and not zero else key.kind.dump(member, form)
                if member is None and isinstance(key.kind, Struct):
                    result[name] = key.kind.dump({}, form)
        if form == YAML:
            extensions = sorted((name for name in value if name.startswith("x-")), key=natural_key)
            result.update({name: sort_deep(value[name]) for name in extensions})
        return result


def _read_at(kind: Kind, value: Any, name: str) -> Any:
    try:
        return kind.read(value)
    except ReadError as error:
        raise ReadError((name, *error.path), error.reason) from error
    except (ValueError, OverflowError) as error:
        raise ReadError((name,), str(error)) from error


class ReadError(ValueError):
    """An error in a value, with its path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason


class ListOf(Kind):
    """A list of one kind."""

    def __init__(self, item: Kind, *, short: Kind | None = None) -> None:
        self.item = item
        self.short = short

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"{self.short.expected} or a list" if self.short else "a list"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, list) or (self.short is not None and self.short.accepts(value))

    def problems(self, value: Any, path: Path) -> Found:
        yield from super().problems(value, path)
        for index, member in enumerate(value if isinstance(value, list) else ()):
            yield from self.item.problems(member, (*path, str(index)))

    def read(self, value: Any) -> Any:
        return [_read_at(self.item, member, str(index)) for index, member in enumerate(value)]

    def dump(self, value: Any, form: str) -> Any:
        return [self.item.dump(member, form) for member in value]


class MapOf(Kind):
    """A mapping with user-defined names; `null` members are preserved with `keep_null`."""

    def __init__(
        self,
        item: Kind,
        name_problem: Callable[[str], str | None] = lambda _: None,
        *,
        short: Kind | None = None,
        keep_null: bool = False,
    ) -> None:
        self.item = item
        self.name_problem = name_problem
        self.short = short
        self.keep_null = keep_null

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"{self.short.expected} or a mapping" if self.short else "a mapping"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, dict) or (self.short is not None and self.short.accepts(value))

    def problems(self, value: Any, path: Path) -> Found:
        if not isinstance(value, dict):
            if self.short is not None and self.short.accepts(value):
                yield from self.short.problems(value, path)
            else:
                yield path, f"expected {self.expected}, found {described(value)}", None
            return
        for name, member in value.items():
            if problem := self.name_problem(name):
                yield (*path, name), problem, None
            elif not (member is None and self.keep_null):
                yield from self.item.problems(member, (*path, name))

    def read(self, value: Any) -> Any:
        return {
            name: None if member is None and self.keep_null else _read_at(self.item, member, name)
            for name, member in value.items()
        }

    def dump(self, value: Any, form: str) -> Any:
        names = sorted(value, key=natural_key) if form == YAML else sorted(value)
        return {name: None if value[name] is None else self.item.dump(value[name], form) for name in names}
