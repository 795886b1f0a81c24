"""The part of a container's row that networks need, and its links. Pure.

A link (`--link NAME:ALIAS` on the default bridge) refers to the container that has the name when the link is created or
the daemon starts, not to a later container with that name. Renaming the linked container updates the link.
Source: Docker's "Legacy container links".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from msgspec.structs import replace

from havre.containers.container import Container
from havre.dataplane.zones import parse_links
from havre.networks.guest import Guest
from havre.wire.config import EndpointSettings

_BRIDGE = ("", "default", "bridge")  # network modes
_WITHOUT_IPV6 = ("net.ipv6.conf.all.disable_ipv6", "net.ipv6.conf.lo.disable_ipv6")


def idle_networks(container: Container) -> dict[str, EndpointSettings]:
    """The networks of a stopped container: as requested, with the network IDs of the last run."""
    known = {name: endpoint.network_id for name, endpoint in container.run.networks.items()}
    return {
        name: replace(asked, network_id=known.get(name) or asked.network_id)
        for name, asked in container.spec.networks.items()
    }


def guest_of(container: Container) -> Guest:
    """The request of the container to the networks."""
    config, host = container.spec.config, container.spec.host_config
    given = host.sysctls or {}
    return Guest(
        id=container.id,
        name=container.name.lstrip("/"),
        mode=_main_network(container),
        hostname=config.hostname,
        domainname=config.domainname,
        asked=_asked_of(container),
        exposed=tuple(config.exposed_ports or ()),
        bindings=host.port_bindings or {},
        publish_all=host.publish_all_ports,
        dns=tuple(host.dns or ()),
        dns_search=tuple(host.dns_search or ()),
        dns_options=tuple(host.dns_options or ()),
        extra_hosts=tuple(host.extra_hosts or ()),
        ipv6_loopback=not any(given.get(name) == "1" for name in _WITHOUT_IPV6),
        environment=tuple(config.env or ()),
        links=links_of(container),
        link_ids=container.run.link_ids,
        ids=container.run.ids,
        pid=container.state.pid,
        endpoints=container.run.networks,
        ports=container.run.ports,
    )


def _main_network(container: Container) -> str:
    """Name or ID of the network in the network mode."""
    mode = container.spec.host_config.network_mode
    return "bridge" if mode in ("", "default") else mode


def _asked_of(container: Container) -> Mapping[str, EndpointSettings]:
    """The requested endpoints by network name, that of the network mode first."""
    if container.spec.config.network_disabled:
        return {"none": EndpointSettings()}
    asked, mode = container.spec.networks, _main_network(container)
    return {mode: asked[mode], **asked} if mode in asked else asked


def own_hosts_of(container: Container) -> list[tuple[str, str]]:
    """The container's own lines in /etc/hosts (address, names), from the row of a running container."""
    names = guest_of(container).host_names
    ends = container.run.networks.values()
    return [(text, names) for end in ends for text in (end.ip_address, end.global_ipv6_address) if text and names]


def links_of(container: Container) -> dict[str, str]:
    """Names by alias of the links on the default bridge; on other networks links belong to the endpoint."""
    host = container.spec.host_config
    return parse_links(host.links or ()) if host.network_mode in _BRIDGE else {}


def ids_of_links(container: Container, others: Iterable[Container]) -> dict[str, str]:
    """IDs by alias of the containers that have the names now."""
    if not (links := links_of(container)):
        return {}
    names = {other.name.lower(): other.id for other in others}
    return {alias: names[name] for alias, name in links.items() if name in names}


def shown_links(container: Container) -> list[str]:
    """The links as `inspect` shows them: `/NAME:/OWNER/ALIAS` on the default bridge, unchanged on other networks."""
    given = container.spec.host_config.links or []
    if container.spec.host_config.network_mode not in _BRIDGE:
        return list(given)
    return [f"/{name}:/{container.name}/{alias}" for name, _, alias in (link.partition(":") for link in given)]


def linked_names(containers: Iterable[Container]) -> dict[str, list[str]]:
    """Names `/OWNER/ALIAS` that other containers' links give a container, by its lower-case name."""
    names: dict[str, list[str]] = {}
    for container in containers:
        if links_of(container):
            for link in shown_links(container):
                name, _, alias = link.removeprefix("/").partition(":")
                names.setdefault(name.lower(), []).append(alias)
    return names


def renamed_links(links: Iterable[str], old: str, new: str) -> list[str]:
    """`NAME:ALIAS` of each link after the container `old` was renamed to `new`."""
    named = ((link, *link.removeprefix("/").partition(":")) for link in links)
    return [f"{new}:{alias or name}" if name.lower() == old.lower() else link for link, name, _, alias in named]


def links_without(links: Iterable[str], alias: str) -> list[str]:
    """The links except the one with this alias."""
    return [link for link in links if alias.lower() not in parse_links((link,))]
