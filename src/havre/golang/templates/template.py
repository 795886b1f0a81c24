"""Executes a parsed Go template on a value.

Values are JSON's (with the types of `gotypes`) and objects with `get_field(name)`: a row of a listing. Errors are Go's:
`template: :LINE:COLUMN: executing "" at <NODE>: REASON`.
"""

from __future__ import annotations

from havre.golang.templates.functions import FUNCTIONS, HEADER_FUNCTIONS, NO_VALUE, render, truth, type_name
from havre.golang.templates.gotypes import Nil, Struct, member
from havre.golang.templates.lex import TemplateError, line_of
from havre.golang.templates.parse import Node, parse_template

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

_QUOTED = 20
_STEP = 64  # cost of a step, in characters of the budget


def compile_template(text: str, name: str = "") -> Template:
    """Parse a template; `name` appears in errors. Raises `TemplateError`."""
    return Template(text, parse_template(text, FUNCTIONS, name), name)


class Template:
    """A parsed template."""

    def __init__(self, text: str, nodes: list[Node], name: str) -> None:
        self._text = text
        self._name = name
        self._nodes = nodes

    def execute(self, value: Any, budget: int | None = None, shown: Callable[[str], str] | None = None) -> str:
        """The output for `value`. Raises `TemplateError`, also if `budget` is exceeded.

        The budget counts the characters processed, plus a constant for each node, operand and iteration. `shown` is
        applied to text that comes from the value, but not to the template's own.
        """
        return _Run(self._text, value, FUNCTIONS, self._name, budget, shown).output(self._nodes)

    def execute_header(self, value: Any) -> str:
        """The output for a table's headers."""
        return _Run(self._text, value, HEADER_FUNCTIONS, self._name).output(self._nodes)


class _Break(Exception):  # control flow of `break`
    pass


class _Continue(Exception):  # control flow of `continue`
    pass


