"""rtnetlink: links, addresses and routes of one network namespace.

Owns the encoding of requests and the decoding of replies: no policy, no names of networks or containers. Requests are
values (`new_bridge`, `new_veth`, ...); a `Netlink` socket sends a batch of them in one system call:

    Netlink.run(a, b, c)      user  ── a | b | c ──▶  kernel      each request asks for its own acknowledgement
                              user  ◀─ ok | ok | E ─  kernel      the first error is raised as OSError

A netlink socket belongs to the network namespace of the thread that opened it; any thread may use it later.
Why no library does this: docs/decisions/030.

Source: rtnetlink(7), netlink(7), linux/if_link.h and linux/rtnetlink.h. Failures are OSError with the kernel's text.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Interface, IPv4Network, IPv6Address, IPv6Interface, IPv6Network, ip_address

Address = IPv4Address | IPv6Address
Interface = IPv4Interface | IPv6Interface
Network = IPv4Network | IPv6Network

_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_IFINFO = struct.Struct("=BxHiII")  # ifinfomsg: family, device type, index, flags, change mask
_IFADDR = struct.Struct("=BBBBI")  # ifaddrmsg: family, prefix length, flags, scope, index
_RTMSG = struct.Struct("=BBBBBBBBI")  # rtmsg: family, dst_len, src_len, tos, table, protocol, scope, type, flags
_ATTR = struct.Struct("=HH")  # rtattr: length, type

_ERROR, _DONE = 2, 3
_REQUEST, _ACK, _REPLACE, _EXCL, _CREATE, _DUMP = 0x1, 0x4, 0x100, 0x200, 0x400, 0x300
_NEWLINK, _DELLINK, _GETLINK = 16, 17, 18
_NEWADDR, _DELADDR, _GETADDR = 20, 21, 22
_NEWROUTE, _DELROUTE, _GETROUTE = 24, 25, 26

_IFLA_ADDRESS, _IFLA_IFNAME, _IFLA_MTU, _IFLA_MASTER, _IFLA_LINKINFO = 1, 3, 4, 10, 18
_IFLA_AF_SPEC, _IFLA_GROUP, _IFLA_NET_NS_FD = 26, 27, 28
_INET_CONF = 1
SEND_REDIRECTS, PROXY_ARP_PVLAN, ROUTE_LOCALNET = 6, 25, 26
"""Settings of /proc/sys/net/ipv4/conf/DEVICE (IPV4_DEVCONF_* of linux/ip.h)."""
_INFO_KIND, _INFO_DATA, _INFO_SLAVE_KIND, _INFO_SLAVE_DATA, _VETH_PEER = 1, 2, 4, 5, 1
_BRPORT_HAIRPIN, _BRPORT_ISOLATED = 4, 33
_IFLA_IFALIAS, _VLAN_ID = 20, 1
_VXLAN_ID, _VXLAN_LOCAL, _VXLAN_LEARNING, _VXLAN_PORT = 1, 4, 7, 15
_IFLA_LINK, _MACVLAN_MODE, _IPVLAN_MODE = 5, 1, 1
_MACVLAN_MODES = {"private": 1, "vepa": 2, "bridge": 4, "passthru": 8}
_IPVLAN_MODES = {"l2": 0, "l3": 1, "l3s": 2}
_IFA_ADDRESS, _IFA_LOCAL, _IFA_FLAGS = 1, 2, 8
_IFA_F_NODAD = 0x02
_RTA_DST, _RTA_OIF, _RTA_GATEWAY, _RTA_TABLE = 1, 4, 5, 15
_TABLE_MAIN, _PROTO_BOOT, _SCOPE_UNIVERSE, _SCOPE_LINK, _UNICAST = 254, 3, 0, 253, 1
_NESTED, _TYPE_MASK = 0x8000, 0x3FFF

IFF_UP = 0x1
_SOL_NETLINK, _CAP_ACK, _EXT_ACK = 270, 10, 11
_ACK_TLVS, _ERROR_TEXT = 0x200, 1
_RECEIVE_BYTES = 1 << 18


@dataclass(frozen=True)
class Request:
    """One rtnetlink message; `what` describes it in error messages."""

    type: int
    flags: int
    body: bytes
    what: str


@dataclass(frozen=True)
class Link:
    """A network device. `master` is the index of its bridge, 0 for none; `alias` is IFLA_IFALIAS."""

    index: int
    name: str
    kind: str
    up: bool
    mtu: int
    mac: str
    master: int
    alias: str = ""


def new_bridge(name: str, mac: str, mtu: int) -> Request:
    """A bridge, up. Its MAC is set explicitly: otherwise it follows the lowest MAC of its ports."""
    attributes = _text(_IFLA_IFNAME, name) + _attr(_IFLA_ADDRESS, mac_bytes(mac)) + _u32(_IFLA_MTU, mtu)
    kind = _attr(_IFLA_LINKINFO | _NESTED, _text(_INFO_KIND, "bridge"))
    body = _ifinfo(0, IFF_UP, IFF_UP) + attributes + kind
    return Request(_NEWLINK, _CREATE | _EXCL, body, f"create bridge {name}")


def new_veth(name: str, master: int, mtu: int, peer: str, peer_mac: str, peer_netns_fd: int) -> Request:
    """A veth pair: `name` here, up, a port of the bridge of index `master`; `peer` created in another namespace, down.

    The kernel creates the peer before its other end exists, and refuses to bring it up in the same request.
    """
    inside = _ifinfo(0) + _text(_IFLA_IFNAME, peer) + _attr(_IFLA_ADDRESS, mac_bytes(peer_mac))
    inside += _u32(_IFLA_MTU, mtu) + _u32(_IFLA_NET_NS_FD, peer_netns_fd)
    data = _attr(_INFO_DATA | _NESTED, _attr(_VETH_PEER | _NESTED, inside))
    attributes = _text(_IFLA_IFNAME, name) + _u32(_IFLA_MTU, mtu) + _u32(_IFLA_MASTER, master)
    kind = _attr(_IFLA_LINKINFO | _NESTED, _text(_INFO_KIND, "veth") + data)
    body = _ifinfo(0, IFF_UP, IFF_UP) + attributes + kind
    return Request(_NEWLINK, _CREATE | _EXCL, body, f"create veth pair {name}")


def new_child(
    kind: str, name: str, parent: int, mode: str, mtu: int, mac: str = "", netns_fd: int | None = None
) -> Request:
    """A macvlan or ipvlan device (`kind`) on the device of index `parent`, created in another namespace, down.

    `mode` is private, vepa, bridge or passthru for macvlan (which has its own `mac`), l2, l3 or l3s for ipvlan.
    """
    number = struct.pack("=I", _MACVLAN_MODES[mode]) if kind == "macvlan" else struct.pack("=H", _IPVLAN_MODES[mode])
    data = _attr(_INFO_DATA | _NESTED, _attr(_MACVLAN_MODE if kind == "macvlan" else _IPVLAN_MODE, number))
    attributes = _text(_IFLA_IFNAME, name) + _u32(_IFLA_LINK, parent) + _u32(_IFLA_MTU, mtu)
    attributes += _attr(_IFLA_ADDRESS, mac_bytes(mac)) if mac and kind == "macvlan" else b""
    attributes += _u32(_IFLA_NET_NS_FD, netns_fd) if netns_fd is not None else b""
    body = _ifinfo(0) + attributes + _attr(_IFLA_LINKINFO | _NESTED, _text(_INFO_KIND, kind) + data)
    return Request(_NEWLINK, _CREATE | _EXCL, body, f"create {kind} device {name}")


def new_vlan(name: str, parent: int, number: int) -> Request:
    """The VLAN `number` (802.1Q) of the device of index `parent`, up."""
    data = _attr(_INFO_DATA | _NESTED, _attr(_VLAN_ID, struct.pack("=H", number)))
    attributes = _text(_IFLA_IFNAME, name) + _u32(_IFLA_LINK, parent)
    body = _ifinfo(0, IFF_UP, IFF_UP) + attributes
    body += _attr(_IFLA_LINKINFO | _NESTED, _text(_INFO_KIND, "vlan") + data)
    return Request(_NEWLINK, _CREATE | _EXCL, body, f"create VLAN device {name}")


def new_dummy(name: str) -> Request:
    """A dummy device, which drops all packets, up."""
    body = _ifinfo(0, IFF_UP, IFF_UP) + _text(_IFLA_IFNAME, name)
    body += _attr(_IFLA_LINKINFO | _NESTED, _text(_INFO_KIND, "dummy"))
    return Request(_NEWLINK, _CREATE | _EXCL, body, f"create dummy device {name}")


def new_vxlan(name: str, master: int, mtu: int, vni: int, local: IPv4Address) -> Request:
    """A VXLAN device (RFC 7348) with the network identifier `vni`, a port of the bridge of index `master`, up.

    It listens at `local`, UDP port 4789, and has no forwarding entries.
    """
    port = _attr(_VXLAN_PORT, struct.pack(">H", 4789))
    data = _u32(_VXLAN_ID, vni) + _attr(_VXLAN_LOCAL, local.packed) + _attr(_VXLAN_LEARNING, b"\0") + port
    attributes = _text(_IFLA_IFNAME, name) + _u32(_IFLA_MTU, mtu) + _u32(_IFLA_MASTER, master)
    kind = _text(_INFO_KIND, "vxlan") + _attr(_INFO_DATA | _NESTED, data)
    body = _ifinfo(0, IFF_UP, IFF_UP) + attributes + _attr(_IFLA_LINKINFO | _NESTED, kind)
    return Request(_NEWLINK, _CREATE | _EXCL, body, f"create VXLAN device {name}")


def set_alias(name: str, alias: str) -> Request:
    """Set a device's alias (IFLA_IFALIAS). The kernel does not accept one in the request that creates the device."""
    body = _ifinfo(0) + _text(_IFLA_IFNAME, name) + _attr(_IFLA_IFALIAS, alias.encode())
    return Request(_NEWLINK, 0, body, f"set the alias of link {name}")


