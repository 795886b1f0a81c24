"""A container's row: what was asked, the state, and the facts of the present run.

Times are RFC 3339 with nanoseconds, UTC. Source: Docker Engine API, "ContainerInspect".
"""

from __future__ import annotations

from typing import Any

import msgspec

from havre.linux.idmap import IdRange
from havre.wire.config import Config, EndpointSettings, HostConfig, PortBinding, TmpfsOptions
from havre.wire.containers import Health, HealthResult, MountPoint
from havre.wire.values import ZERO_TIME, FrozenValue, Value

__all__ = ["Container", "Health", "HealthResult", "MountOptions", "MountPoint", "Run", "Spec", "State"]


class State(FrozenValue, frozen=True):
    """The state as stored and shown; the daemon decides by the classes in `states`.

    `status` is one of created, running, paused, restarting, removing, exited, dead.
    """

    status: str = "created"
    oom_killed: bool = msgspec.field(default=False, name="OOMKilled")
    pid: int = 0
    exit_code: int = 0
    error: str = ""
    started_at: str = ZERO_TIME
    finished_at: str = ZERO_TIME
    health: Health | None = None

    @property
    def running(self) -> bool:
        """As in Docker: true also while paused and while waiting for a restart."""
        return self.status in ("running", "paused", "restarting")

    @property
    def paused(self) -> bool:
        """Report whether the processes are frozen."""
        return self.status == "paused"

    @property
    def restarting(self) -> bool:
        """Report whether a restart is scheduled."""
        return self.status == "restarting"

    @property
    def dead(self) -> bool:
        """Report whether removal has failed."""
        return self.status == "dead"


class MountOptions(Value, omit_defaults=True):
    """Options of a mount beyond its `MountPoint`.

    `anonymous`: the volume was created for this container and is removed by `rm -v`. `create_source`: a missing host
    directory is created (`-v`), otherwise refused (`--mount`). `slave_if_shared`: rslave is havre's default, not
    requested, so a source that is not shared is accepted.
    """

    anonymous: bool = False
    create_source: bool = False
    no_copy: bool = False
    non_recursive: bool = False
    read_only_non_recursive: bool = False
    read_only_force_recursive: bool = False
    slave_if_shared: bool = False
    subpath: str = ""
    tmpfs: TmpfsOptions | None = None


class Spec(FrozenValue, frozen=True):
    """What was asked, resolved at the creation; `update`, `connect`, `rm --link` and the like replace it by another.

    `image` is the image's ID, `config.image` the name in the request. `path` and `args` are the resolved command.
    `networks` has the requested endpoints by network name, `mount_options` is by destination.
    """

    id: str
    created: str
    image: str
    path: str
    args: list[str]
    config: Config
    host_config: HostConfig
    networks: dict[str, EndpointSettings] = msgspec.field(default_factory=dict)
    mounts: list[MountPoint] = msgspec.field(default_factory=list)
    mount_options: dict[str, MountOptions] = msgspec.field(default_factory=dict)
    platform: str = "linux"


class Run(FrozenValue, frozen=True):
    """Facts of the present run, or what is left of the last one.

    `networks` has the endpoints by network name. `ports` are the ports published now, in the form of
    `NetworkSettings.Ports`. `ids` is the ID range on the host; None if IDs are not mapped. `link_ids` are the IDs of
    linked containers by lower-case alias. `apparmor_profile` is the requested profile, after the first start the one
    in use.
    """

    networks: dict[str, EndpointSettings] = msgspec.field(default_factory=dict)
    ports: dict[str, list[PortBinding] | None] = msgspec.field(default_factory=dict)
    ids: IdRange | None = None
    link_ids: dict[str, str] = msgspec.field(default_factory=dict)
    apparmor_profile: str = ""


class Container(Value):
    """A container's row, rewritten completely on each change: its name and three values, each replaced as a whole.

    `state`, `restart_count` and `manually_stopped` are the stored form of its life (`states`), written by it alone.
    """

    name: str
    spec: Spec
    state: State = msgspec.field(default_factory=State)
    run: Run = msgspec.field(default_factory=Run)
    restart_count: int = 0
    manually_stopped: bool = False

    @property
    def id(self) -> str:
        """Its ID, 64 hexadecimal digits."""
        return self.spec.id

    def respecify(self, **changes: Any) -> None:
        """Replace what was asked by a copy with these fields."""
        self.spec = msgspec.structs.replace(self.spec, **changes)

    def note_run(self, **changes: Any) -> None:
        """Replace the facts of the run by a copy with these fields."""
        self.run = msgspec.structs.replace(self.run, **changes)
