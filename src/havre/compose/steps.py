"""Steps of a plan, as values. A plan is a sequence of steps, each with the steps that it waits for.

           +--------+        +-----------------+      +----------------+
network -> | create | -----> | start, after    | ---> | wait: healthy, | ---> start of dependents
volume  -> |        |        | its dependencies|      | completed      |
           +--------+        +-----------------+      +----------------+
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from havre.compose.project import Project, Service


class Call(NamedTuple):
    """One request. A status in `tolerated` is not a failure; its message is shown instead of `done`."""

    method: str
    path: str
    query: Mapping[str, str] = {}
    body: Any = None
    tolerated: Mapping[int, str] = {}


class Create(NamedTuple):
    """Create a container of a service, called `name`. `aliases`: with the service's names on its networks; `ports`:
    with the
    service's published ports.
    """

    project: Project
    key: str
    service: Service
    number: int
    name: str
    image: Mapping[str, Any]
    replaced: Mapping[str, Any] | None = None
    inherit: bool = True
    aliases: bool = True
    ports: bool = True
    extra: Mapping[str, str] = {}


class Await(NamedTuple):
    """Wait until containers are `running_or_healthy`, `service_healthy` or `service_completed_successfully`."""

    containers: tuple[str, ...]
    service: str
    condition: str
    required: bool = True


class Execute(NamedTuple):
    """Run a hook in a container."""

    container: str
    hook: Mapping[str, Any]


class Prepare(NamedTuple):
    """Run the service's `pre_start` hook of this number in a container of its own, with the volumes of `container`."""

    project: Project
    key: str
    number: int
    container: str


class Provide(NamedTuple):
    """Run a provider's `command` for a service: up, down or stop. `variables` is filled by `up`."""

    project: Project
    key: str
    command: str
    variables: dict[str, str]


class Pull(NamedTuple):
    """Pull an image."""

    image: str
    platform: str = ""
    tolerate: bool = False


class Push(NamedTuple):
    """Push an image."""

    image: str
    tolerate: bool = False


class Build(NamedTuple):
    """Build a service's image and tag it `image`; for one platform, or for all that the service lists."""

    project: Project
    key: str
    image: str
    no_cache: bool = False
    pull: bool = False
    args: tuple[str, ...] = ()
    ssh: tuple[str, ...] = ()
    all_platforms: bool = False
    memory: int = 0
    attestations: Mapping[str, str] = {}


Action = Call | Create | Await | Execute | Prepare | Provide | Pull | Push | Build


class Step(NamedTuple):
    """An action on `subject`, shown as `doing` and then `done`; without an action it only shows a state, without texts
    nothing but its failure.
    """

    key: str
    subject: str
    doing: str
    done: str
    action: Action | None = None
    after: tuple[str, ...] = ()
