"""Published ports of running containers: reserved by sockets, forwarded by the firewall, relayed where rules cannot.

They lead to the endpoint with the default route, and move with it. Callers serialize changes of one container.
Messages are dockerd's.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack
from dataclasses import replace

from havre.dataplane.apply import Host
from havre.dataplane.firewall import Firewall
from havre.dataplane.plan import Endpoint
from havre.dataplane.ports import Ports, Publish, Reservation
from havre.dataplane.relay import relay_budget
from havre.errors import Conflict, Failed
from havre.networks import sandbox as texts
from havre.networks import spec as words
from havre.networks.guest import Guest
from havre.networks.hostview import ephemeral_range
from havre.networks.rows import NetworkOptions, NetworkRows
from havre.networks.sandbox import Held

log = logging.getLogger(__name__)


class Publishing:
    """The published ports of all running containers."""

    def __init__(self, rows: NetworkRows, options: NetworkOptions, host: Host, firewall: Firewall) -> None:
        self._rows = rows
        self._host = host
        self._firewall = firewall
        self._ports = Ports(ephemeral_range(), relays=options.relays, ruled=options.ruled, api=options.api)
        self._relayed = relay_budget()

    def hold(self, held: Held, guest: Guest) -> None:
        """Reserve the requested ports, fixed ones first."""
        endpoint = held.gateway()
        if endpoint is None or not endpoint.bridge.on_host:
            return  # it has its own device in the outside network
        wishes = self.wishes(endpoint, guest)
        try:
            for wish in sorted(wishes, key=texts.freedom):
                held.reservations.append(
                    self._ports.reserve(wish, endpoint.address, held.name, target6=endpoint.address6)
                )
        except Failed as error:
            where = f"driver failed programming external connectivity on endpoint {held.name} ({endpoint.id})"
            raise Failed(f"{where}: {error.message}", error.hint) from error
        held.reservations.sort(key=lambda each: wishes.index(each.wish))

    def wishes(self, endpoint: Endpoint, guest: Guest) -> list[Publish]:
        """The requested ports, with `endpoint` as their target."""
        options = self._rows[endpoint.bridge.id].options
        bindings = options.get(words.HOST_BINDING, ""), options.get(words.HOST_BINDING6, "")
        return texts.wishes_of(guest, *bindings, endpoint.bridge.access)

    async def move(self, held: Held, guest: Guest, old: Endpoint, new: Endpoint | None) -> None:
        """Point the published ports at another endpoint or, without one, release them."""
        if new is None or new.bridge.access != old.bridge.access:
            await self.retract(held)
            self.hold(held, guest)
        else:
            await self._firewall.retract(held.maps())
            for reservation in held.reservations:
                reservation.retarget(new.address, new.address6)
        await self._firewall.publish(held.maps())
        self.serve(held)

    async def take(
        self, held: Held, guest: Guest, others: Sequence[tuple[Held, Guest]]
    ) -> Mapping[str, Sequence[Publish]]:
        """Publish a running container's requested ports that are not yet published, in one firewall transaction.

        Ports of `others` are taken over; their established connections continue. Returns what each gave up, by ID.
        """
        endpoint = held.gateway()
        if endpoint is None or not endpoint.bridge.on_host:
            raise Conflict(f"container {held.name} has no network that ports can be published on")
        own = [(held, each) for each in held.reservations]
        offered = [(other, each) for other, _ in others for each in other.reservations]
        new: list[Reservation] = []
        taken: list[tuple[Held, Reservation, Reservation]] = []
        async with AsyncExitStack() as undo:
            for wish in self.wishes(endpoint, guest):
                if _pick(own, wish):
                    continue
                if wish.hosts and (found := _pick(offered, wish)):
                    heir = found[1].for_heir(wish, endpoint.address, held.name, endpoint.address6)
                    taken.append((*found, heir))
                else:
                    new.append(self._ports.reserve(wish, endpoint.address, held.name, endpoint.address6))
                    undo.callback(self._ports.release, new[-1])
            opened = [port for each in (*new, *(heir for _, _, heir in taken)) for port in each.maps()]
            await self._firewall.exchange([port for _, given, _ in taken for port in given.maps()], opened)
            undo.pop_all()
        for other, given, heir in taken:
            self._ports.hand_over(given, heir)
            other.reservations.remove(given)
            other.given.update(port.address for port in given.maps())
            new.append(heir)
        held.reservations += new
        for each in new:
            try:
                each.serve(self._relayed)
            except OSError as error:  # the firewall forwards it all the same
                log.error("container %s is not served at port %d: %s", held.name, each.host_port, error)
        return {other.id: [given.wish for owner, given, _ in taken if owner is other] for other, _ in others}

    async def retract(self, held: Held) -> None:
        """Release all ports of a container, and drop their connections' state."""
        maps = held.maps()
        for reservation in held.reservations:
            self._ports.release(reservation)
        held.reservations.clear()
        await self._firewall.retract(maps)
        for address in {port.address for port in maps} | held.given:
            await self._host.forget_flows(address)

    def serve(self, held: Held) -> None:
        """Start the relays of its ports."""
        for reservation in held.reservations:
            reservation.serve(self._relayed)

    def hold_again(self, held: Held, guest: Guest, target: Endpoint) -> None:
        """Reserve the ports that a container had under another daemon, each for its requested binding."""
        for wish, number in texts.numbered(self.wishes(target, guest), guest.ports):
            same = replace(wish, first=number, last=number) if number else wish
            try:
                reservation = self._ports.reserve(same, target.address, held.name, target.address6)
            except Failed as error:
                log.error("container %s is no longer reachable at a published port: %s", held.name, error)
                continue
            reservation.wish = wish
            held.reservations.append(reservation)

    def let_go(self, held: Held) -> None:
        """Close the sockets; the kernel's state stays."""
        for reservation in held.reservations:
            self._ports.release(reservation)


def _pick(pool: list[tuple[Held, Reservation]], wish: Publish) -> tuple[Held, Reservation] | None:
    """Remove from `pool`, and return, the container that publishes the requested port, and its reservation."""
    found = next((number for number, (_, each) in enumerate(pool) if each.meets(wish)), None)
    return pool.pop(found) if found is not None else None
