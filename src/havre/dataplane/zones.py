"""Names on networks: who is called what, and what one container may know of it. In memory alone; no IO.

A `Zone` is a network's names; several endpoints may share one (an alias), and then each gets its turn. A `View` is what
a container sees: the zones of its own networks, and its links. A name may be followed by the network's: `web.front`.
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
        """Let an endpoint be known by `names`, the first of which its addresses answer with."""
        known = tuple(addresses)
        for name in names:
            self._names.setdefault(name.lower(), {})[endpoint] = known
        for address in known if names else ():
            self._owners[address] = (endpoint, names[0])

    def remove(self, endpoint: str) -> None:
        """Forget an endpoint. Idempotent."""
        for name, owners in list(self._names.items()):
            if owners.pop(endpoint, None) is not None and not owners:
                del self._names[name]
        self._owners = {address: owner for address, owner in self._owners.items() if owner[0] != endpoint}

    def resolve(self, name: str) -> list[Address] | None:
        """Addresses by a lower-case name, in a new order each time; None when nobody is called so."""
        owners = self._names.get(name)
        if owners is None:
            return None
        found = [address for addresses in owners.values() for address in addresses]
        if len(found) > 1:
            random.shuffle(found)
        return found

    def name_of(self, address: Address) -> str | None:
        """`NAME.NETWORK` of the endpoint that has an address."""
        owner = self._owners.get(address)
        return f"{owner[1]}.{self.network}" if owner else None


@dataclass
class View:
    """What one container sees: `links` are names of its own for others', by network."""

    zones: list[Zone] = field(default_factory=list)
    links: dict[str, Mapping[str, str]] = field(default_factory=dict)

    def resolve(self, name: str) -> list[Address] | None:
        """Addresses by a lower-case name, of the first network that knows it; None when none does."""
        for zone in self.zones:
            for wanted in (name, name.removesuffix(f".{zone.network.lower()}")):
                linked = self.links.get(zone.network, {}).get(wanted, wanted)
                if (found := zone.resolve(linked)) is not None:
                    return found
        return None

    def name_of(self, text: str) -> str | None:
        """Who has an address, given as text; None for nobody and for what is no address."""
        try:
            address = ip_address(text)
        except ValueError:
            return None
        return next((name for zone in self.zones if (name := zone.name_of(address)) is not None), None)


def parse_links(links: Iterable[str]) -> dict[str, str]:
    """`--link NAME:ALIAS` as alias to name, in lower case; without an alias the name is its own."""
    found: dict[str, str] = {}
    for link in links:
        name, colon, alias = link.partition(":")
        name = name.removeprefix("/").lower()
        found[alias.removeprefix("/").rpartition("/")[2].lower() if colon else name] = name
    return found
