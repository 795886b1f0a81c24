"""Parses YAML to plain values, with the line of every key, and docker's two tags.

Scalars are resolved by YAML 1.2's core schema, plus the octal and binary integers and the times that docker still reads
(`0440`, `2001-01-01`), so `yes`, `on` and `12:30` stay text; `!!str` makes text. `!reset` drops the node, `!override`
replaces instead of merging: both are returned as lists of paths. No tag constructs objects; unknown ones are ignored,
and code never runs.

Source: https://yaml.org/spec/1.2.2/#103-core-schema; the Compose specification, "Merge".
Why: docs/decisions/180.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import yaml

from havre.compose.timestamps import Timestamp, parse_timestamp
from havre.errors import InvalidInput

Path = tuple[str, ...]

_YAML: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
_MERGE, _TEXT = "tag:yaml.org,2002:merge", "tag:yaml.org,2002:str"
_INTEGER = re.compile(r"[-+]?(?:0b[01_]+|0o?[0-7_]*|0x[0-9a-fA-F_]+|[1-9][0-9_]*)$")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$")
_SPECIAL = {".inf": float("inf"), "+.inf": float("inf"), "-.inf": float("-inf"), ".nan": float("nan")}
_WORDS = {"": None, "~": None, "null": None, "Null": None, "NULL": None, "true": True, "True": True, "TRUE": True,
          "false": False, "False": False, "FALSE": False}  # fmt: skip
_NODES_LIMIT = 200_000  # aliases can expand a small file into a huge tree


class _Loader(_YAML):  # type: ignore[misc]
    """Leaves implicit tags unresolved, so that explicit ones can be recognised."""

    def resolve(self, kind: Any, value: Any, implicit: Any) -> str:
        """The tag of a node that has none."""
        return _MERGE if value == "<<" and implicit[0] else ""


class InvalidYaml(InvalidInput):
    """The text is not YAML, or not a mapping of text keys."""


class Document:
    """One YAML document: its value, the line (from 1) of each key and list entry, and the paths of docker's tags."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.value: Any = None
        self.lines: dict[Path, int] = {}
        self.resets: list[Path] = []

    def line(self, path: Path) -> int:
        """The line of `path`, or of the nearest parent that has one."""
        while path and path not in self.lines:
            path = path[:-1]
        return self.lines.get(path, 1)

    def where(self, path: Path) -> str:
        """`FILE:LINE: KEY PATH` for a message."""
        return f"{self.file}:{self.line(path)}: {key_path(path)}"


def key_path(path: Path) -> str:
    """`services.web.ports[0]` for a path whose list positions are written "0", "1" ..."""
    text = ""
    for part in path:
        text += f"[{part}]" if part.isdigit() and text else f".{part}" if text else part
    return text or "(top level)"


def read_documents(text: str, file: str) -> Iterator[Document]:
    """The documents of a file. Raises InvalidYaml with the line."""
    try:
        for node in yaml.compose_all(text, Loader=_Loader):
            document = Document(file)
            document.value = _Builder(document).build(node, ())
            yield document
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise InvalidYaml(f"{file}:{line}: {error.problem or error.context}") from error
    except yaml.YAMLError as error:
        raise InvalidYaml(f"{file}: {error}") from error


class _Builder:
    def __init__(self, document: Document) -> None:
        self._document = document
        self._open: set[int] = set()
        self._count = 0

    def build(self, node: Any, path: Path) -> Any:
        """The value of a node; `_DROPPED` where it is tagged `!reset`."""
        self._count += 1
        if self._count > _NODES_LIMIT:
            raise InvalidYaml(f"{self._document.file}: aliases make this file larger than {_NODES_LIMIT} values")
        self._document.lines.setdefault(path, node.start_mark.line + 1)
        if node.tag == "!reset":
            self._document.resets.append(path)
            return _DROPPED
        if node.tag == "!override":
            self._document.resets.append(path)
        if isinstance(node, yaml.ScalarNode):
            return _scalar(node)
        if id(node) in self._open:
            line = node.start_mark.line + 1
            raise InvalidYaml(f"{self._document.file}:{line}: {key_path(path)}: an alias contains itself")
        self._open.add(id(node))
        value = self._mapping(node, path) if isinstance(node, yaml.MappingNode) else self._sequence(node, path)
        self._open.discard(id(node))
        return value

    def _sequence(self, node: Any, path: Path) -> list[Any]:
        values = (self.build(child, (*path, str(index))) for index, child in enumerate(node.value))
        return [value for value in values if value is not _DROPPED]

    def _mapping(self, node: Any, path: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        seen: dict[str, int] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if key_node.tag == _MERGE:
                for base in self._bases(value_node, path):
                    merged = {**base, **merged}
                continue
            key = self._key(key_node, path)
            if key in seen:
                raise InvalidYaml(
                    f"{self._document.file}:{line}: {key_path((*path, key))}: "
                    f"the key is already defined at line {seen[key]}"
                )
            seen[key] = line
            self._document.lines[(*path, key)] = line
            value = self.build(value_node, (*path, key))
            if value is not _DROPPED:
                own[key] = value
        return {**merged, **own}

    def _bases(self, node: Any, path: Path) -> list[dict[str, Any]]:
        nodes = node.value if isinstance(node, yaml.SequenceNode) else [node]
        bases = [self.build(child, path) for child in nodes]
        for base in bases:
            if not isinstance(base, dict):
                line = node.start_mark.line + 1
                raise InvalidYaml(f"{self._document.file}:{line}: {key_path(path)}: << wants a mapping")
        return bases

    def _key(self, node: Any, path: Path) -> str:
        key = _scalar(node) if isinstance(node, yaml.ScalarNode) else None
        if isinstance(key, str) and not isinstance(key, Timestamp):
            return key
        shown = node.value if isinstance(node, yaml.ScalarNode) else "a list or mapping"
        raise InvalidYaml(
            f"{self._document.file}:{node.start_mark.line + 1}: {key_path(path)}: the key {shown} is not text",
            "quote it",
        )


_DROPPED = object()


def _scalar(node: Any) -> Any:
    text: str = node.value
    return text if node.style or node.tag == _TEXT else resolve(text)


def resolve(text: str) -> Any:
    """The value of a plain scalar: null, a truth value, an integer, a float, a time, or text."""
    if text in _WORDS:
        return _WORDS[text]
    if not (text[0].isdigit() or text[0] in "+-."):
        return text
    if _INTEGER.match(text):
        return _integer(text.replace("_", ""))
    if _FLOAT.match(text) and not text.endswith("_"):
        return float(text.replace("_", ""))
    return _SPECIAL.get(text.lower()) or parse_timestamp(text) or text


def _integer(text: str) -> int:
    digits = text.lstrip("+-")
    if digits.startswith("0") and digits[1:].isdigit():
        digits = "0o" + digits[1:]
    return int(digits, 0) * (-1 if text.startswith("-") else 1)
