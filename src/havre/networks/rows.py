"""The rows of networks: load, find and list them, and decide on new ones.

Holds the rows in memory and in their table, with the `Bridge` of each bridge network. Does not touch the kernel.
Messages are dockerd's.
"""

from __future__ import annotations

import itertools
import logging
import secrets
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import IPv4Network
from itertools import islice
from typing import Protocol

import msgspec

from havre.dataplane import ipam
from havre.dataplane.hostfiles import Resolver
from havre.dataplane.ipam import Address, Pool, Subnet
from havre.dataplane.plan import Bridge
from havre.errors import Conflict, Forbidden, HavreError, InvalidInput, NotFound
from havre.linux.netlink import Interface
from havre.networks import spec as words
from havre.networks.defaultbridge import DefaultBridge
from havre.networks.spec import ConfigReference, Ipam, IpamPool, Network, NetworkSpec, bridge_of
from havre.storage.salvage import readable_fields
from havre.wire import times
from havre.wire.filters import Filters, boolean, check_keys, matches_exactly, matches_labels, matches_pattern

log = logging.getLogger(__name__)

_SHORT_ID = 12
OVERLAY_POOLS = tuple(islice(IPv4Network("10.0.0.0/8").subnets(new_prefix=24), 1, 1024))
"""Docker's default pools for overlay networks."""


class NetworkTable(Protocol):
    """The table of networks, by ID."""

    @property
    def damaged(self) -> Mapping[str, bytes]: ...
    async def all(self) -> dict[str, Network]: ...
    async def put(self, key: str, value: Network) -> None: ...
    async def delete(self, key: str) -> None: ...


@dataclass(frozen=True)
class NetworkOptions:
    """The daemon's settings. `tag` distinguishes daemons on one host; it is part of table and bridge names.

    `pools` are bases with the prefix length of networks cut from them, empty for Docker's defaults. `defaults` are
    options of new networks, by driver. `relays`: userland sockets serve published ports that rules cannot.
    `forwarding`: enable IP forwarding on the host. `publish_policy` docker: published ports override the host's own
    firewall; host: they do not. `host_gateways` are the addresses of `host-gateway`, () for the default bridge's.
    `ruled` are the IP versions with nftables rules; without, there is no NAT or isolation, and only relays serve
    published ports. `api` are the daemon's own TCP addresses.
    """

    tag: str = ""
    bridge: DefaultBridge = field(default_factory=DefaultBridge)
    resolver: Resolver = field(default_factory=Resolver)
    pools: tuple[tuple[Subnet, int], ...] = ()
    defaults: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    relays: bool = True
    forwarding: bool = True
    publish_policy: str = "host"
    host_gateways: tuple[str, ...] = ()
    ruled: frozenset[int] = frozenset({4, 6})
    api: tuple[tuple[Address, int], ...] = ()

    @property
    def table(self) -> str:
        """The daemon's nftables table."""
        return f"havre_{self.tag}" if self.tag else "havre"

    @property
    def link(self) -> str:
        """The default bridge's device."""
        if self.bridge.link and self.bridge.wanted:
            return self.bridge.link
        return f"havre-{self.tag}" if self.tag else "havre0"


