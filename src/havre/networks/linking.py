"""Links of running containers on the default bridge: firewall rules and /etc/hosts, kept up to date.

The texts of a link are in `links`; this module follows containers that start, stop and are renamed.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping

from havre.dataplane.firewall import Firewall
from havre.dataplane.plan import LinkMap
from havre.errors import Conflict, Failed
from havre.networks.links import Link
from havre.networks.rows import NetworkRows
from havre.networks.sandbox import Held
from havre.wire.values import ContainerId

Relinked = Callable[[ContainerId, list[tuple[str, str]], list[tuple[str, str]]], Awaitable[None]]
"""Called when a running container's lines of links in /etc/hosts change: old lines, new lines."""


class Linking:
    """The links among the containers in `held`, a view of those running. Messages are dockerd's."""

    def __init__(
        self, rows: NetworkRows, firewall: Firewall, held: Mapping[ContainerId, Held], relinked: Relinked
    ) -> None:
        self._rows = rows
        self._firewall = firewall
        self._held = held
        self._relinked = relinked

    def check(self, held: Held) -> None:
        """Refuse a start with links to missing containers."""
        default = self._rows.named("bridge")
        for alias, name in held.wanted_links.items():
            other = self._meant(held, alias, name)
            if other is None:
                raise Conflict(f"Cannot link to a non running container: /{name} AS /{held.name}/{alias}")
            if default is None or default.id not in other.endpoints:
                raise Failed(f"Cannot link to /{other.name}, as it does not belong to the default network")

    async def follow(self) -> None:
        """Update the links of every container in the firewall and in /etc/hosts."""
        for held in [each for each in self._held.values() if each.wanted_links or each.links]:
            meant = self._links_of(held)
            if meant == held.links:
                continue
            old, lines, held.links = self.maps_of(held), held.link_lines(), meant
            await self._firewall.relink(old, self.maps_of(held))
            if held.sandbox is not None:
                await self._relinked(ContainerId(held.id), lines, held.link_lines())

    async def unlink(self, id: ContainerId, alias: str) -> None:
        """Remove the link `alias` of a container."""
        self._held[id].wanted_links.pop(alias.lower(), None)
        await self.follow()

    def rename(self, old: str, new: str) -> None:
        """Point links to the container `old` at `new`."""
        for held in self._held.values():
            links = held.wanted_links.items()
            held.wanted_links = {alias: new.lower() if name == old.lower() else name for alias, name in links}

    def find(self) -> None:
        """Resolve the links of adopted containers."""
        for held in self._held.values():
            held.links = self._links_of(held)

    def maps(self) -> list[LinkMap]:
        """The firewall exceptions for the links of all containers."""
        return [each for held in self._held.values() for each in self.maps_of(held)]

    def maps_of(self, held: Held) -> list[LinkMap]:
        """The firewall exceptions for one container's links."""
        bridge = next((end for end in held.endpoints.values() if end.bridge.name == "bridge"), None)
        if bridge is None or bridge.bridge.icc:
            return []
        assert bridge.address is not None, "the default bridge has IPv4"
        return [each for link in held.links for each in link.maps(bridge.address)]

    def _links_of(self, held: Held) -> list[Link]:
        """The links of `--link` on the default bridge; a stopped target keeps its last address."""
        network = self._rows.named("bridge")
        if network is None or network.id not in held.endpoints:
            return []
        before = {link.alias: link for link in held.links}
        links = []
        for alias, name in held.wanted_links.items():
            other = self._meant(held, alias, name)
            end = other.endpoints.get(network.id) if other is not None else None
            if other is not None and end is not None and end.address is not None:
                links.append(Link(held.name, alias, other.id, other.name, end.address, other.exposed))
            elif alias in before:
                links.append(before[alias])
        return links

    def _meant(self, held: Held, alias: str, name: str) -> Held | None:
        """The running target of a link, by lower-case name, ID or short ID, if it is still the same container."""
        known = (other for other in self._held.values() if name in (other.name.lower(), other.id, other.id[:12]))
        other = next(known, None)
        return other if other is not None and other.id == held.link_ids.get(alias, other.id) else None
