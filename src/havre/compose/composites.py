"""The kinds that are made of others: mappings with known keys, lists and mappings of one kind.

An error in a member names the path to it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from havre.compose.kinds import JSON, YAML, Command, Found, Kind, described
from havre.compose.tree import Path
from havre.compose.yamlwrite import natural_key, sort_deep

_KEYS_TOLD = 12


class Key(NamedTuple):
    """A key of a mapping.

    always    written even when it is empty
    pointer   omitted only when it was not given, so that 0 and false are written
    names     its name in YAML and in JSON where these differ from the key
    """

    name: str
    kind: Kind
    always: str = ""
    pointer: bool = False
    json_name: str = ""


class Struct(Kind):
    """A mapping with known keys, in the order in which they are written, and `x-` extensions."""

    def __init__(
        self,
        noun: str,
        keys: Sequence[Key],
        *,
        short: Kind | None = None,
        required: tuple[str, ...] = (),
        null: bool = False,
        extensible: bool = True,
        sole: str = "",
    ) -> None:
        self.noun = noun
        self.keys = keys
        self.short = short
        self.required = required
        self.null = null
        self.extensible = extensible
        self.sole = sole
        self.by_name = {key.name: key for key in keys}

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"{self.short.expected} or a mapping" if self.short else "a mapping"

    def accepts(self, value: Any) -> bool:
        fits_short = self.short is not None and self.short.accepts(value)
        return isinstance(value, dict) or fits_short or (self.null and value is None)

    def problems(self, value: Any, path: Path) -> Found:
        if not self.accepts(value):
            yield path, f"expected {self.expected}, found {described(value)}", None
        elif isinstance(value, dict):
            yield from self._key_problems(value, path)
        elif self.short is not None and value is not None:
            yield from self.short.problems(value, path)

    def _key_problems(self, value: dict[str, Any], path: Path) -> Found:
        for name, member in value.items():
            key = self.by_name.get(name)
            if key is not None:
                yield from key.kind.problems(member, (*path, name))
            elif not (self.extensible and name.startswith("x-")):
                yield (*path, name), f"unknown key of {self.noun}", self._nearest(name)
        for name in self.required:
            if name not in value:
                yield path, f"the key {name!r} is missing", None

    def _nearest(self, name: str) -> str | None:
        from difflib import get_close_matches

        near = get_close_matches(name, self.by_name, 1, 0.6)
        if near:
            return f"did you mean {near[0]!r}?"
        return "its keys are " + ", ".join(sorted(self.by_name)) if len(self.keys) <= _KEYS_TOLD else None

    def read(self, value: Any) -> Any:
        if value is None:
            return {}
        result: dict[str, Any] = {}
        for key in self.keys:
            if key.name in value and (value[key.name] is not None or isinstance(key.kind, Command | Struct)):
                if value[key.name] is None and not isinstance(key.kind, Command):
                    continue
                result[key.name] = _read_at(key.kind, value[key.name], key.name)
        result.update({name: member for name, member in value.items() if name.startswith("x-") and self.extensible})
        return result

    def absent(self, value: Any, form: str) -> bool:
        if form == JSON or value is None:
            return value is None
        return all(name in self.by_name and self._left_out(self.by_name[name], value, form) for name in value)

    def _left_out(self, key: Key, value: dict[str, Any], form: str) -> bool:
        member = value.get(key.name)
        if form in key.always:
            return False
        if key.pointer:
            return member is None
        if isinstance(key.kind, Struct) and form == JSON:
            return False  # Go's encoder never omits a struct that is a value
        return member is None or key.kind.absent(member, form)

    def dump(self, value: Any, form: str) -> Any:
        if value is None:
            return None
        result: dict[str, Any] = {}
        for key in self.keys:
            if not self._left_out(key, value, form):
                member = value.get(key.name)
                zero: Any = {} if isinstance(key.kind, Struct) else None
                name = (key.json_name or key.name) if form == JSON else key.name
                result[name] = zero if member is None and not zero else key.kind.dump(member, form)
                if member is None and isinstance(key.kind, Struct):
                    result[name] = key.kind.dump({}, form)
        if form == YAML:
            extensions = sorted((name for name in value if name.startswith("x-")), key=natural_key)
            result.update({name: sort_deep(value[name]) for name in extensions})
        return result


def _read_at(kind: Kind, value: Any, name: str) -> Any:
    try:
        return kind.read(value)
    except ReadError as error:
        raise ReadError((name, *error.path), error.reason) from error
    except (ValueError, OverflowError) as error:
        raise ReadError((name,), str(error)) from error


class ReadError(ValueError):
    """An error in a value, with its path."""

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(reason)
        self.path = path
        self.reason = reason


class ListOf(Kind):
    """A list of one kind."""

    def __init__(self, item: Kind, *, short: Kind | None = None) -> None:
        self.item = item
        self.short = short

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"{self.short.expected} or a list" if self.short else "a list"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, list) or (self.short is not None and self.short.accepts(value))

    def problems(self, value: Any, path: Path) -> Found:
        yield from super().problems(value, path)
        for index, member in enumerate(value if isinstance(value, list) else ()):
            yield from self.item.problems(member, (*path, str(index)))

    def read(self, value: Any) -> Any:
        return [_read_at(self.item, member, str(index)) for index, member in enumerate(value)]

    def dump(self, value: Any, form: str) -> Any:
        return [self.item.dump(member, form) for member in value]


class MapOf(Kind):
    """A mapping with user-defined names; `null` members are preserved with `keep_null`."""

    def __init__(
        self,
        item: Kind,
        name_problem: Callable[[str], str | None] = lambda _: None,
        *,
        short: Kind | None = None,
        keep_null: bool = False,
    ) -> None:
        self.item = item
        self.name_problem = name_problem
        self.short = short
        self.keep_null = keep_null

    @property
    def expected(self) -> str:  # type: ignore[override]
        return f"{self.short.expected} or a mapping" if self.short else "a mapping"

    def accepts(self, value: Any) -> bool:
        return isinstance(value, dict) or (self.short is not None and self.short.accepts(value))

    def problems(self, value: Any, path: Path) -> Found:
        if not isinstance(value, dict):
            if self.short is not None and self.short.accepts(value):
                yield from self.short.problems(value, path)
            else:
                yield path, f"expected {self.expected}, found {described(value)}", None
            return
        for name, member in value.items():
            if problem := self.name_problem(name):
                yield (*path, name), problem, None
            elif not (member is None and self.keep_null):
                yield from self.item.problems(member, (*path, name))

    def read(self, value: Any) -> Any:
        return {
            name: None if member is None and self.keep_null else _read_at(self.item, member, name)
            for name, member in value.items()
        }

    def dump(self, value: Any, form: str) -> Any:
        names = sorted(value, key=natural_key) if form == YAML else sorted(value)
        return {name: None if value[name] is None else self.item.dump(value[name], form) for name in names}
