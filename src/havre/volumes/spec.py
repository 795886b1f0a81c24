"""The values of a volume, and the checks of a new one. Pure.

Error messages are dockerd's. Source: Docker Engine API, "Volumes"; mount(8) for the options of the driver `local`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import msgspec

from havre.errors import Conflict, Failed, InvalidInput
from havre.golang.units import parse_size
from havre.linux.room import hint_when_full
from havre.wire.values import Value

ANONYMOUS = "com.docker.volume.anonymous"
"""The label of an anonymous volume."""

LOCAL = "local"
"""The built-in driver; every other driver is a plugin."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_NAME_MAX = 255
_OPTIONS = ("type", "device", "o", "size")
_COMPANIONS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}


class UsageData(Value):
    """Disk usage in bytes, and the number of containers that use the volume."""

    size: int
    ref_count: int


class Volume(Value):
    """A volume as `inspect` shows it and as stored; `usage_data` only where asked for.

    `mountpoint` and `status` of a plugin's volume are reported by the plugin and not stored.
    """

    name: str
    created_at: str
    mountpoint: str
    driver: str = LOCAL
    labels: dict[str, str] | None = None
    options: dict[str, str] | None = None
    scope: str = "local"
    status: dict[str, Any] | msgspec.UnsetType = msgspec.UNSET
    usage_data: UsageData | msgspec.UnsetType = msgspec.UNSET

    @property
    def is_closed(self) -> bool:
        """Report whether its files are only in the data root, where users of the host cannot run its set-user-ID
        files."""
        return self.driver == LOCAL and not self.options


@dataclass(frozen=True, slots=True)
class Pruned:
    """The names of the volumes removed, and the bytes freed."""

    deleted: tuple[str, ...]
    reclaimed: int


def check_name(name: str) -> None:
    """Refuse names that dockerd refuses."""
    if len(name) == 1:
        raise InvalidInput(
            f"create {name}: volume name is too short, names should be at least two alphanumeric characters"
        )
    if _NAME.fullmatch(name) is None or len(name) > _NAME_MAX:
        raise InvalidInput(
            f'create {name}: "{name}" includes invalid characters for a local volume name, '
            'only "[a-zA-Z0-9][a-zA-Z0-9_.-]" are allowed. '
            "If you intended to pass a host directory, use absolute path"
        )


def check_options(name: str, options: Mapping[str, str]) -> None:
    """Refuse options unknown to the driver `local`, incomplete ones, and sizes other than 0 (no limit)."""
    for key in options:
        if key not in _OPTIONS:
            raise InvalidInput(f'create {name}: invalid option: "{key}"', f"known: {', '.join(_OPTIONS)}")
    for key, companions in _COMPANIONS.items():
        for missing in (each for each in companions if options.get(key) and not options.get(each)):
            raise InvalidInput(f'create {name}: missing required option: "{missing}"')
    if "size" in options:
        try:
            size = parse_size(options["size"])
        except ValueError as error:
            raise InvalidInput(f"create {name}: {error}", "expected a number such as 64m") from None
        if size > 0:
            raise InvalidInput(f"create {name}: quota size requested but no quota support")


def check_driver(volume: Volume, driver: str) -> None:
    """Refuse if the volume belongs to another driver than `driver`; empty matches any."""
    if driver and driver != volume.driver:
        raise Conflict(
            f"create {volume.name}: driver '{volume.driver}' already has volume '{volume.name}': "
            "volume name must be unique"
        )


def rfc3339(seconds: float | None = None) -> str:
    """A time, by default now, as RFC 3339 in whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@contextmanager
def attempt(what: str) -> Iterator[None]:
    """Translate OSError in a block to `Failed` with `what` as a prefix."""
    try:
        yield
    except OSError as error:
        raise Failed(f"{what}: {error}", hint_when_full(error)) from error
