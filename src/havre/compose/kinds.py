"""Types of a Compose file's keys: each validates, reads and renders values. `composites` has those made of others.

Each kind has four operations, so that no key is described twice:

    problem   the error of a value as written (short forms included), or None
    read      the canonical value, after expansion of short forms; numbers and sizes are still as written
    absent    whether a canonical value is omitted from the output, as Go's `omitempty` does
    dump      the value as printed by `config`, in YAML or in JSON (whose text is also hashed)

Source: the Compose specification's JSON schema; the order and the JSON names of docker compose's own output.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from typing import Any

from havre.compose.timestamps import Timestamp
from havre.compose.tree import Path
from havre.compose.yamlwrite import natural_key, sort_deep
from havre.golang.scalars import float32, go_text
from havre.golang.units import format_duration, parse_duration, parse_size

JSON, YAML = "json", "yaml"
_POLICIES = r"always|never|build|if_not_present|missing|refresh|daily|weekly|every_([0-9]+[wdhms])+"
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


class PullPolicy(Kind):
    """When to pull an image: a word, or how often, as in every_12h."""

    expected = "one of always, never, if_not_present, build, missing, refresh, daily, weekly, every_DURATION"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, str) and re.fullmatch(_POLICIES, value) is not None


class Unsaid(Kind):
    """Text that docker compose takes and does not print."""

    def absent(self, value: Any, form: str) -> bool:
        return True


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


class Switch(Kind):
    """true or false, or settings as text; stored as text."""

    expected = "true, false or settings as text"
    takes: tuple[type, ...] = (bool, str)

    def read(self, value: Any) -> Any:
        return go_text(value)


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


class Repeated(Kind):
    """Values of a flag: a text, number or truth value, or a list of those; stored as a list of texts."""

    expected = "a text, a number, true or false, or a list of those"
    takes: tuple[type, ...] = (str, int, float, bool, list)

    def read(self, value: Any) -> Any:
        return [go_text(item) for item in (value if isinstance(value, list) else [value])]


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
