"""Names on networks: zones, and each container's view of them. In memory; no IO.

A `Zone` has a network's names; several endpoints may share one (an alias), and are then rotated. A `View` is what a
container can resolve: the zones of its own networks, and its links. A name may be qualified: `web.front`.
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address

from havre.dataplane.ipam import Address


class Zone:
    """The names of one network."""

    def __init__(self, network: str) -> None:
        self.network = network
        self._names: dict[str, dict[str, tuple[Address, ...]]] = {}
        self._owners: dict[Address, tuple[str, str]] = {}

    def add(self, endpoint: str, names: Sequence[str], addresses: Iterable[Address]) -> None:
        """Register an endpoint under `names`; reverse lookups of its addresses return the first."""
        known = tuple(addresses)
        for name in names:
            self._names.setdefault(name.lower(), {})[endpoint] = known
        for address in known if names else ():
            self._owners[address] = (endpoint, names[0])

    def remove(self, endpoint: str) -> None:
        """Remove an endpoint. Idempotent."""
        for name, owners in list(self._names.items()):
            if owners.pop(endpoint, None) is not None and not owners:
                del self._names[name]
        self._owners = {address: owner for address, owner in self._owners.items() if owner[0] != endpoint}

    def resolve(self, name: str) -> list[Address] | None:
        """The addresses of a lower-case name, rotated at each call; None for an unknown name."""
        owners = self._names.get(name)
        if owners is None:
            return None
        found = [address for addresses in owners.values() for address in addresses]
        if len(found) > 1:
            random.shuffle(found)
        return found

    def name_of(self, address: Address) -> str | None:
        """`NAME.NETWORK` of the endpoint with this address; None for an unknown one."""
        owner = self._owners.get(address)
        return f"{owner[1]}.{self.network}" if owner else None


@dataclass
class View:
    """What one container can resolve: `links` are its private names for others, by network."""

    zones: list[Zone] = field(default_factory=list)
    links: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def resolve(self, name: str) -> list[Address] | None:
        """The addresses of a lower-case name, from the first network that has it; None for an unknown name."""
        for zone in self.zones:
            for wanted in (name, name.removesuffix(f".{zone.network.lower()}")):
                linked = self.links.get(zone.network, {}).get(wanted, wanted)
                if (found := zone.resolve(linked)) is not None:
                    return found
        return None

    def name_of(self, text: str) -> str | None:
        """The name of an address, given as text; None for an unknown or invalid one."""
        try:
            address = ip_address(text)
        except ValueError:
            return None
        return next((name for zone in self.zones if (name := zone.name_of(address)) is not None), None)


def parse_links(links: Iterable[str]) -> dict[str, str]:
    """`--link NAME:ALIAS` as alias to name, in lower case; without an alias the name itself is the alias."""
    found: dict[str, str] = {}
    for link in links:
        name, colon, alias = link.partition(":")
        name = name.removeprefix("/").lower()
        found[alias.removeprefix("/").rpartition("/")[2].lower() if colon else name] = name
    return found