def delete_link(name: str) -> Request:
    """Remove a device; the other end of a veth pair goes with it."""
    return Request(_DELLINK, 0, _ifinfo(0) + _text(_IFLA_IFNAME, name), f"delete link {name}")


def move_to_group(name: str, group: int) -> Request:
    """Bring a device down and put it into the device group that `delete_group` deletes."""
    body = _ifinfo(0, 0, IFF_UP) + _text(_IFLA_IFNAME, name) + _u32(_IFLA_GROUP, group)
    return Request(_NEWLINK, 0, body, f"shut link {name}")


def delete_group(group: int) -> Request:
    """Delete all devices of a group at once; OSError ENODEV when it is empty."""
    return Request(_DELLINK, 0, _ifinfo(0) + _u32(_IFLA_GROUP, group), f"delete the links of group {group}")


def set_down(index: int) -> Request:
    """Bring a device down; the kernel removes its routes and IPv6 addresses."""
    return Request(_NEWLINK, 0, _ifinfo(index, 0, IFF_UP), f"shut link {index}")


def rename(index: int, name: str) -> Request:
    """Rename a device; it must be down."""
    return Request(_NEWLINK, 0, _ifinfo(index) + _text(_IFLA_IFNAME, name), f"rename link {index} to {name}")


def set_up(index: int) -> Request:
    """Bring a device up."""
    return Request(_NEWLINK, 0, _ifinfo(index, IFF_UP, IFF_UP), f"bring link {index} up")


