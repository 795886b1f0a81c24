"""Docker's `filters` parameter: decoding of its two JSON shapes, known keys, and four kinds of matching.

    {"status": {"running": true, "paused": true}}    since API 1.22
    {"status": ["running", "paused"]}                before, and still sent by many clients

Values of one key are alternatives, except labels, which must all match; all keys must match. An absent key matches
anything.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Sequence
from typing import TypeAlias

from havre.errors import InvalidInput
from havre.golang import gojson

Filters: TypeAlias = Mapping[str, Sequence[str]]

_TRUE = frozenset({"1", "true"})
_FALSE = frozenset({"0", "false"})
_Shapes = dict[str, dict[str, bool] | list[str] | None]


def decode_filters(text: str) -> dict[str, list[str]]:
    """Decode the parameter; empty text means no filter. Raises `InvalidInput` in dockerd's words."""
    if not text:
        return {}
    try:
        shape = gojson.decode(text, _Shapes)
    except InvalidInput as error:
        raise InvalidInput("invalid filter") from error
    # Like dockerd, ignore the booleans.
    return {key: list(values) for key, values in shape.items() if values}


def check_keys(filters: Filters, known: Collection[str]) -> None:
    """Reject an unknown key, in Docker's words."""
    for key in filters:
        if key not in known:
            raise InvalidInput(f"invalid filter '{key}'", f"known filters: {', '.join(sorted(known))}")


def matches_exactly(filters: Filters, key: str, source: str) -> bool:
    """Report whether `source` equals one of the key's values."""
    values = filters.get(key)
    return not values or source in values


def matches_prefix(filters: Filters, key: str, source: str) -> bool:
    """Report whether `source` begins with one of the key's values."""
    values = filters.get(key)
    return not values or any(source.startswith(value) for value in values)


def matches_pattern(filters: Filters, key: str, *sources: str) -> bool:
    """Report whether any of `sources` equals a value, or contains a match of it as a regular expression."""
    values = filters.get(key)
    return not values or any(_found(value, source) for value in values for source in sources)


def _found(pattern: str, source: str) -> bool:
    if pattern == source:
        return True
    try:
        return re.search(pattern, source) is not None
    except re.error:
        return False


def matches_labels(filters: Filters, labels: Mapping[str, str] | None) -> bool:
    """`label=KEY` and `label=KEY=VALUE` must all hold; `label!=...` must all fail."""
    labels = labels or {}
    wanted, unwanted = filters.get("label", ()), filters.get("label!", ())
    return all(_has_label(labels, value) for value in wanted) and not any(
        _has_label(labels, value) for value in unwanted
    )


def _has_label(labels: Mapping[str, str], wanted: str) -> bool:
    key, given, value = wanted.partition("=")
    return key in labels and (not given or labels[key] == value)


def boolean(filters: Filters, key: str) -> bool | None:
    """The value of a boolean filter; None if absent."""
    values = filters.get(key)
    if not values:
        return None
    if len(values) == 1 and values[0].lower() in _TRUE:
        return True
    if len(values) == 1 and values[0].lower() in _FALSE:
        return False
    raise InvalidInput(f"invalid filter '{key}={list(values)}'", "expected one of 1, true, 0, false")
