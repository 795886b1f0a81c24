"""A container as networks see it: its requested endpoints, and those it has while running. A value.

`containers` makes one from a container's row, `builds` one for a RUN; this is all that networks know of either.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from havre.linux.idmap import IdRange
from havre.wire.config import EndpointSettings, PortBinding

Bindings = Mapping[str, list[PortBinding] | None]


@dataclass(frozen=True)
class Guest:
    """`mode` is Docker's network mode: a network's name or ID, host, none or container:ID.

    `asked` are the requested endpoints by network name, that of the mode first. `exposed` are ports such as
    "80/tcp", `bindings` their host ports. `links` are container names by alias, `link_ids` the IDs of those
    containers. `ipv6_loopback` is False if a sysctl disables ::1. Containers with a link to this one get its
    `environment` and `exposed`. `ids` are the host's IDs of its user namespace, None without one.

    For a running container: `pid`, its `endpoints` by network name, and its published `ports`.
    """

    id: str
    name: str
    mode: str = "bridge"
    hostname: str = ""
    domainname: str = ""
    asked: Mapping[str, EndpointSettings] = field(default_factory=dict)
    exposed: Sequence[str] = ()
    bindings: Bindings = field(default_factory=dict)
    publish_all: bool = False
    dns: Sequence[str] = ()
    dns_search: Sequence[str] = ()
    dns_options: Sequence[str] = ()
    extra_hosts: Sequence[str] = ()
    ipv6_loopback: bool = True
    environment: Sequence[str] = ()
    links: Mapping[str, str] = field(default_factory=dict)
    link_ids: Mapping[str, str] = field(default_factory=dict)
    ids: IdRange | None = None
    pid: int = 0
    endpoints: Mapping[str, EndpointSettings] = field(default_factory=dict)
    ports: Bindings = field(default_factory=dict)

    @property
    def host_names(self) -> str:
        """Its own names in /etc/hosts: first with the domain, if any."""
        hostname = self.hostname or self.id[:12]
        full = f"{hostname}.{self.domainname}" if self.domainname else hostname
        host, dot, _ = full.partition(".")
        return f"{full} {host}" if dot else full

    def dns_names(self, asked: EndpointSettings) -> list[str]:
        """Its DNS names on a user-defined network: name, aliases, short ID, host name."""
        names = [self.name, *(asked.aliases or []), self.id[:12], self.hostname]
        return list(dict.fromkeys(name for name in names if name))
