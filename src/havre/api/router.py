"""Routing: one table of methods and path patterns, indexed by method and first segment.

A pattern's `{name}` matches slashes, because image and volume names may contain them; more specific patterns are
registered first. The prefix `/vX.Y` is removed before.

Source: Docker Engine API, "paths"; moby's api/server/router.
"""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from typing import TypeAlias

from aiohttp import web

from havre.api.call import Call

Handler: TypeAlias = Callable[[Call], Awaitable[web.StreamResponse]]

_FIELD = re.compile(r"\{([a-z_]+)\}")


class Router:
    """The table. `routes` lists its entries, for tests that check every route."""

    def __init__(self) -> None:
        self._by_head: dict[tuple[str, str], list[tuple[re.Pattern[str], Handler]]] = {}
        self.routes: dict[tuple[str, str], Handler] = {}

    def add(self, method: str, pattern: str, handler: Handler) -> None:
        """Register `handler` for a pattern such as `/containers/{name}/json`."""
        compiled = re.compile(_FIELD.sub(r"(?P<\1>.+)", pattern.replace(".", r"\.")), re.DOTALL)
        self._by_head.setdefault((method, _head(pattern)), []).append((compiled, handler))
        self.routes[method, pattern] = handler

    def find(self, method: str, path: str) -> tuple[Handler, dict[str, str]] | None:
        """The handler of a decoded path, and its fields; None if there is none."""
        for pattern, handler in self._by_head.get((method, _head(path)), ()):
            if match := pattern.fullmatch(path):
                return handler, match.groupdict()
        return None


def _head(path: str) -> str:
    return path[1:].partition("/")[0]