class _Run:
    def __init__(
        self,
        text: str,
        value: Any,
        functions: dict[str, Any],
        name: str,
        budget: int | None = None,
        shown: Callable[[str], str] | None = None,
    ) -> None:
        self._shown = shown
        self._text = text
        self._name = name
        self._budget = budget
        self._functions = functions
        self._variables: list[tuple[str, Any]] = [("$", value)]
        self._root = value
        self._out: list[str] = []

    def output(self, nodes: list[Node]) -> str:
        self._walk(nodes, self._root)
        return "".join(self._out)

    def fail(self, node: Node, reason: str) -> TemplateError:
        line = line_of(self._text, node.offset)
        column = node.offset - (self._text.rfind("\n", 0, node.offset) + 1)
        source = node.source if len(node.source) <= _QUOTED else node.source[:_QUOTED] + "..."
        return TemplateError(
            f'template: {self._name}:{line}:{column}: executing "{self._name}" at <{source}>: {reason}'
        )

    def _spend(self, node: Node, values: Iterable[Any]) -> None:
        """Charge a step and the lengths of its values, to bound loops and repeated doubling of text."""
        if self._budget is None:
            return
        self._budget -= _STEP + sum(len(value) for value in values if isinstance(value, str | list | dict))
        if self._budget < 0:
            raise self.fail(node, "its output is too long, or takes too many steps")

    def _walk(self, nodes: Iterable[Node], dot: Any) -> None:
        for node in nodes:
            self._spend(node, (self._variables,))
            if node.kind == "text":
                self._spend(node, node.parts)
                self._out.append(node.parts[0])
            elif node.kind == "action":
                value = self._pipe(node.parts[0], dot)
                if node.parts[1]:
                    self._assign(node.parts[1][0], value)
                else:
                    self._out.append(render(value) if self._shown is None else self._shown(render(value)))
                    self._spend(node, self._out[-1:])
            elif node.kind == "range":
                self._range(node, dot)
            elif node.kind in ("if", "with"):
                self._branch(node, dot)
            elif node.kind == "break":
                raise _Break
            else:
                raise _Continue

    def _assign(self, name: str, value: Any) -> None:
        if not name.startswith("="):
            self._variables.append((name, value))
            return
        for index in range(len(self._variables) - 1, -1, -1):
            if self._variables[index][0] == name[1:]:
                self._variables[index] = (name[1:], value)
                return

    def _branch(self, node: Node, dot: Any) -> None:
        pipe, names, body, otherwise = node.parts
        scope = len(self._variables)
        value = self._pipe(pipe, dot)
        if names:
            self._assign(names[0], value)
        if truth(value):
            self._walk(body, value if node.kind == "with" else dot)
        else:
            self._walk(otherwise, dot)
        del self._variables[scope:]

    def _range(self, node: Node, dot: Any) -> None:
        pipe, names, body, otherwise = node.parts
        items = self._items(pipe, self._pipe(pipe, dot))
        if not items:
            self._walk(otherwise, dot)
            return
        self._spend(node, (items,))
        scope = len(self._variables)
        for key, item in items:
            self._spend(node, (self._variables,))
            pair = (key, item) if len(names) == 2 else (item,)
            for name, value in zip(names, pair, strict=False):
                self._assign(name, value)
            try:
                self._walk(body, item)
            except _Continue:
                continue
            except _Break:
                break
            finally:
                del self._variables[scope:]

    def _items(self, node: Node, value: Any) -> list[tuple[Any, Any]]:
        if value is None or value is NO_VALUE or isinstance(value, Nil):
            return []
        if isinstance(value, list):
            return list(enumerate(value))
        if isinstance(value, dict) and not isinstance(value, Struct):
            return sorted(value.items())
        raise self.fail(node, f"range can't iterate over {render(value)}")

    def _pipe(self, node: Node, dot: Any) -> Any:
        final: list[Any] = []
        for command in node.parts[0]:
            final = [self._command(command, dot, final)]
        return final[0]

    def _command(self, node: Node, dot: Any, final: list[Any]) -> Any:
        first, *operands = node.parts[0]
        if first.kind == "function":
            return self._call(first, operands, dot, final, node)
        if first.kind in ("field", "variable", "chain"):
            arguments = [self._operand(operand, dot) for operand in operands] + final
            return self._operand(first, dot, arguments)
        if operands or final:
            raise self.fail(first, f"can't give argument to non-function {first.source}")
        if first.kind == "nil":
            raise self.fail(first, "nil is not a command")
        return self._operand(first, dot)

    def _call(self, node: Node, operands: list[Node], dot: Any, final: list[Any], command: Node) -> Any:
        name = node.parts[0]
        function, least, most, types = self._functions[name]
        count = len(operands) + len(final)
        if count < least or (most is not None and count > most):
            wanted = f"at least {least}" if most is None else str(least)
            raise self.fail(node, f"wrong number of args for {name}: want {wanted} got {count}")
        if name in ("and", "or"):
            return self._short_circuit(name, operands, dot, final)
        arguments = [self._operand(operand, dot) for operand in operands] + final
        sources = [*operands, *[node] * len(final)]
        for value, kind, source in zip(arguments, types, sources, strict=False):
            if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
                expected = {str: "string", int: "int"}[kind]
                raise self.fail(source, f"wrong type for value; expected {expected}; got {type_name(value)}")
        return self._applied(command, name, function, arguments)

    def _applied(self, node: Node, name: str, function: Callable[..., Any], arguments: list[Any]) -> Any:
        self._spend(node, arguments)
        try:
            value = function(*arguments)
            self._spend(node, (value,))
            return value
        except TemplateError:
            raise
        except ValueError as error:
            reason = str(error) if str(error).startswith("wrong type") else f"error calling {name}: {error}"
            raise self.fail(node, reason) from None

    def _short_circuit(self, name: str, operands: list[Node], dot: Any, final: list[Any]) -> Any:
        value: Any = None
        for operand in operands:
            value = self._operand(operand, dot)
            if truth(value) == (name == "or"):
                return value
        return final[0] if final else value

    def _operand(self, node: Node, dot: Any, arguments: list[Any] | None = None) -> Any:
        kind = node.kind
        self._spend(node, (self._variables,) if kind == "variable" else ())
        if kind == "literal":
            return node.parts[0]
        if kind == "dot":
            return dot
        if kind == "nil":
            return None
        if kind == "pipe":
            return self._pipe(node, dot)
        if kind == "function":
            return self._call(node, [], dot, [], node)
        if kind == "field":
            return self._fields(node, dot, node.parts[0], arguments)
        if kind == "variable":
            name, *names = node.parts[0]
            value = next(value for known, value in reversed(self._variables) if known == name)
            return self._fields(node, value, names, arguments)
        return self._fields(node, self._operand(node.parts[0], dot), node.parts[1], arguments)

    def _fields(self, node: Node, value: Any, names: list[str], arguments: list[Any] | None) -> Any:
        for index, name in enumerate(names):
            last = index == len(names) - 1
            value = self._field(node, value, name, (arguments or []) if last else [], last=last)
        if arguments and not names:
            raise self.fail(node, f"can't give argument to non-function {node.source}")
        return value

    def _field(self, node: Node, value: Any, name: str, arguments: list[Any], *, last: bool) -> Any:
        get_field = getattr(value, "get_field", None)
        if get_field is not None:
            return self._row_field(node, get_field(name), value, name, arguments)
        if value is None or value is NO_VALUE:
            raise self.fail(node, f"nil pointer evaluating interface {{}}.{name}")
        if arguments:
            raise self.fail(node, f"{name} is not a method but has arguments")
        if isinstance(value, Struct):
            found, item = member(value, name)
            if found and (last or item is not None or name in value):
                return item
            if value.type_name:
                raise self.fail(node, f"can't evaluate field {name} in type {value.type_name}")
            raise self.fail(node, f'map has no entry for key "{name}"')
        if isinstance(value, dict):
            return value.get(name, NO_VALUE)
        untyped = isinstance(self._root, Struct) and not hasattr(self._root, "get_field")
        kind = "interface {}" if untyped else type_name(value)
        raise self.fail(node, f"can't evaluate field {name} in type {kind}")

    def _row_field(self, node: Node, field: Any, row: Any, name: str, arguments: list[Any]) -> Any:
        if field is None:
            raise self.fail(node, f"can't evaluate field {name} in type {type_name(row)}")
        function, wanted = field
        if len(arguments) != wanted:
            raise self.fail(node, f"wrong number of args for {name}: want {wanted} got {len(arguments)}")
        found = function(*arguments)
        self._spend(node, (found,))
        return found
