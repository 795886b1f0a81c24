"""The firewall as nft text. Pure: from bridges and published ports to the one table that holds them.

Everything is in one table of the engine's own, so that removal is one command and nothing foreign is touched. Networks
and ports are elements of sets and maps, not rules: a packet costs the same with one published port as with a thousand,
and publishing is one element added.

    from outside, other containers            from the host itself
      prerouting (dstnat) ──┐                   output (dstnat) ──┐
                            └────▶ publish: address.proto.port ◀──┘
                                        │ DNAT
      forward: within one network: accept
               to a network:  known connection or published port: accept, else drop
               from or to an internal network: drop
      postrouting (srcnat): own published port, or 127.0.0.1: masquerade (the answer must come back this way)
                            leaving for the world: masquerade

The `guard` chain drops what `route_localnet` would let in: packets for or from 127.0.0.0/8 that arrive on a bridge. A
port published on 127.0.0.1 is not looked up for packets from outside, whatever their address says.

An accept here ends this table's say only: a base chain of another table that drops forwarded packets still does
(docs/decisions/033).
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from havre.network.plan import Bridge, PortMap

_ANY = "0.0.0.0"

_CHAINS = """
  chain publish {
    meta l4proto { tcp, udp, sctp } dnat ip to ip daddr . meta l4proto . th dport map @ports_at
    meta l4proto { tcp, udp, sctp } dnat ip to meta l4proto . th dport map @ports
  }
  chain guard {
    type filter hook prerouting priority raw; policy accept;
    iifname @bridges ip daddr 127.0.0.0/8 drop
    iifname @bridges ip saddr 127.0.0.0/8 drop
  }
  chain prerouting {
    type nat hook prerouting priority dstnat; policy accept;
    ip daddr != 127.0.0.0/8 fib daddr type local goto publish
  }
  chain output {
    type nat hook output priority dstnat; policy accept;
    fib daddr type local goto publish
  }
  chain inbound {
    oifname @internal drop
    iifname @internal drop
    ct state established,related accept
    ct status dnat accept
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
    ct status dnat ip saddr . ip daddr @hairpin masquerade
    ct status dnat ip saddr 127.0.0.0/8 oifname @bridges masquerade
    ip saddr @translated oifname != @bridges masquerade
  }
"""


def render_table(table: str, bridges: Collection[Bridge], ports: Collection[PortMap]) -> str:
    """The whole table, replacing what is there of that name in one transaction."""
    links = [f'"{bridge.link}"' for bridge in bridges]
    internal = [f'"{bridge.link}"' for bridge in bridges if bridge.internal]
    subnets = [str(bridge.pool.subnet) for bridge in bridges]
    out = [str(bridge.pool.subnet) for bridge in bridges if bridge.masquerade and not bridge.internal]
    declared = [
        _set("bridges", "ifname", links),
        _set("internal", "ifname", internal),
        _set("within", "ifname . ifname", [f"{link} . {link}" for link in links]),
        _set("translated", "ipv4_addr", out, interval=True),
        _set("hairpin", "ipv4_addr . ipv4_addr", [f"{subnet} . {subnet}" for subnet in subnets], interval=True),
        _map("ports", "inet_proto . inet_service", [_element(port) for port in ports if _is_any(port)]),
        _map("ports_at", "ipv4_addr . inet_proto . inet_service", [_element(p) for p in ports if not _is_any(p)]),
    ]
    # The table is named first so that deleting it never fails, whether it is there or not.
    return f"table ip {table} {{ }}\ndelete table ip {table}\ntable ip {table} {{\n{''.join(declared)}{_CHAINS}}}\n"


def render_delete(table: str) -> str:
    """Commands that remove the table, whether it is there or not."""
    return f"table ip {table} {{ }}\ndelete table ip {table}\n"


def render_ports(verb: str, table: str, ports: Iterable[PortMap]) -> str:
    """Commands that `add` or `delete` published ports, all in one transaction; "" for none."""
    return "".join(f"{verb} element ip {table} {_map_of(port)} {{ {_element(port)} }}\n" for port in ports)


def _is_any(port: PortMap) -> bool:
    return str(port.host) == _ANY


def _map_of(port: PortMap) -> str:
    return "ports" if _is_any(port) else "ports_at"


def _element(port: PortMap) -> str:
    key = f"{port.protocol} . {port.host_port}"
    at = key if _is_any(port) else f"{port.host} . {key}"
    return f"{at} : {port.address} . {port.port}"


def _set(name: str, kind: str, elements: list[str], *, interval: bool = False) -> str:
    flags = " flags interval;" if interval else ""
    return f"  set {name} {{ type {kind};{flags}{_elements(elements)} }}\n"


def _map(name: str, key: str, elements: list[str]) -> str:
    return f"  map {name} {{ type {key} : ipv4_addr . inet_service;{_elements(elements)} }}\n"


def _elements(elements: list[str]) -> str:
    return f" elements = {{ {', '.join(sorted(elements))} }}" if elements else ""
