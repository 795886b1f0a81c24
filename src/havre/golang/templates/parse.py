"""Parses the tokens of a Go template to a tree.

    list     := { text | action }
    action   := pipeline | if | with | range | break | continue      each of the three: pipeline list [else ...] end
    pipeline := [ $a [, $b] := ] command { "|" command }
    command  := operand { operand }          operand := term { .Field }
    term     := literal | .Field | $variable | function | ( pipeline ) | .

Source: Go's text/template/parse. Named templates (`define`, `template`, `block`) are refused: Docker's formats need
none.
"""

from __future__ import annotations

from havre.golang.templates.lex import TemplateError, Token, line_of, tokenize

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

_DEPTH_LIMIT = 100  # parsing and executing use five frames per level, of the default recursion limit of 1000


class Node:
    """A node of the tree. Errors refer to `offset` and quote `source`.

    kind        parts
    text        str
    action      pipeline, declared names
    if, with, range    pipeline, names, body, else-body
    break, continue
    pipe        commands
    command     operands
    literal     value
    field, variable    names        (.A.B or $x.A.B)
    chain       operand, names      ((pipe).A.B)
    function    name
    dot, nil
    """

    __slots__ = ("kind", "offset", "parts", "source")

    def __init__(self, kind: str, offset: int, source: str, *parts: Any) -> None:
        self.kind = kind
        self.offset = offset
        self.source = source
        self.parts = parts


def parse_template(template: str, functions: Collection[str], name: str = "") -> list[Node]:
    """The nodes of a template. Raises `TemplateError` with Go's message, which contains `name`."""
    parser = _Parser(template, functions, name)
    nodes, end = parser.block()
    if end is not None:
        raise parser.unexpected(end)
    return nodes


