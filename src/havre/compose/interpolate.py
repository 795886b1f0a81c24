"""Variable substitution: `$NAME`, `${NAME}` with its modifiers, and `$$` for a dollar sign.

    ${A:-text} ${A-text}    text when A is unset (with the colon: or empty)
    ${A:+text} ${A+text}    text when A is set (with the colon: and not empty)
    ${A:?text} ${A?text}    an error with text when A is unset (with the colon: or empty)

Texts may contain variables again. In fields that are not text, the result is parsed as the field's type.

Source: the Compose specification, "Interpolation".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from havre.compose.timestamps import Timestamp
from havre.compose.tree import LIST_ENTRY, Path, Rules
from havre.compose.yamlread import Document, key_path
from havre.errors import InvalidInput
from havre.golang.scalars import float32

_NAME = re.compile(r"[_a-zA-Z][_a-zA-Z0-9]*")
_MODIFIER = re.compile(r":?[-+?]")


class Variables:
    """The values to substitute; collects the names of unset variables in `missing`."""

    def __init__(self, values: Mapping[str, str]) -> None:
        self.values = values
        self.missing: list[str] = []

    def get(self, name: str) -> str | None:
        """The value, or None."""
        return self.values.get(name)

    def miss(self, name: str) -> str:
        """Record an unset variable; returns the empty text."""
        if name not in self.missing:
            self.missing.append(name)
        return ""


def substitute(text: str, variables: Variables) -> str:
    """`text` with variables substituted. Raises ValueError with the reason."""
    parts = []
    end = 0
    while (start := text.find("$", end)) >= 0:
        parts.append(text[end:start])
        part, end = _variable(text, start, variables)
        parts.append(part)
    return "".join(parts) + text[end:]


def _variable(text: str, start: int, variables: Variables) -> tuple[str, int]:
    """The value of the variable at `start`, and the offset after it."""
    if text.startswith("$$", start):
        return "$", start + 2
    braced = text.startswith("${", start)
    match = _NAME.match(text, start + (2 if braced else 1))
    if not braced:
        if match is None:
            return "$", start + 1
        value = variables.get(match[0])
        return variables.miss(match[0]) if value is None else value, match.end()
    close = _closing_brace(text, start + 1)
    modifier = _MODIFIER.match(text, match.end()) if match else None
    if match is None or close < 0 or (modifier is None and match.end() != close):
        raise ValueError(f"invalid interpolation format: {text!r}; write $$ for a dollar sign")
    if modifier is None:
        value = variables.get(match[0])
        return variables.miss(match[0]) if value is None else value, close + 1
    return _modified(match[0], modifier[0], text[modifier.end() : close], variables), close + 1


def _closing_brace(text: str, start: int) -> int:
    depth = 0
    for index in range(start, len(text)):
        if text[index] == "{" and text[index - 1] == "$":
            depth += 1
        elif text[index] == "}":
            depth -= 1
            if depth == 0:
                return index
    return -1


def _modified(name: str, modifier: str, text: str, variables: Variables) -> str:
    value = variables.get(name)
    present = value is not None and (value != "" or ":" not in modifier)
    if modifier.endswith("-"):
        return value or "" if present else substitute(text, variables)
    if modifier.endswith("+"):
        return substitute(text, variables) if present else value or ""
    if not present:
        reason = substitute(text, variables)
        raise ValueError(f"required variable {name} is missing a value" + (f": {reason}" if reason else ""))
    return value or ""


def _boolean(text: str) -> bool:
    if text.lower() in ("true", "y", "yes", "on"):
        return True
    if text.lower() in ("false", "n", "no", "off"):
        return False
    raise ValueError(f"invalid boolean: {text}")


def _whole(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise ValueError(f"expected a whole number, found {text!r}") from None


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        raise ValueError(f"expected a number, found {text!r}") from None


def _single(text: str) -> float:
    return float32(_number(text))


_SERVICE_CASTS: dict[Callable[[str], Any], str] = {
    _boolean: "init healthcheck.disable oom_kill_disable privileged read_only stdin_open tty volumes.*.read_only "
    "volumes.*.volume.nocopy",
    _whole: "configs.*.mode cpu_count cpu_period cpu_quota cpu_rt_period cpu_rt_runtime cpu_shares deploy.replicas "
    "deploy.update_config.parallelism deploy.rollback_config.parallelism deploy.restart_policy.max_attempts "
    "deploy.placement.max_replicas_per_node healthcheck.retries oom_score_adj pids_limit ports.*.target scale "
    "secrets.*.mode ulimits.* ulimits.*.hard ulimits.*.soft",
    _number: "cpu_percent deploy.update_config.max_failure_ratio deploy.rollback_config.max_failure_ratio",
    _single: "cpus",
}
_CASTS = Rules(
    {f"services.*.{name}": cast for cast, names in _SERVICE_CASTS.items() for name in names.split()}
    | {f"networks.*.{name}": _boolean for name in ("external", "internal", "attachable", "enable_ipv4", "enable_ipv6")}
    | {f"{kind}.*.external": _boolean for kind in ("volumes", "secrets", "configs")}
)


def interpolate(document: Document, variables: Variables) -> Any:
    """The document's value with all variables substituted; keys are unchanged. Raises InvalidInput with the
    position."""

    def go(value: Any, path: Path, shape: Path) -> Any:
        if isinstance(value, dict):
            return {key: go(member, (*path, key), (*shape, key)) for key, member in value.items()}
        if isinstance(value, list):
            return [go(member, (*path, str(i)), (*shape, LIST_ENTRY)) for i, member in enumerate(value)]
        if not isinstance(value, str) or isinstance(value, Timestamp):
            return value
        try:
            text = substitute(value, variables)
            cast: Callable[[str], Any] | None = _CASTS.find(shape)
            return text if cast is None else cast(text)
        except ValueError as error:
            raise InvalidInput(f"{document.file}:{document.line(path)}: {key_path(path)}: {error}") from error

    return go(document.value, (), ())
