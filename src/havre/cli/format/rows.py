"""A listing's row, and its headers, as values for templates."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from havre.cli.format.table import Listing
    from havre.golang.templates.template import Template


class Row:
    """One row; its fields are the listing's."""

    def __init__(self, listing: Listing, value: Any) -> None:
        self._listing = listing
        self._value = value
        self.type_name = listing.type_name

    def get_field(self, name: str) -> tuple[Callable[..., Any], int] | None:
        """The function of a field and the number of its arguments."""
        if name not in self._listing.fields:
            return None
        function = self._listing.fields[name][1]
        takes = 1 if name in self._listing.hidden else 0
        return (lambda *arguments: function(self._value, *arguments)), takes

    def as_json(self) -> dict[str, Any]:
        """Every field, as `{{json .}}` shows the row."""
        return self._listing.values(self._value)


class Blank(Row):
    """The row of an empty listing: a template with an unknown field is an error even without rows."""

    def __init__(self, listing: Listing) -> None:
        super().__init__(listing, None)

    def get_field(self, name: str) -> tuple[Callable[..., Any], int] | None:
        """The empty text for every known field."""
        found = super().get_field(name)
        return None if found is None else ((lambda *_: ""), found[1])

    def as_json(self) -> dict[str, Any]:
        """Every field, empty."""
        return dict.fromkeys(self._listing.fields, "")

    def check(self, template: Template) -> None:
        """Raise TemplateError for an unknown field; other errors may be caused by the empty texts."""
        from havre.golang.templates.lex import TemplateError

        try:
            template.execute(self)
        except TemplateError as error:
            if "can't evaluate field" in str(error) and str(error).endswith(self.type_name):
                raise


class Headers:
    """The headers of a listing's fields."""

    type_name = "formatter.SubHeaderContext"

    def __init__(self, listing: Listing) -> None:
        self._listing = listing

    def get_field(self, name: str) -> tuple[Callable[..., str], int]:
        """A field's header; that of a label is its name in words."""
        if name in self._listing.hidden:
            return _label_header, 1
        field = self._listing.fields.get(name)
        return (lambda: field[0] if field else "<no value>"), 0


def _label_header(label: str) -> str:
    return label.rpartition(".")[2].replace("-", " ").replace("_", " ")
