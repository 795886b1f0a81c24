"""Plans of a container and of an exec: frozen values, with everything resolved.

The engine fills them from the user's request and the image; `spec` renders them as an OCI runtime specification and
`monitor` carries them out. Nothing here reads the host. Sizes are bytes, CPU times microseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

from havre.linux.idmap import IdRange

PRIVATE = "private"
HOST = "host"

PROPAGATIONS = ("private", "rprivate", "shared", "rshared", "slave", "rslave")
RESTRICTIONS = ("nosuid", "nodev", "noexec")
HOOKS = ("prestart", "createRuntime", "createContainer", "startContainer", "poststart", "poststop")

DEFAULT_SHM_SIZE = 64 << 20


@dataclass(frozen=True, kw_only=True)
class User:
    """The user that a process runs as; `groups` are the supplementary groups (see `users.resolve_user`)."""

    uid: int = 0
    gid: int = 0
    groups: tuple[int, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Bind:
    """A file or directory of the host seen inside; `propagation`, `restrictions`: words of mount(8), see above."""

    source: Path
    destination: str
    read_only: bool = False
    propagation: str = "rprivate"
    recursive: bool = True
    read_only_recursive: bool = True
    read_only_forced: bool = False
    restrictions: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Tmpfs:
    """A new tmpfs; `options` are mount(8)'s (`size=1m`, `mode=700`, `exec`, `ro`), added to noexec,nosuid,nodev."""

    destination: str
    options: tuple[str, ...] = ()


Mount = Bind | Tmpfs


@dataclass(frozen=True, kw_only=True)
class Device:
    """A device node created inside (`devices.read_devices` reads it from the host); `access` is of "rwm"."""

    path: str
    type: str
    major: int
    minor: int
    mode: int = 0o666
    uid: int = 0
    gid: int = 0
    access: str = "rwm"


@dataclass(frozen=True, kw_only=True)
class DeviceRule:
    """A line of the cgroup's device list; None is "any"."""

    type: str = "a"
    major: int | None = None
    minor: int | None = None
    access: str = "rwm"


@dataclass(frozen=True, kw_only=True)
class BlockLimit:
    """A limit of one block device: a weight, or bytes or operations per second."""

    major: int
    minor: int
    value: int


@dataclass(frozen=True, kw_only=True)
class Rlimit:
    """A limit of setrlimit(2); `name` as in `--ulimit` (nofile); -1 is unlimited."""

    name: str
    soft: int
    hard: int


@dataclass(frozen=True, kw_only=True)
class Hook:
    """A program of the host that the OCI runtime runs; `when` is one of HOOKS, `args` begins with its name."""

    when: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()
    timeout_s: int = 0


@dataclass(frozen=True, kw_only=True)
class Resources:
    """Limits of the container's cgroup; 0, "" and None are "not set", memory_swap -1 is unlimited."""

    memory: int = 0
    memory_reservation: int = 0
    memory_swap: int = 0
    memory_swappiness: int | None = None
    oom_kill_disable: bool = False
    nano_cpus: int = 0
    cpu_shares: int = 0
    cpu_period_us: int = 0
    cpu_quota_us: int = 0
    cpu_realtime_period_us: int = 0
    cpu_realtime_runtime_us: int = 0
    cpuset_cpus: str = ""
    cpuset_mems: str = ""
    pids_limit: int | None = None
    blkio_weight: int = 0
    blkio_weight_devices: tuple[BlockLimit, ...] = ()
    blkio_read_bps: tuple[BlockLimit, ...] = ()
    blkio_write_bps: tuple[BlockLimit, ...] = ()
    blkio_read_iops: tuple[BlockLimit, ...] = ()
    blkio_write_iops: tuple[BlockLimit, ...] = ()


Profile: TypeAlias = Mapping[str, Any] | str | None


@dataclass(frozen=True, kw_only=True)
class Security:
    """The parsed `--security-opt` (`security.parse_security_opts`).

    `seccomp` is None for the default profile, "unconfined", or a profile as Docker's JSON. `apparmor` is "" for the
    default.
    `unmasked` is systempaths=unconfined. `writable_cgroups` is None for the default: in privileged containers alone.
    """

    seccomp: Profile = None
    apparmor: str = ""
    no_new_privileges: bool = False
    unmasked: bool = False
    writable_cgroups: bool | None = None


@dataclass(frozen=True, kw_only=True)
class ContainerPlan:
    """One container. Namespaces are PRIVATE, HOST or the path of one to join; "" is the host's default.

    `rootfs` is already mounted. `args` is entrypoint and command together. `env` includes PATH, HOSTNAME and TERM.
    `runtime`
    "" is the default OCI runtime. `cgroup_parent` "" is /havre. `shm_source` is a directory mounted as /dev/shm in
    place of
    a new tmpfs; a `shm_size` of None means no /dev/shm. `console_size` is (rows, columns). With `stdin_once`,
    `close_stdin`
    closes the container's stdin, otherwise it stays open for the next client. conmon inherits `kept_descriptors` and
    holds
    them open, inaccessible to the container, for a later daemon. `intel_rdt` is that object of the OCI runtime
    specification. `user_namespace` is the path of one to run in, whose mapping is `ids`; "" is the host's.
    """

    rootfs: Path
    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = "/"
    user: User = User()
    tty: bool = False
    open_stdin: bool = False
    stdin_once: bool = False
    kept_descriptors: tuple[int, ...] = ()
    console_size: tuple[int, int] | None = None
    hostname: str = ""
    domainname: str = ""
    init: bool = False

    mounts: tuple[Mount, ...] = ()
    readonly_rootfs: bool = False
    shm_size: int | None = DEFAULT_SHM_SIZE
    shm_source: Path | None = None

    network: str = PRIVATE
    ipc: str = PRIVATE
    pid: str = PRIVATE
    uts: str = PRIVATE
    cgroupns: str = ""
    user_namespace: str = ""
    ids: IdRange | None = None

    privileged: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    security: Security = Security()
    masked_paths: tuple[str, ...] | None = None
    readonly_paths: tuple[str, ...] | None = None
    devices: tuple[Device, ...] = ()
    device_rules: tuple[DeviceRule, ...] = ()
    hooks: tuple[Hook, ...] = ()

    resources: Resources = Resources()
    intel_rdt: Mapping[str, Any] | None = None
    rlimits: tuple[Rlimit, ...] = ()
    oom_score_adj: int = 0
    sysctls: Mapping[str, str] = field(default_factory=dict)
    annotations: Mapping[str, str] = field(default_factory=dict)
    cgroup_parent: str = ""
    runtime: str = ""


@dataclass(frozen=True, kw_only=True)
class ExecPlan:
    """An exec in a running container; `user` None and `cwd` "" are the container's own.

    `env` is added to the container's environment; later entries override.
    """

    args: tuple[str, ...]
    env: tuple[str, ...] = ()
    cwd: str = ""
    user: User | None = None
    tty: bool = False
    open_stdin: bool = False
    console_size: tuple[int, int] | None = None
    privileged: bool = False


@dataclass(frozen=True)
class Exit:
    """How a process ended: `code` is 128+n for signal n; `finished_at` is seconds since the epoch."""

    code: int
    finished_at: float
    oom_killed: bool = False
