"""Files of variables: `.env`, `--env-file`, `env_file` and `label_file`.

    export NAME=text # comment      unquoted: up to the line's end or " #", trimmed; variables are replaced
    NAME="text\\n${OTHER}"           double quotes: escapes, then variables; may span lines
    NAME='text'                     single quotes: as it is; may span lines
    NAME: text                      a colon does as well
    NAME                            taken from the environment, or left out

`raw` format: NAME=text, nothing replaced or unquoted.

Source: the Compose specification, "Env_file format".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping

from havre.compose.interpolate import Variables, substitute
from havre.errors import InvalidInput

Lookup = Callable[[str], str | None]

_SPACE = " \t\v\f\r\x85\xa0"
_EXPORT = re.compile(r"export[ \t\v\f\r\x85\xa0]+")
_ESCAPE = re.compile(r'\\([abcfnrtv$"\\]|0\d{0,3})')
_LETTERS = {"a": "\a", "b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t", "v": "\v", '"': '"', "\\": "\\"}


def read_env_file(path: str, lookup: Lookup, *, raw: bool = False) -> dict[str, str]:
    """The variables of a file; `lookup` resolves those that its texts and bare names refer to. Raises InvalidInput."""
    try:
        with open(path, encoding="utf-8-sig", errors="surrogateescape") as file:
            text = file.read()
    except IsADirectoryError as error:
        raise InvalidInput(f"{path} is a directory, where a file of variables was expected") from error
    except OSError as error:
        raise InvalidInput(f"env file {path} cannot be read: {error.strerror}") from error
    try:
        return _parse_raw(text) if raw else parse_env(text, lookup)
    except ValueError as error:
        raise InvalidInput(f"{path}: {error}") from error


def _parse_raw(text: str) -> dict[str, str]:
    pairs = (line.partition("=") for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#"))
    return {name.strip(): value for name, equals, value in pairs if equals}


def parse_env(text: str, lookup: Lookup) -> dict[str, str]:
    """The variables in a file's text. Raises ValueError with the line."""
    return _Parser(text, lookup).parse()


class _Names(Mapping[str, str]):
    """The environment first, then the variables defined so far in the file."""

    def __init__(self, lookup: Lookup, found: dict[str, str]) -> None:
        self._lookup = lookup
        self._found = found

    def __getitem__(self, name: str) -> str:
        value = self._lookup(name)
        return self._found[name] if value is None else value

    def __iter__(self) -> Iterator[str]:
        return iter(self._found)

    def __len__(self) -> int:
        return len(self._found)


class _Parser:
    def __init__(self, text: str, lookup: Lookup) -> None:
        self._rest = text
        self._line = 1
        self._lookup = lookup
        self._found: dict[str, str] = {}
        self._variables = Variables(_Names(lookup, self._found))

    def parse(self) -> dict[str, str]:
        while self._skip_to_statement():
            name, bare = self._name()
            if not bare:
                self._found[name] = self._value()
            elif (value := self._lookup(name)) is not None:
                self._found[name] = value
        return self._found

    def _take(self, count: int) -> str:
        taken, self._rest = self._rest[:count], self._rest[count:]
        self._line += taken.count("\n")
        return taken

    def _skip_to_statement(self) -> bool:
        while True:
            self._take(len(self._rest) - len(self._rest.lstrip()))
            if not self._rest.startswith("#"):
                return bool(self._rest)
            self._take((self._rest + "\n").find("\n"))

    def _name(self) -> tuple[str, bool]:
        """The name, and whether it has no value; the position is then after it."""
        if export := _EXPORT.match(self._rest):
            self._take(export.end())
        for index, char in enumerate(self._rest + "\n"):
            if char in "=:\n":
                name = self._rest[:index].rstrip()
                break
            if char not in _SPACE and char not in "_.-[]" and not char.isalnum():
                line = self._rest.partition("\n")[0]
                raise ValueError(f"line {self._line}: unexpected character {char!r} in variable name {line!r}")
        if " " in name:
            raise ValueError(f"line {self._line}: key cannot contain a space")
        self._take(index + 1)
        if char != "\n":
            self._take(len(self._rest) - len(self._rest.lstrip(_SPACE)))
        return name, char == "\n"

    def _value(self) -> str:
        if self._rest[:1] in ("'", '"'):
            return self._quoted(self._rest[0])
        line = self._take((self._rest + "\n").find("\n"))
        return substitute(line.partition(" #")[0].rstrip(), self._variables)

    def _quoted(self, quote: str) -> str:
        closed = re.compile(rf"{quote}((?:\\{quote}|\\[^{quote}]|[^\\{quote}])*){quote}", re.DOTALL).match(self._rest)
        if closed is None:
            shown = self._rest.partition("\n")[0]
            raise ValueError(f"line {self._line}: unterminated quoted value {shown}")
        self._take(closed.end())
        body = closed[1].replace("\\" + quote, quote)
        return substitute(_ESCAPE.sub(_unescape, body), self._variables) if quote == '"' else body


def _unescape(match: re.Match[str]) -> str:
    code = match[1]
    if code == "$":
        return "$$"
    if code[0] == "0":
        return chr(int(code[1:], 8)) if len(code) == 4 else match[0]
    return _LETTERS.get(code, match[0])
