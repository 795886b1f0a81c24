"""What a volume is: its values, and what is refused of a new one. Pure.

Texts of errors are Docker's. Source: Docker Engine API, "Volumes"; mount(8) for the options of driver `local`.
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
"""The label of a volume that nobody gave a name."""

LOCAL = "local"
"""The driver that is the engine's own; every other one is a plugin."""

_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_NAME_MAX = 255
_OPTIONS = ("type", "device", "o", "size")
_COMPANIONS = {"device": ("type",), "type": ("device",), "o": ("device", "type")}


class UsageData(Value):
    """How much a volume holds, in bytes, and how many containers use it."""

    size: int
    ref_count: int


class Volume(Value):
    """A volume as `inspect` shows it and as it is persisted; `usage_data` only where it was asked for.

    `mountpoint` and `status` of a plugin's volume are told by the plugin and not persisted.
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
        """Whether its files lie in the data root alone, where set-user-ID files of theirs are out of users' reach."""
        return self.driver == LOCAL and not self.options


@dataclass(frozen=True, slots=True)
class Pruned:
    """The names of the volumes that went, and the bytes freed."""

    deleted: tuple[str, ...]
    reclaimed: int


def check_name(name: str) -> None:
    """Refuse what Docker refuses as the name of a volume."""
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
    """Refuse options that driver `local` does not know, that lack their companions, and sizes but 0 (no limit)."""
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
    """Refuse to take the volume for one of another driver; an empty `driver` is any."""
    if driver and driver != volume.driver:
        raise Conflict(
            f"create {volume.name}: driver '{volume.driver}' already has volume '{volume.name}': "
            "volume name must be unique"
        )


def rfc3339(seconds: float | None = None) -> str:
    """A time, by default now, in whole seconds."""
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@contextmanager
def attempt(what: str) -> Iterator[None]:
    """Translate the kernel's failures in a block, saying what was attempted."""
    try:
        yield
    except OSError as error:
        raise Failed(f"{what}: {error}", hint_when_full(error)) from error
