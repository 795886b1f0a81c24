"""API versions: which are supported, and conversion for older clients.

Handlers implement only `NEWEST`. An older client's request is lifted before its handler sees it, and the answer lowered
afterwards, by the tables at the end: operation, first version that no longer needs the change, change. Changes are
applied from the newest down, each once.

    client 1.41 --request--> lift --> handler (1.45) --answer--> lower 1.45, lower 1.44, lower 1.42 --> client 1.41

Source: Docker Engine API, "version history"; where that is silent, dockerd 26's answers to both versions.
Why: docs/decisions/060.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, NamedTuple

from havre.errors import InvalidInput


class Version(NamedTuple):
    """An API version; compares numerically: 1.9 is older than 1.24."""

    major: int
    minor: int

    def __str__(self) -> str:
        return f"{self.major}.{self.minor}"


NEWEST = Version(1, 45)
OLDEST = Version(1, 24)

_TEXT = re.compile(r"([0-9]{1,4})(?:\.([0-9]{1,4}))?((?:\.[0-9.]*)?)")


def parse_version(text: str) -> Version:
    """Parse the version in a path. `InvalidInput`, in dockerd's words, if it is not supported."""
    match = _TEXT.fullmatch(text)
    if match is None:
        raise InvalidInput(f"invalid API version {text}")
    version = Version(int(match[1]), int(match[2] or 0))
    if version < OLDEST:
        raise InvalidInput(
            f"client version {text} is too old. Minimum supported API version is {OLDEST}, "
            "please upgrade your client to a newer version"
        )
    # A third number counts as in moby's versions.Compare: 1.45.1 is newer than 1.45, 1.45.0 is not.
    if version > NEWEST or (version == NEWEST and match[3].strip(".0")):
        raise InvalidInput(f"client version {text} is too new. Maximum supported API version is {NEWEST}")
    return version


def multiplexed(version: Version, tty: bool) -> bool:
    """Report whether a stream is announced as `multiplexed-stream`; without a TTY it is framed in any version."""
    return not tty and version >= (1, 42)


def networks_list_containers(version: Version) -> bool:
    """Whether a list of networks tells of the containers on each. Since 1.28 inspecting one does, alone."""
    return version < (1, 28)


def images_have_one_filter(version: Version) -> bool:
    """Whether a list of images has the parameter `filter`, one pattern of names. `filters` has it since 1.25."""
    return version < (1, 41)


def read_only_is_recursive(version: Version) -> bool:
    """Report whether a read-only bind mount also makes its submounts read-only by default."""
    return version >= (1, 44)


def mac_address_is_the_networks(version: Version) -> bool:
    """Report whether a MAC address belongs in `EndpointsConfig`, the container's own being deprecated."""
    return version >= (1, 44)


def lift(operation: str, body: Any, version: Version) -> Any:
    """Convert an older client's request in place to the meaning it had."""
    for until, change in _LIFTS.get(operation, ()):
        if version < until:
            change(body)
    return body


def needs_lowering(operation: str, version: Version) -> bool:
    """Report whether `lower` changes this answer, which must then be converted to plain values first."""
    return any(version < until for until, _ in _LOWERS.get(operation, ()))


def lower(operation: str, answer: Any, version: Version) -> Any:
    """Convert an answer in `NEWEST`'s shape (plain dicts and lists) in place for an older client."""
    for until, change in _LOWERS.get(operation, ()):
        if version < until:
            for item in answer if isinstance(answer, list) else [answer]:
                change(item)
    return answer


def _mounts(body: Any) -> Any:
    return (body.host_config.mounts or ()) if body.host_config is not None else ()


def _lift_auto_remove(body: Any) -> None:
    """Before 1.25 the client removed the container."""
    if body.host_config is not None:
        body.host_config.auto_remove = False


def _lift_recursive_binds(body: Any) -> None:
    """`NonRecursive` came with 1.40."""
    for mount in _mounts(body):
        if mount.bind_options is not None:
            mount.bind_options.non_recursive = False


def _lift_private_ipc(body: Any) -> None:
    """Before 1.40 a container's IPC namespace was shareable by default."""
    if body.host_config is not None and not body.host_config.ipc_mode:
        body.host_config.ipc_mode = "shareable"


def _lift_host_cgroups(body: Any) -> None:
    """Before 1.41 containers shared the host's cgroup namespace by default."""
    if body.host_config is not None and not body.host_config.cgroupns_mode:
        body.host_config.cgroupns_mode = "host"


def _lift_annotations(body: Any) -> None:
    """`Annotations` came with 1.43."""
    if body.host_config is not None:
        body.host_config.annotations = None


def _lift_networks(body: Any) -> None:
    """Before 1.44 a container was created on one network; the others were connected afterwards."""
    endpoints = (body.networking_config and body.networking_config.endpoints_config) or ()
    if len(endpoints) > 1:
        raise InvalidInput(f"Container cannot be created with multiple network endpoints: {', '.join(endpoints)}")


def _lift_forced_recursion(body: Any) -> None:
    """`BindOptions.ReadOnlyForceRecursive` came with 1.44; rejected from an older client."""
    for mount in _mounts(body):
        if mount.bind_options is not None and mount.bind_options.read_only_force_recursive:
            raise InvalidInput("BindOptions.ReadOnlyForceRecursive needs API v1.44 or newer")