def set_master(index: int, master: int) -> Request:
    """Make a device a port of a bridge."""
    return Request(_NEWLINK, 0, _ifinfo(index) + _u32(_IFLA_MASTER, master), f"make link {index} a port of {master}")


def set_port(name: str, *, isolated: bool) -> Request:
    """Options of a bridge port. hairpin: frames may leave by the port they came from. `isolated`: no traffic between
    isolated ports.

    hairpin matters where br_netfilter is loaded: NAT then happens while bridging, so that a container's packet to its
    own
    published port leaves by the port it came from.
    """
    options = _attr(_BRPORT_HAIRPIN, b"\x01") + _attr(_BRPORT_ISOLATED, bytes([isolated]))
    info = _text(_INFO_SLAVE_KIND, "bridge") + _attr(_INFO_SLAVE_DATA | _NESTED, options)
    body = _ifinfo(0) + _text(_IFLA_IFNAME, name) + _attr(_IFLA_LINKINFO | _NESTED, info)
    return Request(_NEWLINK, 0, body, f"configure bridge port {name}")


def set_inet(index: int, settings: Mapping[int, int]) -> Request:
    """Set a device's IPv4 settings (`net.ipv4.conf.NAME.*`); ROUTE_LOCALNET allows routing of 127.0.0.0/8."""
    values = b"".join(_u32(setting, value) for setting, value in settings.items())
    config = _attr(socket.AF_INET, _attr(_INET_CONF, values))
    return Request(_NEWLINK, 0, _ifinfo(index) + _attr(_IFLA_AF_SPEC, config), f"configure IPv4 on link {index}")


