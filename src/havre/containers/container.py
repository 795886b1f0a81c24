"""A container's row: the request, what it was resolved to, and the state.

Times are RFC 3339 with nanoseconds, UTC. Source: Docker Engine API, "ContainerInspect".
"""

from __future__ import annotations

import msgspec

from havre.linux.idmap import IdRange
from havre.wire.config import Config, EndpointSettings, HostConfig, PortBinding, TmpfsOptions
from havre.wire.containers import Health, HealthResult, MountPoint
from havre.wire.values import ZERO_TIME, Value

__all__ = ["Container", "Health", "HealthResult", "MountOptions", "MountPoint", "State"]


class State(Value):
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


class Container(Value):
    """A container: one row, rewritten completely on each change of state.

    `image` is the image's ID, `config.image` the name in the request. `path` and `args` are the resolved command.
    `networks` has the endpoints by network name, `asked_networks` the requested ones. `mount_options` is by
    destination. `ports` are the ports published now, in the form of `NetworkSettings.Ports`. `ids` is the ID range on
    the host of the present or last run; None if IDs are not mapped. `link_ids` are the IDs of linked containers by
    lower-case alias. `apparmor_profile` is the requested profile, after the first start the one in use.
    """

    id: str
    name: str
    created: str
    image: str
    path: str
    args: list[str]
    config: Config
    host_config: HostConfig
    state: State = msgspec.field(default_factory=State)
    networks: dict[str, EndpointSettings] = msgspec.field(default_factory=dict)
    asked_networks: dict[str, EndpointSettings] = msgspec.field(default_factory=dict)
    ports: dict[str, list[PortBinding] | None] = msgspec.field(default_factory=dict)
    mounts: list[MountPoint] = msgspec.field(default_factory=list)
    mount_options: dict[str, MountOptions] = msgspec.field(default_factory=dict)
    restart_count: int = 0
    manually_stopped: bool = False
    runtime: str = ""
    ids: IdRange | None = None
    link_ids: dict[str, str] = msgspec.field(default_factory=dict)
    platform: str = "linux"
    apparmor_profile: str = ""
