"""A container as networks see it: what it asks of them, and what it has while it runs. A value.

`containers` makes one of a container's row, `builds` one for a RUN; networks know no more of either.
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

    `asked` are the endpoints asked for by network name, that of the mode first. `exposed` are ports such as "80/tcp",
    `bindings` where they are to be published. `links` are names by alias, `link_ids` the containers that they mean.
    `ipv6_loopback`: no sysctl turns ::1 off. Containers with a link to this one see its `environment` and `exposed`.
    `ids` are the host's user IDs of its user namespace, None for the host's.

    Of a container that runs: `pid`, the `endpoints` that it has by network name, and the `ports` that are published.
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
        """How its own line in hosts names it: with its domain first, where it has one."""
        hostname = self.hostname or self.id[:12]
        full = f"{hostname}.{self.domainname}" if self.domainname else hostname
        host, dot, _ = full.partition(".")
        return f"{full} {host}" if dot else full

    def dns_names(self, asked: EndpointSettings) -> list[str]:
        """What it is called on a network of a user's: name, aliases, short ID, host name."""
        names = [self.name, *(asked.aliases or []), self.id[:12], self.hostname]
        return list(dict.fromkeys(name for name in names if name))
