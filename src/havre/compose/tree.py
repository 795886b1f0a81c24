"""Paths into a tree of mappings and lists, and tables of rules by path pattern such as `services.*.build.args`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

Path = tuple[str, ...]
Rule = TypeVar("Rule")
Change = Callable[[Any, Path], Any]

LIST_ENTRY = "[]"
"""Stands for any list position in a path that is matched against patterns."""


class Rules:
    """Rules by pattern: `*` stands for any one key or list entry. Patterns of one length never overlap."""

    def __init__(self, table: Mapping[str, Rule]) -> None:
        self._by_length: dict[int, list[tuple[Path, Any]]] = {}
        for pattern, rule in table.items():
            parts = tuple(pattern.split("."))
            self._by_length.setdefault(len(parts), []).append((parts, rule))

    def find(self, path: Path) -> Any:
        """The rule for a path, or None."""
        for pattern, rule in self._by_length.get(len(path), ()):
            if all(want in ("*", part) for want, part in zip(pattern, path, strict=True)):
                return rule
        return None


def change(value: Any, rules: Rules, path: Path = ()) -> Any:
    """`value` with each part that matches a rule replaced by the rule's result; results are not processed again."""
    rule: Change | None = rules.find(path)
    if rule is not None:
        return rule(value, path)
    return change_below(value, rules, path)


def change_below(value: Any, rules: Rules, path: Path) -> Any:
    """`change` for the members of `value`."""
    if isinstance(value, dict):
        return {key: change(member, rules, (*path, key)) for key, member in value.items()}
    if isinstance(value, list):
        return [change(member, rules, (*path, LIST_ENTRY)) for member in value]
    return value
