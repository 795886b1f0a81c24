"""`--link NAME:ALIAS` on the default bridge, which has no name server: what one container is told of another. Pure.

    hosts       172.17.0.2  alias hostname name                corrected when the other one gets another address
    variables   ALIAS_PORT=tcp://172.17.0.2:80  ALIAS_PORT_80_TCP_ADDR=...  ALIAS_NAME=/own/alias  ALIAS_ENV_X=...
                of three ports in a row and more also ALIAS_PORT_80_TCP_START=...  ALIAS_PORT_80_TCP_END=...
    rules       without inter-container traffic (icc) a link lets through what the other one exposes
    names       /own/alias is a name of the other one, too

Source: Docker's "Legacy container links". A link means the container that has the name when the link is made, or when
the daemon starts; another one that gets the name later is not meant. A link follows a renaming.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from havre.engine.model import Container
from havre.network.ipam import Address
from havre.network.plan import LinkMap
from havre.network.ports import parse_port
from havre.network.zones import parse_links

_PRIVATE = ("HOME", "PATH")
_BRIDGE = ("", "default", "bridge")  # network modes


@dataclass(frozen=True)
class Exposed:
    """What a container shows to those that link to it: its ports, its environment and what it calls itself."""

    ports: tuple[tuple[int, str], ...] = ()
    environment: tuple[str, ...] = ()
    hostname: str = ""


@dataclass(frozen=True)
class Link:
    """One link of a running container: `owner` calls the container `name` (`id`), which has `address`, `alias`."""

    owner: str
    alias: str
    id: str
    name: str
    address: Address
    exposed: Exposed

    def host_line(self) -> tuple[str, str]:
        """Address and names, for hosts."""
        names = (self.alias, self.exposed.hostname or self.id[:12], self.name)
        return str(self.address), " ".join(dict.fromkeys(names))

    def variables(self) -> list[str]:
        """`NAME=VALUE` as dockerd sets them."""
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
        """What the firewall lets through for the owner, who has the address `source`."""
        return [LinkMap(source, self.address, protocol, port) for port, protocol in self.exposed.ports]


def links_of(container: Container) -> dict[str, str]:
    """Alias to name of the links on the default bridge; elsewhere they are the endpoint's."""
    host = container.host_config
    return parse_links(host.links or ()) if host.network_mode in _BRIDGE else {}


def ids_of_links(container: Container, others: Iterable[Container]) -> dict[str, str]:
    """Alias to the ID of the container that has the name now."""
    if not (links := links_of(container)):
        return {}
    names = {other.name.lower(): other.id for other in others}
    return {alias: names[name] for alias, name in links.items() if name in names}


def shown_links(container: Container) -> list[str]:
    """The links as `inspect` shows them: `/NAME:/OWNER/ALIAS` on the default bridge, as they were given elsewhere."""
    given = container.host_config.links or []
    if container.host_config.network_mode not in _BRIDGE:
        return list(given)
    return [f"/{name}:/{container.name}/{alias}" for name, _, alias in (link.partition(":") for link in given)]


def linked_names(containers: Iterable[Container]) -> dict[str, list[str]]:
    """By name of a container (in lower case) what others call it: `/OWNER/ALIAS`."""
    names: dict[str, list[str]] = {}
    for container in containers:
        if links_of(container):
            for link in shown_links(container):
                name, _, alias = link.removeprefix("/").partition(":")
                names.setdefault(name.lower(), []).append(alias)
    return names


def renamed_links(links: Iterable[str], old: str, new: str) -> list[str]:
    """`NAME:ALIAS` of each link, where the container `old` is now called `new`."""
    named = ((link, *link.removeprefix("/").partition(":")) for link in links)
    return [f"{new}:{alias or name}" if name.lower() == old.lower() else link for link, name, _, alias in named]


def links_without(links: Iterable[str], alias: str) -> list[str]:
    """The links but the one that is called `alias`."""
    return [link for link in links if alias.lower() not in parse_links((link,))]


Port = tuple[int, str]


def _ranges(ports: Sequence[Port]) -> list[tuple[Port, Port]]:
    """First and last of three sorted ports in a row and more, whatever their protocols, as dockerd sees ranges."""
    runs = itertools.groupby(enumerate(ports), lambda item: item[1][0] - item[0])
    found = [[port for _, port in run] for _, run in runs]
    return [(run[0], run[-1]) for run in found if len(run) > 2]


def exposed_of(container: Container) -> Exposed:
    """The ports in dockerd's order, the configured environment and hostname."""
    config = container.config
    ports = sorted(parse_port(name) for name in config.exposed_ports or {})
    return Exposed(tuple(ports), tuple(config.env or ()), config.hostname)


def variables_of(links: Iterable[Link]) -> tuple[str, ...]:
    """The variables of all links, in their order."""
    return tuple(variable for link in links for variable in link.variables())
