"""Go template text to tokens.

    text {{ .Field $var "string" `raw` 'c' 12 name | ( ) , := = }} text     {{- trims -}}     {{/* comment */}}

Source: Go's text/template/parse, for the tokens and the error messages.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_SPACES = " \t\r\n"
_PUNCTUATION = {"|": "pipe", "(": "left", ")": "right", ",": "comma", "=": "assign"}
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
KEYWORDS = frozenset(("if", "else", "end", "range", "with", "define", "block", "template", "break", "continue"))


class TemplateError(ValueError):
    """A template that cannot be parsed or executed, with Go's message."""


class Token:
    """A token: its kind, its text (of strings the value), its offset in the template."""

    __slots__ = ("kind", "offset", "source", "text")

    def __init__(self, kind: str, text: str, offset: int, source: str = "") -> None:
        self.kind = kind
        self.text = text
        self.offset = offset
        self.source = source or text


def line_of(template: str, offset: int) -> int:
    """The number of the line at `offset`, from 1."""
    return template.count("\n", 0, offset) + 1


def tokenize(template: str, name: str) -> Iterator[Token]:
    """The tokens of a template: "text" outside actions; "open", the action's tokens and "close" for each action.

    Raises `TemplateError`, whose message contains `name`.
    """
    offset = 0
    trim = False
    while offset < len(template):
        start = template.find("{{", offset)
        end = len(template) if start < 0 else start
        text = template[offset:end]
        if trim:
            text = text.lstrip(_SPACES)
        if start >= 0 and template[start + 2 : start + 3] == "-" and template[start + 3 : start + 4] in tuple(_SPACES):
            text = text.rstrip(_SPACES)
            inner = start + 3
        else:
            inner = start + 2
        if text:
            yield Token("text", text, offset)
        if start < 0:
            return
        lexer = _Action(template, name, inner)
        yield from lexer.tokens()
        offset, trim = lexer.offset, lexer.trim


class _Action:
    """The inside of one action. At its end `offset` is after the `}}`, and `trim` reports whether it was `-}}`."""

    def __init__(self, template: str, name: str, offset: int) -> None:
        self.template = template
        self.name = name
        self.offset = offset
        self.trim = False

    def fail(self, reason: str, offset: int | None = None) -> TemplateError:
        line = line_of(self.template, self.offset if offset is None else offset)
        return TemplateError(f"template: {self.name}:{line}: {reason}")

    def tokens(self) -> Iterator[Token]:
        start = self.offset
        stripped = self.template[start:].lstrip(_SPACES)
        if stripped.startswith("/*"):
            self._comment(stripped)
            return
        yield Token("open", "{{", start)
        depth = 0
        while True:
            self._spaces()
            if self._closes():
                if depth:
                    raise self.fail("unclosed left paren")
                yield Token("close", "}}", self.offset)
                return
            if self.offset >= len(self.template):
                raise self.fail("unclosed action", start)
            token = self._token()
            depth += (token.kind == "left") - (token.kind == "right")
            if depth < 0:
                raise self.fail("unexpected right paren")
            yield token

    def _comment(self, stripped: str) -> None:
        end = self.template.find("*/", self.offset)
        if end < 0:
            raise self.fail("unclosed comment")
        self.offset = end + 2
        self._spaces()
        if not self._closes():
            raise self.fail("comment ends before closing delimiter")

    def _spaces(self) -> None:
        while self.offset < len(self.template) and self.template[self.offset] in _SPACES:
            self.offset += 1

    def _closes(self) -> bool:
        if self.template.startswith("-}}", self.offset) and self.template[self.offset - 1] in _SPACES:
            self.offset += 3
            self.trim = True
            return True
        if self.template.startswith("}}", self.offset):
            self.offset += 2
            return True
        return False

    def _token(self) -> Token:
        start = self.offset
        char = self.template[start]
        if char in _PUNCTUATION:
            self.offset += 1
            return Token(_PUNCTUATION[char], char, start)
        if self.template.startswith(":=", start):
            self.offset += 2
            return Token("declare", ":=", start)
        if char in "\"'":
            return self._quoted(char)
        if char == "`":
            return self._raw()
        if char == "." and not self.template[start + 1 : start + 2].isdigit():
            return self._field()
        if char.isdigit() or char in "+-.":
            return self._number()
        if char == "$" or char.isalpha() or char == "_":
            return self._word()
        raise self.fail(f"unexpected {_go_char(char)} in command" if char.isprintable() else "unrecognized character")

    def _take_word(self) -> str:
        start = self.offset
        while self.offset < len(self.template) and (
            self.template[self.offset].isalnum() or self.template[self.offset] == "_"
        ):
            self.offset += 1
        return self.template[start : self.offset]

    def _field(self) -> Token:
        start = self.offset
        self.offset += 1
        name = self._take_word()
        return Token("field" if name else "dot", name, start, "." + name)

    def _word(self) -> Token:
        start = self.offset
        if self.template[start] == "$":
            self.offset += 1
            return Token("variable", "$" + self._take_word(), start)
        word = self._take_word()
        if word in ("true", "false"):
            return Token("bool", word, start)
        return Token("keyword" if word in KEYWORDS else "nil" if word == "nil" else "name", word, start)

    def _number(self) -> Token:
        start = self.offset
        self.offset += 1
        while self.offset < len(self.template) and (
            self.template[self.offset].isalnum()
            or self.template[self.offset] in "._"
            or (self.template[self.offset] in "+-" and self.template[self.offset - 1] in "eE")
        ):
            self.offset += 1
        return Token("number", self.template[start : self.offset], start)

    def _raw(self) -> Token:
        start = self.offset
        end = self.template.find("`", start + 1)
        if end < 0:
            raise self.fail("unterminated raw quoted string")
        self.offset = end + 1
        return Token("string", self.template[start + 1 : end], start, self.template[start : self.offset])

    def _quoted(self, quote: str) -> Token:
        start = self.offset
        self.offset += 1
        value = ""
        while True:
            char = self.template[self.offset : self.offset + 1]
            if char in ("", "\n"):
                raise self.fail("unterminated quoted string" if quote == '"' else "unterminated character constant")
            self.offset += 1
            if char == quote:
                break
            value += self._escape() if char == "\\" else char
        source = self.template[start : self.offset]
        if quote == '"':
            return Token("string", value, start, source)
        if len(value) != 1:
            raise self.fail(f"malformed character constant: {source}")
        return Token("number", str(ord(value)), start, source)

    def _escape(self) -> str:
        char = self.template[self.offset : self.offset + 1]
        self.offset += 1
        if char in _ESCAPES:
            return _ESCAPES[char]
        if char in ("x", "u", "U"):
            digits = {"x": 2, "u": 4, "U": 8}[char]
            text = self.template[self.offset : self.offset + digits]
            self.offset += digits
            try:
                return chr(int(text, 16))
            except (ValueError, OverflowError):
                raise self.fail("invalid syntax") from None
        raise self.fail("invalid syntax")


def _go_char(char: str) -> str:
    return f'"{char}"' if char != '"' else "'\"'"
