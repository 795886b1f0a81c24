"""Names of running containers: DNS zones of the networks, name servers of the containers, hosts and resolv.conf.

On a user-defined network a container is registered in the network's `Zone`; its own name server answers from the zones
of its networks and forwards other questions. On the default bridge names are in hosts files only.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from havre.aio import in_thread
from havre.dataplane import hostfiles as files
from havre.dataplane import nameserver
from havre.dataplane.apply import Host
from havre.dataplane.nameserver import NameServer, Quota
from havre.dataplane.plan import Endpoint
from havre.dataplane.zones import View, Zone, parse_links
from havre.networks import sandbox as texts
from havre.networks import spec as words
from havre.networks.guest import Guest
from havre.networks.hostview import KERNEL_IPV6, host_resolver, read
from havre.networks.rows import NetworkOptions, NetworkRows
from havre.networks.sandbox import Held
from havre.networks.spec import Network


class Naming:
    """The zones of the networks, and the name servers of the containers."""

    def __init__(self, rows: NetworkRows, options: NetworkOptions, host: Host) -> None:
        self._rows = rows
        self._options = options
        self._host = host
        self._zones: dict[str, Zone] = {}
        self._quota = Quota()

    def forget_network(self, network_id: str) -> None:
        """Drop the zone of a removed network."""
        self._zones.pop(network_id, None)

    def left(self, network: Network, endpoint: Endpoint) -> None:
        """Remove an endpoint's names from a network."""
        self._zone(network).remove(endpoint.id)

    def _zone(self, network: Network) -> Zone:
        return self._zones.setdefault(network.id, Zone(network.name))

    def is_named(self, held: Held) -> bool:
        """Whether it is on a network of a user's, where names are answered."""
        return any(self._rows[network_id].name not in words.PREDEFINED for network_id in held.endpoints)

    async def name(self, held: Held, guest: Guest) -> None:
        """Register the container's names on its user-defined networks, and start or update its name server."""
        if not self.is_named(held):
            return
        for network_id, endpoint in held.endpoints.items():
            network = self._rows[network_id]
            if network.name not in words.PREDEFINED:
                names = guest.dns_names(held.asked[network_id])
                self._zone(network).add(endpoint.id, names, endpoint.addresses)
        if held.names is None:
            if held.sockets is None or not held.led:
                await self._lead_names(held, guest.pid)
            assert held.sockets is not None, "they were adopted or opened above"
            held.names = await NameServer.serve(held.sockets, View(), nameserver.Upstream(), self._quota, held.name)
        self.see(held, guest)

    async def _lead_names(self, held: Held, pid: int) -> None:
        """Redirect DNS queries to the sockets that conmon has kept for a running container, or to new ones."""
        assert held.netns is not None, "a container on a bridge has a namespace"
        held.sockets = held.sockets or await in_thread(nameserver.find_sockets, pid)
        if held.sockets is None:
            held.sockets = await self._host.inside(held.netns, nameserver.open_sockets)
        elif not (held.led and held.sockets.are_bound):
            await self._host.inside(held.netns, held.sockets.lead)
        held.led = True

    def see(self, held: Held, guest: Guest) -> None:
        """Update the name server's view to the container's current networks."""
        networks = [self._rows[id] for id in held.endpoints if self._rows[id].name not in words.PREDEFINED]
        links = {network.name: parse_links(held.asked[network.id].links or ()) for network in networks}
        assert held.names is not None, "only a name server has a view"
        held.names.view = View([self._zone(network) for network in networks], dict(links))
        held.names.upstream = texts.upstream_of(guest, held, host_resolver(self._options.resolver))

    def forget(self, held: Held) -> None:
        """Remove the container's names from DNS; its own name server stays. Idempotent."""
        for network_id, endpoint in held.endpoints.items():
            if network_id in self._zones:
                self._zones[network_id].remove(endpoint.id)

    def unname(self, held: Held) -> None:
        """The same, and end its name server."""
        self.forget(held)
        close_names(held)

    def rename(self, held: Held, guest: Guest) -> None:
        """Replace the container's names in DNS by its present ones."""
        for network_id, endpoint in held.endpoints.items():
            if network_id in self._zones:
                self._zones[network_id].remove(endpoint.id)
                names = guest.dns_names(held.asked[network_id])
                self._zones[network_id].add(endpoint.id, names, endpoint.addresses)

    def files_of(self, held: Held, guest: Guest) -> tuple[str, str]:
        """The texts of /etc/hosts and resolv.conf."""
        extra = guest.extra_hosts
        if held.netns is None:
            hosts = files.append_hosts(read(Path("/etc/hosts")), extra, self._host_gateways())
        else:
            own = texts.own_hosts(guest, held.endpoints.values())
            lines, ipv6 = [*held.link_lines(), *own], KERNEL_IPV6.exists() and guest.ipv6_loopback
            hosts = files.render_hosts(lines, extra, self._host_gateways(), ipv6=ipv6)
        resolver = texts.resolver_of(guest, host_resolver(self._options.resolver), shares_host=held.netns is None)
        if held.names is not None:
            resolver = files.embedded_resolver(resolver, nameserver.ADDRESS)
        return hosts, files.render_resolv_conf(resolver)

    def _host_gateways(self) -> Sequence[str]:
        """The addresses of `host-gateway`: the default bridge's, unless configured."""
        network = self._rows.named("bridge")
        pools = self._rows.bridge(network.id).pools if network is not None else ()
        return self._options.host_gateways or [str(pool.gateway) for pool in pools if pool.gateway is not None]


def close_names(held: Held) -> None:
    """End a container's name server, and close its sockets here."""
    if held.names is not None:
        held.names.close()
        held.names = None
    if held.sockets is not None:
        held.sockets.close()
        held.sockets = None
