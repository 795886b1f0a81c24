"""Renders bridges and published ports as nft text. Pure.

Everything is in tables of our own, one for each address family, so that removal is one command and other programs'
rules
are untouched. Networks and ports are elements of sets and maps, not rules: the cost of a packet does not depend on the
number of published ports, and publishing adds one element.

    from outside, other containers            from the host itself
    prerouting (dstnat) ──┐                   output (dstnat) ──┐
                          └────▶ publish: address.proto.port ◀──┘
                                   │ DNAT
    forward: within one network: accept
             to a network:  known connection or published port: accept, else drop
                            routed networks: open ports at the container's own address, and pings
                            unprotected ones: everything that does not come from another network
             from or to an internal network: drop
    postrouting (srcnat): own published port, or 127.0.0.1: masquerade (the answer must return by the host)
                          leaving to other networks: masquerade

On a host whose own chains may drop packets for it, a client is translated only after these have accepted its first
packet. That packet is not translated: it traverses the host's input chains, its source is recorded after them, and it
is
dropped. When the client retransmits within a second, its source is in `admitted`. So publishing a port never opens what
the host's administrator has closed (docs/decisions/211).

    first packet ──▶ prerouting: not admitted ──▶ the host's input chains ── deny
                                                                          └─ pass ──▶ admit: remember (10 minutes), drop
    sent again   ──▶ prerouting: admitted, DNAT ──▶ forward ──▶ container

The `guard` chain drops what `route_localnet` would let in: packets for or from 127.0.0.0/8 that arrive on a bridge. A
port published on 127.0.0.1 is not looked up for packets from outside, whatever their destination.

An accept verdict ends the evaluation of this table only: a base chain of another table may still drop the packet
(docs/why/networks.md#host-firewalls).

Why: docs/decisions/032.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from string import Template

from havre.dataplane.plan import ROUTED, UNPROTECTED, Bridge, LinkMap, PortMap

_CHAINS = Template(
    """
  chain publish {
    meta l4proto { tcp, udp, sctp } dnat $ip to $ip daddr . meta l4proto . th dport map @ports_at
    meta l4proto { tcp, udp, sctp } dnat $ip to meta l4proto . th dport map @ports
  }
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    $ip daddr $loopback iifname @bridges drop
    $ip saddr $loopback iifname @bridges drop
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    $ip daddr != $loopback fib daddr type local goto arrive
  }
$arrival
  chain output {
    type nat hook output priority dstnat; policy accept;
    ${spared}fib daddr type local goto publish
  }
  chain inbound {
    oifname @internal drop
    iifname @internal drop
    ct state established,related accept
    ct status dnat accept
    $ip saddr . $ip daddr . meta l4proto . th dport @linked accept
    oifname @routed meta l4proto $icmp accept
    oifname @routed $ip daddr . meta l4proto . th dport @opened accept
    iifname . oifname @trusted $ip daddr . meta l4proto . th dport @opened accept
    oifname @unprotected iifname != @bridges accept
    drop
  }
  chain forward {
    type filter hook forward priority filter; policy accept;
    iifname . oifname @within accept
    oifname @bridges goto inbound
    iifname @internal drop
  }
  chain postrouting {
    type nat hook postrouting priority srcnat; policy accept;
    ct status dnat $ip saddr . $ip daddr @hairpin masquerade
    ct status dnat $ip saddr $loopback oifname @bridges masquerade
${sources}    $ip saddr @translated oifname != @bridges masquerade
  }
"""
)


_SOURCES = Template("    oifname != @bridges snat to $ip saddr map @sources\n")
_ADMITTED = Template(
    """\
  set admitted { type $address . inet_proto . inet_service; flags dynamic, timeout; timeout 10m; size 65536; }
"""
)
_ARRIVAL = Template(
    """
  chain arrive {
    goto publish
  }
"""
)
_SCREENED = Template(
    """
  chain arrive {
    iifname @bridges goto publish
    $ip saddr . meta l4proto . th dport @admitted goto publish
  }
  chain admit {
    type filter hook input priority 1000; policy accept;
    iifname "lo" accept
    iifname @bridges accept
    ct state != new accept
    meta l4proto . th dport @ports goto remember
    $ip daddr . meta l4proto . th dport @ports_at goto remember
  }
  chain remember {
    update @admitted { $ip saddr . meta l4proto . th dport } drop
  }
"""
)


@dataclass(frozen=True)
class _Family:
    """The differences between IPv4 and IPv6. `spared` are the host's own packets that are not translated.

    A packet from ::1 cannot leave the host, whatever its new destination: the port's own socket serves it.
    """

    version: int
    word: str
    type: str
    any: str
    loopback: str
    spared: str
    icmp: str

    def chains(self, screened: bool, sourced: bool) -> str:
        """The table's chains."""
        arrival = (_SCREENED if screened else _ARRIVAL).substitute(ip=self.word).strip("\n")
        return _CHAINS.substitute(
            ip=self.word,
            loopback=self.loopback,
            spared=self.spared,
            arrival=arrival,
            icmp=self.icmp,
            sources=_SOURCES.substitute(ip=self.word) if sourced else "",
        )


_FAMILIES = (
    _Family(4, "ip", "ipv4_addr", "0.0.0.0", "127.0.0.0/8", "", "icmp"),
    _Family(6, "ip6", "ipv6_addr", "::", "::1", "ip6 daddr != ::1 ", "ipv6-icmp"),
)
BOTH = frozenset(family.version for family in _FAMILIES)
_BY_VERSION = {family.version: family for family in _FAMILIES}


