"""Steps: what is to be done, as values. A plan is a sequence of steps, each behind those that it names.

              +--------+        +-----------------+      +----------------+
network ----> | create | -----> | start, of what  | ---> | wait: healthy, | ---> start of what depends on it
volume  ----> |        |        | it depends on   |      | completed      |
              +--------+        +-----------------+      +----------------+
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from havre.compose.project import Project, Service


@dataclass(frozen=True)
class Call:
    """One request. An answer whose status is in `tolerated` is no failure; its text is shown instead of `done`."""

    method: str
    path: str
    query: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    tolerated: Mapping[int, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Create:
    """Create a container of a service, called `name`; with `aliases` its networks know it by the service's names."""

    project: Project
    key: str
    service: Service
    number: int
    name: str
    image: Mapping[str, Any]
    replaced: Mapping[str, Any] | None = None
    inherit: bool = True
    aliases: bool = True
    extra: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Await:
    """Wait until containers are `running_or_healthy`, `service_healthy` or `service_completed_successfully`."""

    containers: tuple[str, ...]
    service: str
    condition: str
    required: bool = True


@dataclass(frozen=True)
class Execute:
    """Run a hook in a container."""

    container: str
    hook: Mapping[str, Any]


@dataclass(frozen=True)
class Pull:
    """Pull an image."""

    image: str
    platform: str = ""
    tolerate: bool = False


@dataclass(frozen=True)
class Push:
    """Push an image."""

    image: str
    tolerate: bool = False


@dataclass(frozen=True)
class Build:
    """Build a service's image and call it `image`."""

    project: Project
    key: str
    image: str
    no_cache: bool = False
    pull: bool = False
    args: tuple[str, ...] = ()
    memory: int = 0


Action = Call | Create | Await | Execute | Pull | Push | Build


@dataclass(frozen=True)
class Step:
    """Something to do to `subject`, shown as `doing` and then `done`; without an action it tells how things are."""

    key: str
    subject: str
    doing: str
    done: str
    action: Action | None = None
    after: tuple[str, ...] = ()