class NetworkRows:
    """The networks by ID, and their bridges."""

    def __init__(self, table: NetworkTable) -> None:
        self._table = table
        self._networks: dict[str, Network] = {}
        self._bridges: dict[str, Bridge] = {}
        self._unusable: dict[str, str] = {}  # unreadable rows: names by ID

    async def load(self) -> None:
        """Read the rows. A damaged one is logged and left out, but stays in the database until `discard`."""
        self._networks, self._bridges = {}, {}
        for id, row in (await self._table.all()).items():
            try:
                self.add(row)
            except (HavreError, ValueError, KeyError) as error:
                log.error("network %s (%s) cannot be used: %s", row.name, id, error)
                self._unusable[id] = row.name
        for id, value in self._table.damaged.items():
            self._unusable[id] = str(readable_fields(value, Network).get("name", ""))
        for id, name in list(self._unusable.items()):
            if name in words.PREDEFINED:  # created anew
                await self._table.delete(id)
                del self._unusable[id]
                continue
            log.error("network %s is damaged: remove it with `network rm %s`", name or "without a name", id)

    async def discard(self, name_or_id: str) -> bool:
        """Delete the row of an unreadable network; False if there is none with that name or ID."""
        for id, name in self._unusable.items():
            if name_or_id in (id, name) or (len(name_or_id) >= _SHORT_ID and id.startswith(name_or_id)):
                await self._table.delete(id)
                del self._unusable[id]
                return True
        return False

    def __iter__(self) -> Iterator[Network]:
        return iter(list(self._networks.values()))

    def __contains__(self, id: object) -> bool:
        return id in self._networks

    def __getitem__(self, id: str) -> Network:
        return self._networks[id]

    def get(self, id: str) -> Network | None:
        """The network with exactly this ID."""
        return self._networks.get(id)

    def bridge(self, id: str) -> Bridge:
        """The bridge of a network. KeyError for host, none and configuration-only networks."""
        return self._bridges[id]

    def pools(self, id: str) -> Sequence[Pool]:
        """The subnets of a network; none of host, none and configuration-only networks."""
        bridge = self._bridges.get(id)
        return bridge.pools if bridge is not None else ()

    def bridges(self) -> Collection[Bridge]:
        """The networks that are bridges on the host."""
        return [bridge for bridge in self._bridges.values() if bridge.on_host]

    def children(self) -> Collection[Bridge]:
        """The networks with a parent device."""
        return [bridge for bridge in self._bridges.values() if not bridge.on_host]

    def on_parent(self, parent: str) -> list[Bridge]:
        """The networks on one parent device."""
        return [bridge for bridge in self.children() if bridge.parent == parent]

    def add(self, network: Network) -> None:
        """Add a network in memory; `save` stores it."""
        if _has_bridge(network):
            self._bridges[network.id] = bridge_of(network)  # raises if it is invalid
        self._networks[network.id] = network

    async def save(self, network: Network) -> None:
        """Store a row."""
        await self._table.put(network.id, network)

    def forget(self, id: str) -> Bridge | None:
        """Remove a network from memory. Returns its bridge, if any."""
        self._networks.pop(id, None)
        return self._bridges.pop(id, None)

    async def delete(self, id: str) -> None:
        """Delete a row."""
        await self._table.delete(id)

    def named(self, name: str) -> Network | None:
        """The network with exactly this name."""
        return next((network for network in self._networks.values() if network.name == name), None)

    def find(self, name_or_id: str) -> Network:
        """The network with this ID, name, or unambiguous ID prefix."""
        if name_or_id in self._networks:
            return self._networks[name_or_id]
        named = self.named("bridge" if name_or_id == "default" else name_or_id)
        if named is not None:
            return named
        matches = [row for id, row in self._networks.items() if name_or_id and id.startswith(name_or_id)]
        if len(matches) > 1:
            raise InvalidInput(f"network {name_or_id} is ambiguous ({len(matches)} matches found on ID prefix)")
        if not matches:
            raise NotFound(f"network {name_or_id} not found")
        return matches[0]

    def listed(self, filters: Filters, in_use: Callable[[str], bool]) -> list[Network]:
        """The networks that match Docker's filters; `in_use` reports whether containers are on one."""
        check_keys(filters, ("dangling", "driver", "id", "label", "label!", "name", "scope", "type"))
        for kind in filters.get("type", ()):
            if kind not in ("builtin", "custom"):
                raise InvalidInput(f"invalid filter: 'type'='{kind}'", "expected builtin or custom")
        dangling = boolean(filters, "dangling")
        return [row for row in self if _passes(row, filters) and dangling in (None, _dangles(row, in_use))]

    def decide(self, spec: NetworkSpec, options: NetworkOptions, routes: Iterable[Subnet]) -> Network:
        """The row of a new network; `routes` are the destinations of the host's routes."""
        words.check_spec(spec)
        if self.named(spec.name) is not None:
            raise Conflict(f"network with name {spec.name} already exists")
        source = spec.config_from.network if spec.config_from else ""
        if source:
            spec = self._configured(spec, source)
        id = secrets.token_hex(32)
        given = {**options.defaults.get(spec.driver or "bridge", {}), **(spec.options or {})}
        if not spec.config_only:
            given |= words.filled_in(spec.driver, given, id, {bridge.vni for bridge in self._bridges.values()})
        versions = words.enabled(spec, given)
        self._check_link(id, given.get(words.LINK, ""))
        config = (spec.ipam.config if spec.ipam else None) or []
        return Network(
            name=spec.name,
            id=id,
            created=times.now(),
            scope="swarm" if spec.driver == "overlay" else "local",
            driver="null" if spec.config_only else spec.driver or "bridge",
            enable_ipv4=4 in versions,
            enable_ipv6=6 in versions,
            ipam=Ipam(
                options=spec.ipam.options if spec.ipam else None,
                config=config if spec.config_only else self._pools(spec, options, list(routes), versions),
            ),
            internal=spec.internal,
            attachable=spec.attachable,
            config_from=ConfigReference(network=source),
            config_only=spec.config_only,
            options=given,
            labels=spec.labels or {},
        )

    def _configured(self, spec: NetworkSpec, source: str) -> NetworkSpec:
        """The request with the configuration of the network `source`, to which it may not add."""
        config = self.named(source)
        if config is None or not config.config_only:
            raise NotFound(f'configuration network "{source}" does not exist')
        versions = spec.enable_ipv6 or spec.enable_ipv4 is False
        if (spec.ipam and spec.ipam.config) or spec.options or spec.labels or versions:
            raise Forbidden(
                "user specified configurations are not supported if the network depends on a configuration network"
            )
        made = msgspec.structs.replace(
            spec,
            ipam=config.ipam,
            options=config.options,
            labels=config.labels,
            enable_ipv4=bool(config.enable_ipv4),
            enable_ipv6=config.enable_ipv6,
        )
        words.check_spec(made)
        return made

    def users_of(self, config: Network) -> list[Network]:
        """The networks that use a configuration-only network."""
        return [row for row in self if config.config_only and row.config_from.network == config.name]

    async def ensure_predefined(
        self, options: NetworkOptions, routes: Collection[Subnet], present: Sequence[Interface]
    ) -> None:
        """Create bridge, host and none if missing, and apply the daemon's options to bridge.

        `present` are the addresses of the device that the administrator created for it.
        """
        for name, driver in (("host", "host"), ("none", "null")):
            if self.named(name) is None:
                await self._keep(Network(name=name, id=secrets.token_hex(32), created=times.now(), driver=driver))
        old = self.named("bridge")
        if not options.bridge.wanted:
            if old is not None:
                self.forget(old.id)
                await self.delete(old.id)
            return
        row = old or Network(name="bridge", id=secrets.token_hex(32), created=times.now())
        busy = [*routes, *self._taken(other_than=row.id)]
        wanted = options.bridge

        def choose(version: int, preferred: Sequence[Subnet]) -> Subnet:
            return next((each for each in preferred if not ipam.overlapping(each, routes)), None) or _first_free(
                version, busy, options
            )

        pools = wanted.pools(present, (old.ipam.config if old is not None else None) or [], choose)
        self._check_pools(pools, row.id)
        said = wanted.options(options.link)
        await self._keep(msgspec.structs.replace(row, ipam=Ipam(config=pools), options=said, enable_ipv6=wanted.ipv6))

    async def _keep(self, network: Network) -> None:
        """Store a predefined network. On a full disk it is only logged; the next start creates it again."""
        if self._networks.get(network.id) == network:
            return
        self.add(network)
        try:
            await self.save(network)
        except HavreError as error:
            log.error("the network %s is not recorded: %s", network.name, error)

    def _check_pools(self, pools: Iterable[IpamPool], id: str) -> None:
        """Refuse subnets in the daemon's options that overlap a user-defined network's."""
        subnets = [words.pool_of(pool).subnet for pool in pools]
        for other in self._bridges.values():
            for pool in other.pools if other.id != id else ():
                if ipam.overlapping(pool.subnet, subnets):
                    raise Forbidden(
                        'Error initializing network controller: error creating default "bridge" network: Pool overlaps '
                        f"with other one on this address space: network {other.name} has {pool.subnet}",
                        "give --bip, --fixed-cidr or --fixed-cidr-v6 another subnet, or remove that network",
                    )

    def _taken(self, other_than: str = "") -> list[Subnet]:
        return [pool.subnet for id, bridge in self._bridges.items() if id != other_than for pool in bridge.pools]

    def _pools(
        self, spec: NetworkSpec, options: NetworkOptions, routes: list[Subnet], wanted: Collection[int]
    ) -> list[IpamPool]:
        """The user's subnets, then those chosen by the engine for the IP versions `wanted`; IPv4 first, as libnetwork
        stores them."""
        asked, taken = words.asked_pools(spec), self._taken()
        versions = set()
        for given in asked:
            subnet = words.pool_of(given).subnet
            ipam.check_free(subnet, taken)
            taken.append(subnet)
            versions.add(subnet.version)
        busy, four = [*taken, *routes], OVERLAY_POOLS if spec.driver == "overlay" else _pools_of(options, 4)
        pools = ((4, four), (6, _pools_of(options, 6)))
        missing = [each for version, each in pools if version in wanted and version not in versions]
        chosen = [ipam.choose_subnet(busy, each) for each in missing]
        return sorted([*asked, *map(_whole, chosen)], key=lambda pool: ":" in pool.subnet)

    def _check_link(self, id: str, link: str) -> None:
        for other in self._bridges.values():
            if link and other.link == link:
                raise Forbidden(
                    f"cannot create network {id} ({link}): conflicts with network {other.id} ({other.link}):"
                    " networks have same bridge name"
                )


