"""A container as it is persisted: what was asked for, what was resolved of it, and what it is doing.

Times are RFC 3339 with nanoseconds, UTC. Source: Docker Engine API, "ContainerInspect".
"""

from __future__ import annotations

import msgspec

from havre.linux.idmap import IdRange
from havre.wire.config import Config, EndpointSettings, HostConfig, PortBinding, TmpfsOptions
from havre.wire.values import ZERO_TIME, Value


class HealthResult(Value):
    """One probe: when it ran, its exit code (-1: it could not run, or took too long) and what it wrote."""

    start: str
    end: str
    exit_code: int = 0
    output: str = ""


class Health(Value):
    """What the probes say: starting, healthy or unhealthy; the failures in a row, and the last results."""

    status: str = ""
    failing_streak: int = 0
    log: list[HealthResult] = msgspec.field(default_factory=list)


class State(Value):
    """What a container is doing, as it is persisted and shown; `states` has what the daemon decides upon.

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
        """As Docker has it: also while it is paused, and while it waits for its restart."""
        return self.status in ("running", "paused", "restarting")

    @property
    def paused(self) -> bool:
        """Whether its processes are frozen."""
        return self.status == "paused"

    @property
    def restarting(self) -> bool:
        """Whether it waits for its restart."""
        return self.status == "restarting"

    @property
    def dead(self) -> bool:
        """Whether its removal has failed."""
        return self.status == "dead"


class MountPoint(Value):
    """A mount of a container as `inspect` shows it.

    `source` is the host path, or an image's ID; `name` the volume's or the image's.
    """

    type: str
    name: str = ""
    source: str = ""
    destination: str = ""
    driver: str = ""
    mode: str = ""
    rw: bool = msgspec.field(default=True, name="RW")
    propagation: str = ""


class MountOptions(Value, omit_defaults=True):
    """What a mount needs beyond its `MountPoint`.

    `anonymous`: the volume was made for this container and goes with `rm -v`. `create_source`: a missing host directory
    is made (`-v`), otherwise refused (`--mount`). `slave_if_shared`: nobody asked for the propagation rslave, so that a
    source that is not shared will do.
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
    """A container as it is persisted: one row, rewritten whole on each change of state.

    `image` is the image's ID, `config.image` the name the user gave. `path` and `args` are the resolved command.
    `networks` is keyed by network name: what it has; `asked_networks`: what was asked for. `mount_options` is
    keyed by the mount's destination. `ports` is what is published now, as `NetworkSettings.Ports` shows it.
    `ids` are the host's user IDs that it has, or had when it was last started, if those are not the same as inside.
    `link_ids` are the containers that its links mean, by alias in lower case.
    `apparmor_profile` is the one asked for, and from the first start on the one that it has.
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