def render_table(
    table: str,
    bridges: Collection[Bridge],
    ports: Collection[PortMap],
    links: Collection[LinkMap] = (),
    *,
    screened: bool = False,
    versions: Collection[int] = BOTH,
) -> str:
    """The commands that replace the whole table in one transaction; the IPv6 table only where a network has IPv6.

    `screened`: clients of published ports must pass the host's own input chains. Only IP `versions` are rendered. Each
    table is created first, so that deleting it cannot fail.
    """
    wanted = {pool.subnet.version for bridge in bridges for pool in bridge.pools} | {4}
    wanted.intersection_update(versions)
    texts = (
        _render_family(table, family, bridges, ports, links, screened)
        for family in _FAMILIES
        if family.version in wanted
    )
    return render_delete(table) + "".join(texts)


def _render_family(
    table: str,
    family: _Family,
    bridges: Collection[Bridge],
    ports: Collection[PortMap],
    links: Collection[LinkMap],
    screened: bool,
) -> str:
    devices = [f'"{bridge.link}"' for bridge in bridges]
    internal = [f'"{bridge.link}"' for bridge in bridges if bridge.internal]
    subnets = [str(pool.subnet) for each in bridges for pool in each.pools_of(family.version)]
    hidden = [each for each in bridges if each.hides(family.version)]
    out = [str(pool.subnet) for each in hidden for pool in each.pools_of(family.version)]
    fixed = [(pool.subnet, each.source(family.version)) for each in hidden for pool in each.pools_of(family.version)]
    sources = [f"{subnet} : {source}" for subnet, source in fixed if source is not None]
    routed, unprotected = (
        [f'"{each.link}"' for each in bridges if each.gateway_mode(family.version) == mode]
        for mode in (ROUTED, UNPROTECTED)
    )
    trusted = [f'"{name}" . "{each.link}"' for each in bridges for name in each.trusted]
    own = [port for port in ports if port.address.version == family.version]
    linked = [each for each in links if each.source.version == family.version]
    address, target = family.type, f"{family.type} . inet_service"
    declared = [
        _set("bridges", "ifname", devices),
        _set("internal", "ifname", internal),
        _set("within", "ifname . ifname", [f'"{each.link}" . "{each.link}"' for each in bridges if each.icc]),
        _set("linked", f"{address} . {address} . inet_proto . inet_service", [_link(each) for each in linked]),
        _set("translated", address, out, interval=True),
        _set("hairpin", f"{address} . {address}", [f"{net} . {net}" for net in subnets], interval=True),
        _set("routed", "ifname", routed),
        _set("unprotected", "ifname", unprotected),
        _set("trusted", "ifname . ifname", trusted),
        _set("opened", f"{address} . inet_proto . inet_service", [_element(p) for p in own if _map_of(p) == "opened"]),
        _map("ports", "inet_proto . inet_service", target, [_element(p) for p in own if _map_of(p) == "ports"]),
        _map(
            "ports_at",
            f"{address} . inet_proto . inet_service",
            target,
            [_element(port) for port in own if _map_of(port) == "ports_at"],
        ),
    ]
    if sources:
        declared.append(_map("sources", family.type, family.type, sources, interval=True))
    if screened:
        declared.append(_ADMITTED.substitute(address=address))
    return f"table {family.word} {table} {{\n{''.join(declared)}{family.chains(screened, bool(sources))}}}\n"


def render_delete(table: str) -> str:
    """Commands that remove the tables, existing or not."""
    return "".join(f"table {f.word} {table} {{ }}\ndelete table {f.word} {table}\n" for f in _FAMILIES)


def render_ports(verb: str, table: str, ports: Iterable[PortMap]) -> str:
    """Commands that `add` or `delete` published ports, in one transaction; "" for none."""
    return "".join(
        f"{verb} element {_BY_VERSION[port.address.version].word} {table} {_map_of(port)} {{ {_element(port)} }}\n"
        for port in sorted(ports, key=lambda port: (port.host.version, port))
    )


def render_links(verb: str, table: str, links: Iterable[LinkMap]) -> str:
    """Commands that `add` or `delete` links; "" for none."""
    return "".join(
        f"{verb} element {_BY_VERSION[link.source.version].word} {table} linked {{ {_link(link)} }}\n"
        for link in sorted(links)
    )


def _link(link: LinkMap) -> str:
    return f"{link.source} . {link.target} . {link.protocol} . {link.port}"


def _is_any(port: PortMap) -> bool:
    return str(port.host) == _BY_VERSION[port.address.version].any


def _map_of(port: PortMap) -> str:
    if port.host_port == 0:
        return "opened"
    return "ports" if _is_any(port) else "ports_at"


def _element(port: PortMap) -> str:
    if port.host_port == 0:
        return f"{port.address} . {port.protocol} . {port.port}"
    key = f"{port.protocol} . {port.host_port}"
    at = key if _is_any(port) else f"{port.host} . {key}"
    return f"{at} : {port.address} . {port.port}"


def _set(name: str, kind: str, elements: list[str], *, interval: bool = False) -> str:
    flags = " flags interval;" if interval else ""
    return f"  set {name} {{ type {kind};{flags}{_elements(elements)} }}\n"


def _map(name: str, key: str, target: str, elements: list[str], *, interval: bool = False) -> str:
    flags = " flags interval;" if interval else ""
    return f"  map {name} {{ type {key} : {target};{flags}{_elements(elements)} }}\n"


def _elements(elements: list[str]) -> str:
    return f" elements = {{ {', '.join(sorted(elements))} }}" if elements else ""
