"""Listings: rows of named fields, printed as a table, as JSON lines, or through a Go template.

    (none), table          the listing's own columns, aligned
    table TEMPLATE         the template once for the header and once a row, aligned
    json                   one object a row with every field
    TEMPLATE               the template once a row

Aligning follows Go's text/tabwriter as docker sets it up: cells padded by 3, at least 10 wide, the last cell as it is.
"""

from __future__ import annotations

from havre.errors import InvalidInput
from havre.visible import Drawn, for_terminal, visible

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import Any

    Field = tuple[str, Callable[..., Any]]
    Fields = Mapping[str, Field]

_PADDING = 3


class Listing:
    """A kind of listing.

    type_name   Go's name of docker's row type, for error texts
    fields      name in templates: its header and the function from a row's value to the text shown
    columns     the fields of the default table
    hidden      fields that take an argument or are not in the JSON form
    raw         the labels of the fields in the form `raw`, one per line
    """

    __slots__ = ("columns", "fields", "hidden", "raw", "type_name")

    def __init__(
        self,
        type_name: str,
        fields: Mapping[str, Field],
        columns: Sequence[str],
        hidden: Sequence[str] = (),
        raw: Mapping[str, str] | None = None,
    ) -> None:
        self.raw = raw
        self.type_name = type_name
        self.fields = fields
        self.columns = columns
        self.hidden = hidden

    def render(self, rows: Iterable[Any], form: str) -> str:
        """All rows in the form of `--format`. Raises InvalidInput for an invalid template."""
        if form in ("", "table"):
            functions = [self.fields[name][1] for name in self.columns]
            lines = [[self.fields[name][0] for name in self.columns]]
            lines += [[str(function(row)) for function in functions] for row in rows]
            return align(lines)
        if form == "raw" and self.raw is not None:
            return "".join(self._raw(row, self.raw) for row in rows)
        if form == "json":
            return "".join(self._json(row) for row in rows)
        return self._through_template(rows, form)

    def _raw(self, row: Any, names: Mapping[str, str]) -> str:
        lines = [f"{name}: {self.fields[field][1](row)}".rstrip(" ") for name, field in names.items()]
        return "\n".join(lines) + "\n\n"

    def values(self, row: Any) -> dict[str, Any]:
        """Every field of a row, by name."""
        return {name: self.fields[name][1](row) for name in sorted(self.fields) if name not in self.hidden}

    def _json(self, row: Any) -> str:
        from havre.golang.jsontext import encode

        return encode(self.values(row), escape_html=True) + "\n"

    def _through_template(self, rows: Iterable[Any], form: str) -> str:
        from havre.cli.format.rows import Blank, Headers, Row
        from havre.golang.templates.lex import TemplateError
        from havre.golang.templates.template import compile_template

        with_header = form.startswith("table")
        text = (form.removeprefix("table") if with_header else form).strip(" ")
        try:
            template = compile_template(text.replace("\\t", "\t").replace("\\n", "\n"))
        except TemplateError as error:
            raise InvalidInput(f"failed to parse template: {error}") from error
        rows = list(rows)
        try:
            if not rows:
                Blank(self).check(template)
            shown = visible if with_header else for_terminal()
            output = "".join(template.execute(Row(self, row), shown=shown) + "\n" for row in rows)
        except TemplateError as error:
            raise InvalidInput(f"failed to execute template: {error}") from error
        if not with_header:
            return Drawn(output)
        header = template.execute_header(Headers(self)) + "\n"
        return Drawn(pad([line.split("\t") for line in (header + output).split("\n")[:-1]]))


def align(lines: list[list[str]], *, least: int = 10) -> str:
    """Lines of cells as `pad` aligns them, with control characters made visible."""
    return pad([[visible(cell) for cell in line] for line in lines], least=least)


def pad(lines: list[list[str]], *, least: int = 10) -> str:
    """Lines of cells as text, with columns aligned and at least `least` wide.

    A column ends at the first line without its cell.
    """
    widths = [[0] * (len(line) - 1) for line in lines]
    for row, line in enumerate(lines):
        for column in range(len(line) - 1):
            if widths[row][column]:
                continue
            end = row
            while end < len(lines) and len(lines[end]) - 1 > column:
                end += 1
            longest = max(len(lines[i][column]) for i in range(row, end))
            for i in range(row, end):
                widths[i][column] = max(longest + _PADDING, least)
    text = []
    for line, wide in zip(lines, widths, strict=True):
        text.append("".join(cell.ljust(space) for cell, space in zip(line, wide, strict=False)) + line[-1])
    return "\n".join(text) + "\n"


def label_text(labels: Mapping[str, str] | None) -> str:
    """Labels as `a=b,c=d`."""
    return ",".join(f"{key}={value}" for key, value in sorted((labels or {}).items()))
