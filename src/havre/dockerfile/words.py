r"""Words of a Dockerfile: quotes, escapes, and variables with all their modifiers. Pure.

    $x  ${x}                 the value, "" if unset          ${x:-w} ${x-w}    w if unset (with `:` also if empty)
    ${x:+w} ${x+w}           w if set (and not empty)        ${x:?w} ${x?w}    refuse with w if unset (or empty)
    ${x#p} ${x##p}           without the shortest, longest prefix that matches p; %, %% do so with suffixes
    ${x/p/w} ${x//p/w}       the first, every match of p replaced by w

Patterns support `*`, `?` and `\c`. Single quotes protect everything, double quotes everything except variables; the
escape character protects the next one. In `raw` text (here-documents), quotes and escapes are kept, except before `$`.

Source: the Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from havre.errors import InvalidInput

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*|[0-9]+|[@*#?$!-]")
_MAX_DEPTH = 64
MAX_EXPANDED = 8 << 20

Unset = Callable[[str], None]
_Token = tuple[bool, str]
"""A character of a pattern, and whether it is a wildcard (`*`, `?`)."""

_ANY = (True, "*")
_MAX_MATCHED = 8192


def _unnoticed(name: str) -> None:
    """Ignore unset variables."""


def expand(
    text: str, variables: Mapping[str, str], escape: str = "\\", *, raw: bool = False, unset: Unset = _unnoticed
) -> str:
    """`text` as one word: variables substituted, quotes removed. Calls `unset` with each unset variable."""
    return _Scanner(text, variables, escape, raw, unset).word("")


def split(text: str, variables: Mapping[str, str], escape: str = "\\", *, unset: Unset = _unnoticed) -> list[str]:
    """`text` expanded and split at blanks, including blanks in values of variables."""
    return _Scanner(text, variables, escape, False, unset).words()


def split_raw(text: str, escape: str = "\\") -> list[str]:
    """`text` split at blanks outside quotes; each word is as written, for later expansion."""
    words: list[str] = []
    word, quote, at = "", "", 0
    while at < len(text):
        char = text[at]
        if not quote and char.isspace():
            if word:
                words.append(word)
            word = ""
        elif char == escape and quote != "'" and at + 1 < len(text):
            word += text[at : at + 2]
            at += 1
        else:
            quote = "" if char == quote else char if not quote and char in "\"'" else quote
            word += char
        at += 1
    return [*words, word] if word else words


class _Scanner:
    """One pass over a text; `word` stops before an unquoted character of `stop`."""

    def __init__(self, text: str, variables: Mapping[str, str], escape: str, raw: bool, unset: Unset) -> None:
        self._text = text
        self._variables = variables
        self._escape = escape
        self._raw = raw
        self._unset = unset
        self._at = 0
        self._depth = 0

    def word(self, stop: str) -> str:
        out: list[str] = []
        while (char := self._peek()) and char not in stop:
            self._at += 1
            out.append(self._piece(char))
        return "".join(out)

    def words(self) -> list[str]:
        found: list[str] = []
        current: str | None = None
        while char := self._peek():
            self._at += 1
            if char.isspace():
                if current is not None:
                    found.append(current)
                current = None
            elif char == "$":
                first, *rest = re.split(r"\s+", self._variable()) or [""]
                current = (current or "") + first
                for each in rest:
                    if current:
                        found.append(current)
                    current = each
                current = current or None
            else:
                current = (current or "") + self._piece(char)
        return found if current is None else [*found, current]

    def _peek(self) -> str:
        return self._text[self._at : self._at + 1]

    def _piece(self, char: str) -> str:
        if char == "$":
            return self._variable()
        if char == self._escape:
            return self._escaped()
        if self._raw or char not in "\"'":
            return char
        return self._single() if char == "'" else self._double()

    def _escaped(self) -> str:
        char = self._peek()
        self._at += 1
        if self._raw:
            return char if char == "$" else self._escape + char
        return char or self._escape

    def _single(self) -> str:
        end = self._text.find("'", self._at)
        if end < 0:
            raise InvalidInput("unexpected end of statement while looking for matching single-quote")
        piece, self._at = self._text[self._at : end], end + 1
        return piece

    def _double(self) -> str:
        out: list[str] = []
        while char := self._peek():
            self._at += 1
            if char == '"':
                return "".join(out)
            if char == "$":
                out.append(self._variable())
            elif char == self._escape and self._peek() and self._peek() in f'"${self._escape}':
                out.append(self._peek())
                self._at += 1
            else:
                out.append(char)
        raise InvalidInput("unexpected end of statement while looking for matching double-quote")

    # -- variables; the position is after the `$`

    def _variable(self) -> str:
        if self._peek() != "{":
            match = _NAME.match(self._text, self._at)
            if match is None:
                return "$"
            self._at = match.end()
            return self._value(match[0]) or ""
        self._at += 1
        match = _NAME.match(self._text, self._at)
        if match is None:
            raise InvalidInput("bad substitution: a name is expected after ${")
        self._at = match.end()
        self._depth += 1
        if self._depth > _MAX_DEPTH:
            raise InvalidInput("bad substitution: nested too deeply")
        value = self._modified(match[0])
        self._depth -= 1
        if self._peek() != "}":
            raise InvalidInput(f"syntax error: missing '}}' after ${{{match[0]}")
        self._at += 1
        if len(value) > MAX_EXPANDED:
            raise InvalidInput(f"the value of {match[0]} is longer than {MAX_EXPANDED} characters")
        return value

    def _value(self, name: str, *, tell: bool = True) -> str | None:
        value = self._variables.get(name)
        if value is None and tell:
            self._unset(name)
        return value

    def _modified(self, name: str) -> str:
        operator = self._peek()
        if operator in ("}", ""):
            return self._value(name) or ""
        self._at += 1
        if operator == ":" and self._peek() in "+-?":
            operator += self._peek()
            self._at += 1
        if operator.lstrip(":") in ("-", "+", "?"):
            return self._alternative(name, operator)
        if operator in "#%":
            return self._trimmed(name, operator)
        if operator == "/":
            return self._replaced(name)
        raise InvalidInput(f"unsupported modifier ({operator}) in substitution of {name}")

    def _alternative(self, name: str, operator: str) -> str:
        word = self.word("}")
        value = self._value(name, tell=False)
        present = bool(value) if operator.startswith(":") else value is not None
        if operator.endswith("+"):
            return word if present else ""
        if operator.endswith("-"):
            return (value or "") if present else word
        if not present:
            raise InvalidInput(f"{name}: {word or 'not allowed to be ' + ('empty' if ':' in operator else 'unset')}")
        return value or ""

    def _trimmed(self, name: str, operator: str) -> str:
        longest = self._peek() == operator
        self._at += longest
        pattern = self._pattern("}")
        value = self._value(name) or ""
        lengths = _matches(pattern[::-1], value[::-1]) if operator == "%" else _matches(pattern, value)
        if not lengths:
            return value
        cut = lengths[-1] if longest else lengths[0]
        return value[cut:] if operator == "#" else value[: len(value) - cut]

    def _replaced(self, name: str) -> str:
        every = self._peek() == "/"
        self._at += every
        pattern = self._pattern("/}")
        replacement = ""
        if self._peek() == "/":
            self._at += 1
            replacement = self.word("}")
        value = self._value(name) or ""
        out, at = "", 0
        while pattern and at < len(value):
            length = (_matches(pattern, value[at:]) or [0])[-1]
            out += replacement if length else value[at]
            at += length or 1
            if length and not every:
                break
        return out + value[at:]

    def _pattern(self, stop: str) -> list[_Token]:
        """A pattern up to an unescaped character of `stop`. Wildcards in values of variables count as wildcards."""
        tokens: list[_Token] = []
        while (char := self._peek()) and char not in stop:
            self._at += 1
            if char in (self._escape, "\\"):
                tokens.append((False, self._peek()))
                self._at += 1
            elif char == "$":
                tokens += [(each in "*?", each) for each in self._variable()]
            elif char in "\"'":
                tokens += [(False, each) for each in (self._single() if char == "'" else self._double())]
            else:
                tokens.append((char in "*?", char))
        return tokens


def _matches(pattern: Sequence[_Token], text: str) -> list[int]:
    """The lengths of the prefixes of `text` that `pattern` matches, ascending. Simulates an NFA: no backtracking."""
    if len(text) > _MAX_MATCHED:
        raise InvalidInput(f"a value of {len(text)} characters is too long for a pattern")
    lengths = []
    states = _resting({0}, pattern)
    for length in range(len(text) + 1):
        if len(pattern) in states:
            lengths.append(length)
        if length == len(text) or not states:
            break
        moved = {at if pattern[at] == _ANY else at + 1 for at in states if _accepts(pattern, at, text[length])}
        states = _resting(moved, pattern)
    return lengths


def _accepts(pattern: Sequence[_Token], at: int, char: str) -> bool:
    if at == len(pattern):
        return False
    special, wanted = pattern[at]
    return special or wanted == char


def _resting(states: set[int], pattern: Sequence[_Token]) -> set[int]:
    """`states` and those reachable without consuming a character: past each `*`."""
    reached = set(states)
    for state in states:
        at = state
        while at < len(pattern) and pattern[at] == _ANY:
            at += 1
            reached.add(at)
    return reached
