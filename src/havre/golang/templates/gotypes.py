"""Adds the information of Go's static types to JSON, to print values as docker does.

docker decodes responses into Go types before a template runs. JSON does not distinguish structs from maps, nor null
slices from null maps; the tables of field names here do, and they map Go's field names to those of JSON.
"""

from __future__ import annotations

from havre.golang.times import go_time, parse_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Members whose value is a Go map; every other JSON object is a struct.
_MAPS = frozenset((
    "Labels", "Annotations", "Options", "Ports", "ExposedPorts", "Volumes", "PortBindings", "Networks", "Tmpfs",
    "Sysctls", "StorageOpt", "DriverOpts", "Containers", "EndpointsConfig", "Runtimes", "Details", "Status", "Data",
    "Attributes", "GenericResources", "AuxiliaryAddresses", "AuxAddress",
))  # fmt: skip
# Members that are Go slices: null prints as [].
_SLICES = frozenset((
    "Args", "Binds", "CapAdd", "CapDrop", "Cmd", "Entrypoint", "Env", "OnBuild", "Shell", "Dns", "DnsOptions",
    "DnsSearch", "ExtraHosts", "GroupAdd", "Links", "SecurityOpt", "VolumesFrom", "Devices",
    "DeviceCgroupRules", "DeviceRequests", "Ulimits", "BlkioWeightDevice", "BlkioDeviceReadBps",
    "BlkioDeviceWriteBps", "BlkioDeviceReadIOps", "BlkioDeviceWriteIOps", "MaskedPaths", "ReadonlyPaths",
    "Aliases", "DNSNames", "ExecIDs", "Mounts", "RepoTags", "RepoDigests", "Layers", "Names", "LinkLocalIPs",
    "SecondaryIPAddresses", "SecondaryIPv6Addresses", "Warnings", "SecurityOptions", "CDISpecDirs", "Mirrors",
    "IndexConfigs", "Config",
))  # fmt: skip
# Go's field names that differ from JSON's by more than the case of the first letter.
_JSON_NAMES = {
    "ID": "Id", "HostIP": "HostIp", "DNS": "Dns", "DNSOptions": "DnsOptions", "DNSSearch": "DnsSearch",
    "NanoCPUs": "NanoCpus", "CPUShares": "CpuShares", "CPUPeriod": "CpuPeriod", "CPUQuota": "CpuQuota",
    "CPURealtimePeriod": "CpuRealtimePeriod", "CPURealtimeRuntime": "CpuRealtimeRuntime", "CPUCount": "CpuCount",
    "CPUPercent": "CpuPercent", "OSType": "OSType", "IPv4Address": "IPv4Address",
}  # fmt: skip


class Nil:
    """A null of a known type: false, of length 0, printed as Go prints a nil of the type."""

    def __init__(self, shown: str) -> None:
        self.shown = shown

    def __len__(self) -> int:
        return 0


# Members that the API omits when empty, and the value that Go's type then has.
_OMITTED: dict[str, Any] = {
    **dict.fromkeys(
        ("Health", "Healthcheck", "SizeRw", "SizeRootFs", "StopTimeout", "UsageData", "ClusterVolume", "Init")
    ),
    **dict.fromkeys(
        ("ExposedPorts", "Status", "Tmpfs", "Sysctls", "StorageOpt", "Annotations", "Labels", "Volumes"), Nil("map[]")
    ),
    **dict.fromkeys(("OnBuild", "Shell", "Mounts", "Env", "Cmd", "Entrypoint"), Nil("[]")),
    **dict.fromkeys(
        ("StopSignal", "MacAddress", "User", "WorkingDir", "Parent", "Comment", "DockerVersion", "Author"), ""
    ),
}


class Time(str):
    """A JSON time that docker decodes into Go's `time.Time` and prints in Go's form."""

    __slots__ = ()

    @property
    def shown(self) -> str:
        """The time in Go's form."""
        return go_time(*parse_time(self), utc=self.endswith("Z"))


class Struct(dict[str, "Any"]):
    """A JSON object that docker decodes into a struct; `defaults` are fields that JSON omits when empty."""

    defaults: Mapping[str, Any] = {}
    type_name = ""


def typed(value: Any, name: str = "", *, type_name: str = "") -> Any:
    """JSON with Go's types: `Struct` for objects that are structs, `Nil` for nulls of known types.

    With `type_name`, errors for a missing field name this type; otherwise they are those of a missing key of a map.
    """
    if isinstance(value, dict):
        is_map = name in _MAPS or (name == "Config" and set(value) <= {"max-size", "max-file"})
        members = {key: typed(item, "" if is_map else key) for key, item in value.items()}
        if is_map:
            return members
        struct = Struct(members)
        if "EnableIPv6" in struct and "Created" in struct:  # of all objects only a network has `Created` as a time.Time
            struct["Created"] = Time(struct["Created"])
        struct.type_name = type_name
        return struct
    if name == "LastTagTime" and value:
        return Time(value)
    if isinstance(value, list):
        return [typed(item) for item in value]
    if value is None and name in _MAPS:
        return Nil("map[]")
    if value is None and name in _SLICES:
        return Nil("[]")
    return value


def plain(value: Any) -> Any:
    """The plain JSON value again, for the function `json`."""
    if isinstance(value, Nil):
        return None
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()}
    return [plain(item) for item in value] if isinstance(value, list) else value


def member(struct: Struct, name: str) -> tuple[bool, Any]:
    """Look up a member by Go's name or JSON's. Returns whether there is one, and its value."""
    small = name.lower() if name == "ID" else name[:1].lower() + name[1:]
    for candidate in (name, _JSON_NAMES.get(name, name), small if struct.defaults else name):
        if candidate in struct:
            return True, struct[candidate]
    if name in struct.defaults:
        return True, struct.defaults[name]
    return name in _OMITTED, _OMITTED.get(name)
