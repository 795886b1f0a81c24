"""A row of a listing, and its headers, as values that a template can look into."""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from havre.cli.format.table import Listing


class Row:
    """One row; its fields are the listing's."""

    def __init__(self, listing: Listing, value: Any) -> None:
        self._listing = listing
        self._value = value
        self.type_name = listing.type_name

    def get_field(self, name: str) -> tuple[Callable[..., Any], int] | None:
        """The function behind a field and how many arguments it wants."""
        if name not in self._listing.fields:
            return None
        function = self._listing.fields[name][1]
        takes = 1 if name in self._listing.hidden else 0
        return (lambda *arguments: function(self._value, *arguments)), takes

    def as_json(self) -> dict[str, Any]:
        """Every field, as `{{json .}}` shows the row."""
        return self._listing.values(self._value)


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