def _lift_subpath(body: Any) -> None:
    """`VolumeOptions.Subpath` came with 1.45; rejected from an older client."""
    for mount in _mounts(body):
        if mount.volume_options is not None and mount.volume_options.subpath:
            raise InvalidInput("VolumeOptions.Subpath needs API v1.45 or newer")


def _lift_start_interval(body: Any) -> None:
    """`StartInterval` came with 1.44; ignored from an older client."""
    if body.healthcheck is not None:
        body.healthcheck.start_interval = 0


def _lift_mount_options(body: Any) -> None:
    """`CreateMountpoint` came with 1.42; options of another mount type were accepted until then."""
    for mount in _mounts(body):
        if mount.bind_options is not None:
            mount.bind_options.create_mountpoint = False
        if mount.type != "volume":
            mount.volume_options = None
        if mount.type != "tmpfs":
            mount.tmpfs_options = None


def _lift_pids_limit(body: Any) -> None:
    """PID limits could not be updated before 1.40."""
    body.pids_limit = None


def _lower_container_config(answer: dict[str, Any]) -> None:
    """1.45 dropped the configuration recorded by a classic build."""
    empty = {"Env": None, "Cmd": None, "Image": "", "Volumes": None, "WorkingDir": "", "Entrypoint": None}
    flags = dict.fromkeys(("AttachStdin", "AttachStdout", "AttachStderr", "Tty", "OpenStdin", "StdinOnce"), False)
    names = {"Hostname": "", "Domainname": "", "User": ""}
    answer.setdefault("ContainerConfig", names | flags | empty | {"OnBuild": None, "Labels": None})


def _lower_no_date(answer: dict[str, Any]) -> None:
    """Before 1.44 an image without a date had Go's zero time."""
    answer.setdefault("Created", "0001-01-01T00:00:00Z")


def _lower_virtual_size(answer: dict[str, Any]) -> None:
    """1.44 dropped VirtualSize, which had equalled Size for years."""
    answer["VirtualSize"] = answer.get("Size", 0)


def _lower_df_images(answer: dict[str, Any]) -> None:
    """1.44 dropped the images' VirtualSize."""
    for image in answer.get("Images") or ():
        _lower_virtual_size(image)


def _lower_empty_digests(answer: dict[str, Any]) -> None:
    """Before 1.43 an image without digests or tags had null there."""
    for key in ("RepoTags", "RepoDigests"):
        answer[key] = answer.get(key) or None


def _lower_aliases(answer: dict[str, Any]) -> None:
    """Before 1.45 the short ID and the host name stood among the aliases on user-defined networks."""
    for name, endpoint in ((answer.get("NetworkSettings") or {}).get("Networks") or {}).items():
        if name in ("default", "bridge", "host", "none"):
            continue
        added = [answer["Id"][:12], answer["Config"]["Hostname"]]
        endpoint["Aliases"] = list(dict.fromkeys([*(endpoint["Aliases"] or ()), *added]))


def _lower_kernel_memory(answer: dict[str, Any]) -> None:
    """1.42 dropped KernelMemory."""
    answer["KernelMemory"] = True


def _lower_runtimes(answer: dict[str, Any]) -> None:
    """1.44 added the features of runtimes."""
    for runtime in (answer.get("Runtimes") or {}).values():
        runtime.pop("status", None)


def _lower_execution_driver(answer: dict[str, Any]) -> None:
    """1.25 dropped ExecutionDriver."""
    answer["ExecutionDriver"] = "<not supported>"


def _lower_security_options(answer: dict[str, Any]) -> None:
    """Before 1.25 they were bare names: `seccomp` for `name=seccomp,profile=builtin`."""
    options = answer.get("SecurityOptions") or ()
    answer["SecurityOptions"] = [option.partition(",")[0].removeprefix("name=") for option in options]


def _lower_builder_size(answer: dict[str, Any]) -> None:
    """1.42 dropped BuilderSize, the sum of the caches' sizes."""
    answer["BuilderSize"] = sum(cache.get("Size", 0) for cache in answer.get("BuildCache") or ())


_Change = tuple[Version, Callable[[Any], None]]

_LIFTS: dict[str, tuple[_Change, ...]] = {
    "ContainerCreate": (
        (Version(1, 45), _lift_subpath),
        (Version(1, 44), _lift_networks),
        (Version(1, 44), _lift_forced_recursion),
        (Version(1, 44), _lift_start_interval),
        (Version(1, 43), _lift_annotations),
        (Version(1, 42), _lift_mount_options),
        (Version(1, 41), _lift_host_cgroups),
        (Version(1, 40), _lift_private_ipc),
        (Version(1, 40), _lift_recursive_binds),
        (Version(1, 25), _lift_auto_remove),
    ),
    "ContainerUpdate": ((Version(1, 40), _lift_pids_limit),),
}
_LOWERS: dict[str, tuple[_Change, ...]] = {
    "ContainerInspect": ((Version(1, 45), _lower_aliases),),
    "ImageInspect": (
        (Version(1, 45), _lower_container_config),
        (Version(1, 44), _lower_virtual_size),
        (Version(1, 44), _lower_no_date),
    ),
    "ImageList": ((Version(1, 44), _lower_virtual_size), (Version(1, 43), _lower_empty_digests)),
    "SystemDataUsage": ((Version(1, 44), _lower_df_images), (Version(1, 42), _lower_builder_size)),
    "SystemInfo": (
        (Version(1, 44), _lower_runtimes),
        (Version(1, 42), _lower_kernel_memory),
        (Version(1, 25), _lower_security_options),
        (Version(1, 25), _lower_execution_driver),
    ),
}