def _has_bridge(network: Network) -> bool:
    return network.driver not in ("host", "null")


def _passes(network: Network, filters: Filters) -> bool:
    return (
        matches_exactly(filters, "type", "builtin" if network.name in words.PREDEFINED else "custom")
        and matches_exactly(filters, "driver", network.driver)
        and matches_exactly(filters, "scope", network.scope)
        and matches_pattern(filters, "id", network.id)
        and matches_pattern(filters, "name", network.name)
        and matches_labels(filters, network.labels)
    )


def _dangles(network: Network, in_use: Callable[[str], bool]) -> bool:
    return network.name not in words.PREDEFINED and not in_use(network.id)


def _first_free(version: int, busy: Sequence[Subnet], options: NetworkOptions) -> Subnet:
    """The default bridge's subnet if none is configured. A full pool does not prevent the daemon's start."""
    first = next(iter(_pools_of(options, version)))
    try:
        chosen = ipam.choose_subnet(busy, _pools_of(options, version))
    except Forbidden as error:
        chosen = ipam.choose_subnet(busy, ipam.LAST_POOLS if version == 4 else _anywhere())
        log.warning("%s: the default bridge has %s", error.message, chosen)
        return chosen
    if version == 4 and chosen != first:
        log.warning("the host already uses %s: the default bridge has %s", first, chosen)
    return chosen


def _pools_of(options: NetworkOptions, version: int) -> Iterable[Subnet]:
    """The pools of new networks: configured ones, otherwise Docker's, or (IPv6) random ones in fd00::/8."""
    if any(base.version == version for base, _ in options.pools):
        return ipam.cut(options.pools, version)
    if version == 4:
        return ipam.DEFAULT_POOLS
    return _anywhere()


def _anywhere() -> Iterator[Subnet]:
    return (ipam.unique_local(secrets.token_bytes(7)) for _ in itertools.count())


def _whole(subnet: Subnet) -> IpamPool:
    return IpamPool(subnet=str(subnet), gateway=str(ipam.default_gateway(subnet)))
