"""Progress of long operations on images; `api` renders these values as Docker's JSON lines."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeAlias

import msgspec


class ProgressLine(msgspec.Struct, frozen=True):
    """One line. `id` names a layer (12 digits) or a tag; `current` and `total` are bytes, 0 where unknown.

    `message` lines have no progress detail in Docker's JSON, whatever their `id`. `stream` is text to print
    unchanged (load), `aux` a machine-readable value of kind `id` (the result of a push).
    """

    status: str = ""
    id: str = ""
    current: int = 0
    total: int = 0
    message: bool = False
    stream: str = ""
    aux: dict[str, Any] | str | None = None


Progress: TypeAlias = Callable[[ProgressLine], None]


def unobserved(line: ProgressLine) -> None:
    """A `Progress` that ignores all lines."""