def new_address(index: int, interface: Interface) -> Request:
    """Add an address. IPv6 skips duplicate address detection: addresses are allocated, and usable at once."""
    return Request(_NEWADDR, _CREATE | _EXCL, _ifaddr(index, interface), f"add address {interface} to link {index}")


def delete_address(index: int, interface: Interface) -> Request:
    """Remove an address."""
    return Request(_DELADDR, 0, _ifaddr(index, interface), f"delete address {interface} from link {index}")


def new_default_route(index: int, gateway: Address) -> Request:
    """Set the default route of the gateway's address family, replacing any other."""
    family = _family(gateway)
    head = _RTMSG.pack(family, 0, 0, 0, _TABLE_MAIN, _PROTO_BOOT, _SCOPE_UNIVERSE, _UNICAST, 0)
    body = head + _attr(_RTA_GATEWAY, gateway.packed) + _u32(_RTA_OIF, index)
    return Request(_NEWROUTE, _CREATE | _REPLACE, body, f"add default route by {gateway}")


def delete_default_route(family: int) -> Request:
    """Remove the default route of an address family; OSError ESRCH where there is none."""
    body = _RTMSG.pack(family, 0, 0, 0, _TABLE_MAIN, _PROTO_BOOT, _SCOPE_UNIVERSE, _UNICAST, 0)
    return Request(_DELROUTE, 0, body, "delete default route")


class Netlink:
    """An rtnetlink socket in the network namespace of the thread that opens it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._sequence = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        self._socket.setsockopt(_SOL_NETLINK, _CAP_ACK, 1)
        self._socket.setsockopt(_SOL_NETLINK, _EXT_ACK, 1)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Close the socket, which also holds the namespace open."""
        self._socket.close()

    def __enter__(self) -> Netlink:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, *requests: Request) -> None:
        """Send all requests in order. Raises the first error; the requests after it were still carried out."""
        if not requests:
            return
        with self._lock:
            first = self._sequence + 1
            packed = [self._pack(request.type, request.flags | _REQUEST | _ACK, request.body) for request in requests]
            self._socket.send(b"".join(packed))
            failures = [self._acknowledged(first + i, request.what) for i, request in enumerate(requests)]
        for failure in failures:
            if failure is not None:
                raise failure

    def link(self, name: str) -> Link | None:
        """The device of that name, or None."""
        with self._lock:
            self._socket.send(self._pack(_GETLINK, _REQUEST, _ifinfo(0) + _text(_IFLA_IFNAME, name)))
            for kind, _, body in _messages(self._socket.recv(_RECEIVE_BYTES)):
                if kind == _NEWLINK:
                    return _link(body)
                failure = _failure(body, f"look up link {name}", 0)
                if failure is not None and failure.errno != errno.ENODEV:
                    raise failure
        return None

    def links(self) -> list[Link]:
        """All devices of the namespace."""
        return [_link(body) for body in self._dump(_GETLINK, _ifinfo(0))]

    def addresses(self, index: int) -> list[Interface]:
        """The addresses of one device, link-local ones included."""
        found: list[Interface] = []
        for body in self._dump(_GETADDR, _IFADDR.pack(0, 0, 0, 0, 0)):
            _, prefix, _, _, owner = _IFADDR.unpack_from(body)
            attributes = _attributes(body, _IFADDR.size)
            packed = attributes.get(_IFA_LOCAL) or attributes.get(_IFA_ADDRESS)
            if owner == index and packed:
                found.append(_interface(packed, prefix))
        return found

    def routes(self) -> list[tuple[Network, int]]:
        """Routes of the main table as (destination, index of the device); without default routes."""
        found: list[tuple[Network, int]] = []
        for body in self._dump(_GETROUTE, _RTMSG.pack(*[0] * 9)):
            prefix = body[1]
            attributes = _attributes(body, _RTMSG.size)
            table = _int(attributes.get(_RTA_TABLE)) or body[4]
            if table == _TABLE_MAIN and prefix and (packed := attributes.get(_RTA_DST)):
                found.append((_interface(packed, prefix).network, _int(attributes.get(_RTA_OIF))))
        return found

    def _pack(self, kind: int, flags: int, body: bytes) -> bytes:
        self._sequence += 1
        return _HEADER.pack(_HEADER.size + len(body), kind, flags, self._sequence, 0) + body

    def _acknowledged(self, sequence: int, what: str) -> OSError | None:
        data = self._socket.recv(_RECEIVE_BYTES)
        _, kind, flags, number, _ = _HEADER.unpack_from(data)
        if kind != _ERROR or number != sequence:
            raise OSError(errno.EPROTO, f"{what}: unexpected netlink reply of type {kind}")
        return _failure(data[_HEADER.size :], what, flags)

    def _dump(self, kind: int, body: bytes) -> list[bytes]:
        found: list[bytes] = []
        with self._lock:
            self._socket.send(self._pack(kind, _REQUEST | _DUMP, body))
            while True:
                for reply, flags, payload in _messages(self._socket.recv(_RECEIVE_BYTES)):
                    if reply == _DONE:
                        return found
                    if reply == _ERROR and (failure := _failure(payload, "netlink dump", flags)):
                        raise failure
                    found.append(payload)


