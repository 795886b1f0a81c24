"""The `filters` parameter: JSON in one of two shapes, into a map of lists.

    {"status": {"running": true, "paused": true}}    since API 1.22
    {"status": ["running", "paused"]}                before, and still what many clients send

Which keys exist is the business of the list that is filtered.
"""

from __future__ import annotations

from havre import gojson
from havre.errors import InvalidInput

_Shapes = dict[str, dict[str, bool] | list[str] | None]


def decode_filters(text: str) -> dict[str, list[str]]:
    """Decode the parameter; empty text is no filter. Raises `InvalidInput` in dockerd's words."""
    if not text:
        return {}
    try:
        shape = gojson.decode(text, _Shapes)
    except InvalidInput as error:
        raise InvalidInput("invalid filter") from error
    # The booleans say nothing: dockerd, too, looks at the keys alone.
    return {key: list(values) for key, values in shape.items() if values}
