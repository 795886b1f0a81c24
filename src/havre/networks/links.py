"""`--link NAME:ALIAS` on the default bridge, which has no DNS: the texts about the target for one container. Pure.

    hosts       172.17.0.2  alias hostname name                updated when the target's address changes
    variables   ALIAS_PORT=tcp://172.17.0.2:80  ALIAS_PORT_80_TCP_ADDR=...  ALIAS_NAME=/own/alias  ALIAS_ENV_X=...
                for three or more consecutive ports also ALIAS_PORT_80_TCP_START=...  ALIAS_PORT_80_TCP_END=...
    rules       without inter-container traffic (icc), the target's exposed ports are allowed
    names       /own/alias is another name of the target

Source: Docker's "Legacy container links".
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from havre.dataplane.ipam import Address
from havre.dataplane.plan import LinkMap
from havre.golang.ports import parse_port
from havre.networks.guest import Guest

_PRIVATE = ("HOME", "PATH")


@dataclass(frozen=True)
class Exposed:
    """What a link shows of its target: ports, environment and host name."""

    ports: tuple[tuple[int, str], ...] = ()
    environment: tuple[str, ...] = ()
    hostname: str = ""


@dataclass(frozen=True)
class Link:
    """One link of a running container: `owner` knows the container `name` (`id`) with `address` as `alias`."""

    owner: str
    alias: str
    id: str
    name: str
    address: Address
    exposed: Exposed

    def host_line(self) -> tuple[str, str]:
        """Address and names for /etc/hosts."""
        names = (self.alias, self.exposed.hostname or self.id[:12], self.name)
        return str(self.address), " ".join(dict.fromkeys(names))

    def variables(self) -> list[str]:
        """`NAME=VALUE` variables as dockerd sets them."""
        key = self.alias.replace("-", "_").upper()
        lines = []
        for number, (port, protocol) in enumerate(self.exposed.ports):
            url = f"{protocol}://{self.address}:{port}"
            lines += [f"{key}_PORT={url}"] if number == 0 else []
            at = f"{key}_PORT_{port}_{protocol.upper()}"
            lines += [f"{at}={url}", f"{at}_ADDR={self.address}", f"{at}_PORT={port}", f"{at}_PROTO={protocol}"]
        for first, last in _ranges(self.exposed.ports):
            for (port, protocol), end in ((first, "START"), (last, "END")):
                at = f"{key}_PORT_{first[0]}_{protocol.upper()}"
                lines += [f"{at}_{end}={protocol}://{self.address}:{port}", f"{at}_PORT_{end}={port}"]
        lines.append(f"{key}_NAME=/{self.owner}/{self.alias}")
        for variable in self.exposed.environment:
            name, given, _ = variable.partition("=")
            if given and name not in _PRIVATE:
                lines.append(f"{key}_ENV_{variable}")
        return lines

    def maps(self, source: Address) -> list[LinkMap]:
        """The firewall exceptions for the owner, whose address is `source`."""
        return [LinkMap(source, self.address, protocol, port) for port, protocol in self.exposed.ports]


Port = tuple[int, str]


def _ranges(ports: Sequence[Port]) -> list[tuple[Port, Port]]:
    """First and last of runs of three or more consecutive ports, whatever their protocols, as with dockerd."""
    runs = itertools.groupby(enumerate(ports), lambda item: item[1][0] - item[0])
    found = [[port for _, port in run] for _, run in runs]
    return [(run[0], run[-1]) for run in found if len(run) > 2]


def exposed_of(guest: Guest) -> Exposed:
    """The ports in dockerd's order, the configured environment and host name."""
    return Exposed(tuple(sorted(parse_port(name) for name in guest.exposed)), tuple(guest.environment), guest.hostname)


def variables_of(links: Iterable[Link]) -> tuple[str, ...]:
    """The variables of all links, in order."""
    return tuple(variable for link in links for variable in link.variables())