def mac_bytes(mac: str) -> bytes:
    """`02:42:ac:11:00:02` as six bytes; ValueError for anything else."""
    packed = bytes.fromhex(mac.replace(":", "").replace("-", ""))
    if len(packed) != 6:
        raise ValueError(f"invalid MAC address: {mac}")
    return packed


def _attr(kind: int, payload: bytes) -> bytes:
    return _ATTR.pack(_ATTR.size + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _text(kind: int, text: str) -> bytes:
    return _attr(kind, text.encode() + b"\0")


def _u32(kind: int, number: int) -> bytes:
    return _attr(kind, struct.pack("=I", number))


def _ifinfo(index: int, flags: int = 0, change: int = 0) -> bytes:
    return _IFINFO.pack(0, 0, index, flags, change)


def _ifaddr(index: int, interface: Interface) -> bytes:
    family = _family(interface)
    head = _IFADDR.pack(family, interface.network.prefixlen, 0, _SCOPE_UNIVERSE, index)
    body = head + _attr(_IFA_LOCAL, interface.packed) + _attr(_IFA_ADDRESS, interface.packed)
    return body + _u32(_IFA_FLAGS, _IFA_F_NODAD) if family == socket.AF_INET6 else body


def _family(address: Address | Interface) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6


def _interface(packed: bytes, prefix: int) -> Interface:
    address = ip_address(packed)
    return IPv4Interface((address, prefix)) if address.version == 4 else IPv6Interface((address, prefix))


def _messages(data: bytes) -> Iterator[tuple[int, int, bytes]]:
    offset = 0
    while offset < len(data):
        length, kind, flags, _, _ = _HEADER.unpack_from(data, offset)
        yield kind, flags, data[offset + _HEADER.size : offset + length]
        offset += (length + 3) & ~3


def _attributes(body: bytes, offset: int) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    while offset + _ATTR.size <= len(body):
        length, kind = _ATTR.unpack_from(body, offset)
        found[kind & _TYPE_MASK] = body[offset + _ATTR.size : offset + length]
        offset += max(_ATTR.size, (length + 3) & ~3)
    return found


def _failure(payload: bytes, what: str, flags: int) -> OSError | None:
    """The error in a reply; the kernel's extended text, where it sends one, follows the echoed header of 16 bytes."""
    (code,) = struct.unpack_from("=i", payload)
    if code == 0:
        return None
    text = _attributes(payload, 4 + _HEADER.size).get(_ERROR_TEXT, b"") if flags & _ACK_TLVS else b""
    detail = text.rstrip(b"\0").decode(errors="replace") or os.strerror(-code)
    return OSError(-code, f"{what}: {detail}")


def _link(body: bytes) -> Link:
    _, _, index, flags, _ = _IFINFO.unpack_from(body)
    attributes = _attributes(body, _IFINFO.size)
    info = _attributes(attributes.get(_IFLA_LINKINFO, b""), 0)
    return Link(
        index=index,
        name=attributes.get(_IFLA_IFNAME, b"").rstrip(b"\0").decode(),
        kind=info.get(_INFO_KIND, b"").rstrip(b"\0").decode(),
        up=bool(flags & IFF_UP),
        mtu=_int(attributes.get(_IFLA_MTU)),
        mac=attributes.get(_IFLA_ADDRESS, b"").hex(":"),
        master=_int(attributes.get(_IFLA_MASTER)),
        alias=attributes.get(_IFLA_IFALIAS, b"").rstrip(b"\0").decode(errors="replace"),
    )


def _int(packed: bytes | None) -> int:
    return int.from_bytes(packed[:4], "little" if struct.pack("=H", 1)[0] else "big") if packed else 0
