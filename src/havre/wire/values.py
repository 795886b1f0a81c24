"""The base of all structs with Docker's JSON names.

Field names are Python's; `rename` maps them to the JSON names of Docker's API and the OCI image configuration, so that
`api` decodes requests into these structs and `storage` persists them, and each field is defined once. Lists and maps
may
be None, because Docker and its clients distinguish "not given" from "empty".

Units: memory in bytes, CPU periods and quotas in microseconds, health-check durations in nanoseconds, times in RFC 3339
with nanoseconds, UTC.

Source: Docker Engine API, "ContainerCreate" and "ContainerInspect"; OCI image specification, "config.md".
"""

from __future__ import annotations

from collections.abc import Collection
from typing import NewType, TypeVar

import msgspec

ContainerId = NewType("ContainerId", str)
NetworkId = NewType("NetworkId", str)
ImageId = NewType("ImageId", str)

ZERO_TIME = "0001-01-01T00:00:00Z"

_IRREGULAR = {
    "container_id_file": "ContainerIDFile",
    "uts_mode": "UTSMode",
    "io_maximum_iops": "IOMaximumIOps",
    "io_maximum_bandwidth": "IOMaximumBandwidth",
    "network_id": "NetworkID",
    "endpoint_id": "EndpointID",
    "ip_address": "IPAddress",
    "ip_prefix_len": "IPPrefixLen",
    "ipv6_gateway": "IPv6Gateway",
    "global_ipv6_address": "GlobalIPv6Address",
    "global_ipv6_prefix_len": "GlobalIPv6PrefixLen",
    "dns_names": "DNSNames",
    "ipam_config": "IPAMConfig",
    "ipv4_address": "IPv4Address",
    "ipv6_address": "IPv6Address",
    "link_local_ips": "LinkLocalIPs",
    "host_ip": "HostIp",
    "device_ids": "DeviceIDs",
    "oom_killed": "OOMKilled",
    "enable_ipv4": "EnableIPv4",
    "enable_ipv6": "EnableIPv6",
    "ip_range": "IPRange",
}


def docker_name(field: str) -> str:
    """The JSON name of a field: `cpu_shares` is `CpuShares`; a table has Docker's irregular names."""
    return _IRREGULAR.get(field) or "".join(part[:1].upper() + part[1:] for part in field.split("_"))


class Value(msgspec.Struct, rename=docker_name, kw_only=True):
    """Base of the structs below: Docker's JSON names, keyword arguments."""


class FrozenValue(msgspec.Struct, rename=docker_name, kw_only=True, frozen=True):
    """The same, immutable."""


V = TypeVar("V", bound=Value)


def without_empty(value: V, names: Collection[str]) -> V:
    """A copy to be shown, without those of the fields `names` that are empty, as Go's `omitempty` has it."""
    empty = {name: msgspec.UNSET for name in names if not getattr(value, name)}
    return msgspec.structs.replace(value, **empty) if empty else value