class _Parser:
    def __init__(self, template: str, functions: Collection[str], name: str) -> None:
        self._template = template
        self._name = name
        self._functions = functions
        self._tokens = list(tokenize(template, name))
        self._index = 0
        self._variables = ["$"]
        self._loops = 0
        self._depth = 0

    def fail(self, reason: str, offset: int) -> TemplateError:
        return TemplateError(f"template: {self._name}:{line_of(self._template, offset)}: {reason}")

    def unexpected(self, token: Token, context: str = "") -> TemplateError:
        shown = f"{{{{{token.source}}}}}" if token.source in ("end", "else") and not context else f'"{token.source}"'
        return self.fail(f"unexpected {shown}" + (f" in {context}" if context else ""), token.offset)

    def _next(self) -> Token:
        if self._index >= len(self._tokens):
            raise self.fail("unexpected EOF", len(self._template))
        self._index += 1
        return self._tokens[self._index - 1]

    def _peek(self) -> Token:
        token = self._next()
        self._index -= 1
        return token

    def _deeper(self, offset: int) -> None:
        self._depth += 1
        if self._depth > _DEPTH_LIMIT:
            raise self.fail("the template is nested too deeply", offset)

    def block(self) -> tuple[list[Node], Token | None]:
        """Nodes up to the end of the template (then None) or to an `end` or `else` (then that token)."""
        nodes: list[Node] = []
        end: Token | None = None
        while self._index < len(self._tokens):
            token = self._next()
            if token.kind == "text":
                nodes.append(Node("text", token.offset, token.text, token.text))
                continue
            head = self._peek()
            if head.kind == "keyword" and head.text in ("end", "else"):
                end = self._next()
                break
            nodes.append(self._action())
        return nodes, end

    def _action(self) -> Node:
        head = self._peek()
        if head.kind != "keyword":
            names, pipe = self._declaration("command")
            self._close("command")
            return Node("action", head.offset, pipe.source, pipe, names)
        self._next()
        if head.text in ("break", "continue"):
            if not self._loops:
                raise self.fail(f"{{{{{head.text}}}}} outside {{{{range}}}}", head.offset)
            self._close(head.text)
            return Node(head.text, head.offset, head.text)
        if head.text in ("if", "with", "range"):
            return self._control(head)
        raise self.unexpected(head, "command")

    def _control(self, head: Token) -> Node:
        self._deeper(head.offset)
        scope = len(self._variables)
        names, pipe = self._declaration(head.text)
        self._close(head.text)
        self._loops += head.text == "range"
        body, end = self.block()
        self._loops -= head.text == "range"
        otherwise: list[Node] = []
        if end is not None and end.text == "else":
            if self._peek().kind == "keyword" and self._peek().text == head.text != "range":
                otherwise = [self._control(self._next())]  # `else if` shares our `end`
                end = Token("keyword", "end", head.offset)
            else:
                self._close("else")
                otherwise, end = self.block()
                self._end(end)
        else:
            self._end(end)
        del self._variables[scope:]
        self._depth -= 1
        return Node(head.text, head.offset, pipe.source, pipe, names, body, otherwise)

    def _end(self, end: Token | None) -> None:
        if end is None:
            raise self.fail("unexpected EOF", len(self._template))
        if end.text != "end":
            raise self.fail(f"expected end; found {{{{{end.text}}}}}", end.offset)
        self._close("end")

    def _close(self, context: str) -> None:
        token = self._next()
        if token.kind != "close":
            raise self.unexpected(token, context)

    def _declaration(self, context: str) -> tuple[tuple[str, ...], Node]:
        """`$a, $b :=` or `$a =` and the pipeline after it; the name of an assignment is returned as "=$a"."""
        start = self._index
        names: list[str] = []
        while self._peek().kind == "variable":
            names.append(self._next().text)
            token = self._next()
            if token.kind == "comma" and context == "range" and len(names) == 1:
                continue
            if token.kind == "declare":
                pipe = self._pipeline(context)
                self._variables += names
                return tuple(names), pipe
            if token.kind == "assign" and len(names) == 1:
                self._known(names[0], token.offset)
                return ("=" + names[0],), self._pipeline(context)
            break
        self._index = start
        return (), self._pipeline(context)

    def _known(self, name: str, offset: int) -> None:
        if name not in self._variables:
            raise self.fail(f'undefined variable "{name}"', offset)

    def _pipeline(self, context: str) -> Node:
        first = self._peek()
        commands: list[Node] = []
        while True:
            token = self._peek()
            if token.kind in ("close", "right"):
                if not commands:
                    raise self.fail(f"missing value for {context}", token.offset)
                break
            if commands:
                self._next()  # the pipe between two commands
            commands.append(self._command(context))
            if len(commands) > 1 and commands[-1].parts[0][0].kind in ("literal", "nil", "dot"):
                raise self.fail(f"non executable command in pipeline stage {len(commands)}", token.offset)
        source = " | ".join(command.source for command in commands)
        return Node("pipe", first.offset, source, commands)

    def _command(self, context: str) -> Node:
        first = self._peek()
        operands: list[Node] = []
        while (token := self._peek()).kind not in ("close", "right", "pipe"):
            operands.append(self._operand(token, context))
            after = self._peek()
            if after.kind not in ("close", "right", "pipe") and self._adjoins():
                raise self.fail(f"unexpected <{after.source}> in operand", after.offset)
        if not operands:
            raise self.fail("empty command" if context == "command" else f"missing value for {context}", first.offset)
        return Node("command", first.offset, " ".join(o.source for o in operands), operands)

    def _operand(self, token: Token, context: str) -> Node:
        term = self._term(context)
        names: list[str] = []
        offset = 0
        while self._peek().kind == "field" and self._adjoins():
            part = self._next()
            offset = offset or part.offset
            names.append(part.text)
        if not names:
            return term
        source = term.source + "".join("." + name for name in names)
        if term.kind in ("field", "variable"):
            return Node(term.kind, offset, source, [*term.parts[0], *names])
        if term.kind in ("literal", "nil", "dot"):
            raise self.fail(f"unexpected . after term {go_quoted(term.source)}", offset)
        return Node("chain", offset, source, term, names)

    def _adjoins(self) -> bool:
        """Report whether the next token follows the last one without a space."""
        last, following = self._tokens[self._index - 1], self._tokens[self._index]
        return last.offset + len(last.source) == following.offset

    def _term(self, context: str) -> Node:
        token = self._next()
        kind, at = token.kind, token.offset
        if kind == "field":
            return Node("field", at, token.source, [token.text])
        if kind == "variable":
            self._known(token.text, at)
            return Node("variable", at, token.source, [token.text])
        if kind == "string":
            return Node("literal", at, token.source, token.text)
        if kind == "bool":
            return Node("literal", at, token.source, token.text == "true")
        if kind == "number":
            return Node("literal", at, token.source, self._number(token))
        if kind in ("dot", "nil"):
            return Node(kind, at, token.source)
        if kind == "name":
            if token.text not in self._functions:
                raise self.fail(f'function "{token.text}" not defined', at)
            return Node("function", at, token.source, token.text)
        if kind == "left":
            return self._parenthesis(at)
        raise self.unexpected(token, context if kind == "keyword" else "operand")

    def _parenthesis(self, at: int) -> Node:
        self._deeper(at)
        pipe = self._pipeline("parenthesized pipeline")
        if self._next().kind != "right":
            raise self.fail("unclosed left paren", at)
        self._depth -= 1
        return Node("pipe", at, f"({pipe.source})", pipe.parts[0])

    def _number(self, token: Token) -> int | float:
        text = token.text.replace("_", "")
        try:
            whole = int(text, 0)
        except ValueError:
            pass
        else:
            if not -(1 << 63) <= whole < 1 << 63:
                raise self.fail(f"integer overflow: {go_quoted(token.source)}", token.offset)
            return whole
        try:
            return float(text)
        except ValueError:
            raise self.fail(f"bad number syntax: {go_quoted(token.source)}", token.offset) from None


def go_quoted(text: str) -> str:
    """`text` in double quotes, without escaping."""
    return f'"{text}"'
