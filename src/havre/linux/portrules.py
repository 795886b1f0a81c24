"""nf_tables rules that rewrite port numbers, by netlink: for the name server in a container's network namespace.

    table ip NAME {
        chain output {
            type filter hook output priority raw; policy accept;
            ip daddr ADDRESS udp dport BEFORE udp dport set AFTER      one such rule for each `PortRule`
        }
    }

Kernels of 2026 (6.18.44) refuse such a rule with EPERM in a network namespace that belongs to a user namespace other
than the initial one. There connection tracking rewrites both directions:

        chain output {
            type nat hook output priority dstnat; policy accept;
            ip daddr ADDRESS udp dport BEFORE dnat to ADDRESS:AFTER    one for each `PortRule` that is not of a source
        }

Why not libnftables, as `nft` uses for the host: it waits with select(2), whose set ends at descriptor 1023, and opens a
socket for each context. A daemon with many containers has no low descriptor left when the next one starts
(docs/why/networks.md#host-firewalls). These rules need seven fixed expressions.

Source: linux/netfilter/nf_tables.h and nfnetlink.h; `nft --debug=netlink` shows the same expressions. Blocking;
failures are OSError with the kernel's text.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address

_NETLINK_NETFILTER = 12
_HEADER = struct.Struct("=IHHII")  # nlmsghdr: length, type, flags, sequence, port
_FAMILY = struct.Struct(">BBH")  # nfgenmsg: address family, version, subsystem of a batch
_ERROR, _REQUEST, _ACK, _CREATE, _APPEND = 2, 0x1, 0x4, 0x400, 0x800
_NESTED = 0x8000

_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 0x10, 0x11
_NEWTABLE, _GETTABLE, _DELTABLE, _NEWCHAIN, _NEWRULE = (_SUBSYSTEM << 8 | number for number in (0, 1, 2, 3, 6))

_TABLE_NAME = 1
_CHAIN_TABLE, _CHAIN_NAME, _CHAIN_HOOK, _CHAIN_POLICY, _CHAIN_TYPE = 1, 3, 4, 5, 7
_HOOK_NUMBER, _HOOK_PRIORITY, _OUTPUT, _ACCEPT = 1, 2, 3, 1  # NF_INET_LOCAL_OUT
_RAW, _NAT_DST = -300, -100  # NF_IP_PRI_RAW, NF_IP_PRI_NAT_DST
_RULE_TABLE, _RULE_CHAIN, _RULE_EXPRESSIONS = 1, 2, 4
_ELEMENT, _NAME, _DATA, _VALUE = 1, 1, 2, 1
_NETWORK_HEADER, _TRANSPORT_HEADER = 1, 2
_REGISTER, _SECOND_REGISTER, _EQUAL, _L4_PROTOCOL = 1, 2, 0, 16
_NAT_TYPE, _NAT_FAMILY, _NAT_ADDRESS, _NAT_PORT, _DNAT = 1, 2, 3, 5, 1

# How the kernel updates a checksum, as type, offset and flags: UDP's, which may be absent, by protocol
# (NFT_PAYLOAD_L4CSUM_PSEUDOHDR), TCP's at its offset.
_CHECKSUMS = {socket.IPPROTO_UDP: (0, 0, 1), socket.IPPROTO_TCP: (1, 16, 0)}


@dataclass(frozen=True)
class PortRule:
    """Packets of `protocol` to `address` (`source`: from it) with port `before` get port `after`."""

    protocol: int
    address: IPv4Address
    before: int
    after: int
    source: bool = False


def replace_table(name: str, rules: Sequence[PortRule]) -> None:
    """Replace table `name` in the calling thread's network namespace with these rules, in one transaction."""
    try:
        _replace_table(name, "filter", _RAW, [_rewrite(rule) for rule in rules])
    except PermissionError:
        _replace_table(name, "nat", _NAT_DST, [_translate(rule) for rule in rules if not rule.source])


def _replace_table(name: str, chain_type: str, priority: int, rules: Sequence[bytes]) -> None:
    table = _text(_TABLE_NAME, name)
    hook = _number(_HOOK_NUMBER, _OUTPUT) + _number(_HOOK_PRIORITY, priority & 0xFFFFFFFF)
    chain = _text(_CHAIN_TABLE, name) + _text(_CHAIN_NAME, "output") + _nest(_CHAIN_HOOK, hook)
    chain += _number(_CHAIN_POLICY, _ACCEPT) + _text(_CHAIN_TYPE, chain_type)
    where = _text(_RULE_TABLE, name) + _text(_RULE_CHAIN, "output")
    _commit(
        (_NEWTABLE, _CREATE, table),  # created first, so that deleting it cannot fail
        (_DELTABLE, 0, table),
        (_NEWTABLE, _CREATE, table),
        (_NEWCHAIN, _CREATE, chain),
        *((_NEWRULE, _CREATE | _APPEND, where + _nest(_RULE_EXPRESSIONS, rule)) for rule in rules),
    )


def has_table(name: str) -> bool:
    """Report whether table `name` exists in the calling thread's network namespace."""
    with _kernel() as kernel:
        kernel.send(_message(_GETTABLE, _REQUEST, 1, _FAMILY.pack(socket.AF_INET, 0, 0) + _text(_TABLE_NAME, name)))
        kind: int = struct.unpack_from("=IHHIIi", kernel.recv(8192))[1]
    return kind == _NEWTABLE


def _rewrite(rule: PortRule) -> bytes:
    """The expressions of a rule that writes the port into the header."""
    kind, offset, flags = _CHECKSUMS[rule.protocol]
    checksum = _number(6, kind) + _number(7, offset) + _number(8, flags)
    port = _port_offset(rule)
    write = _number(5, _REGISTER) + _number(2, _TRANSPORT_HEADER) + _number(3, port) + _number(4, 2) + checksum
    return _match(rule) + _immediate(_REGISTER, rule.after.to_bytes(2)) + _expression("payload", write)


def _translate(rule: PortRule) -> bytes:
    """The expressions of a rule that has connection tracking translate the port."""
    target = _number(_NAT_TYPE, _DNAT) + _number(_NAT_FAMILY, socket.AF_INET)
    target += _number(_NAT_ADDRESS, _REGISTER) + _number(_NAT_PORT, _SECOND_REGISTER)
    return (
        _match(rule)
        + _immediate(_REGISTER, rule.address.packed)
        + _immediate(_SECOND_REGISTER, rule.after.to_bytes(2))
        + _expression("nat", target)
    )


def _match(rule: PortRule) -> bytes:
    return (
        _load(_NETWORK_HEADER, 12 if rule.source else 16, 4)
        + _equals(rule.address.packed)
        + _expression("meta", _number(1, _REGISTER) + _number(2, _L4_PROTOCOL))
        + _equals(bytes([rule.protocol]))
        + _load(_TRANSPORT_HEADER, _port_offset(rule), 2)
        + _equals(rule.before.to_bytes(2))
    )


def _port_offset(rule: PortRule) -> int:
    return 0 if rule.source else 2


def _immediate(register: int, value: bytes) -> bytes:
    return _expression("immediate", _number(1, register) + _nest(2, _attribute(_VALUE, value)))


def _load(base: int, offset: int, length: int) -> bytes:
    return _expression("payload", _number(1, _REGISTER) + _number(2, base) + _number(3, offset) + _number(4, length))


def _equals(value: bytes) -> bytes:
    return _expression("cmp", _number(1, _REGISTER) + _number(2, _EQUAL) + _nest(3, _attribute(_VALUE, value)))


def _expression(name: str, data: bytes) -> bytes:
    return _nest(_ELEMENT, _text(_NAME, name) + _nest(_DATA, data))


def _commit(*messages: tuple[int, int, bytes]) -> None:
    """Send the messages (type, flags, attributes) as one batch, which the kernel applies or rejects as a whole."""
    begin = _message(_BATCH_BEGIN, _REQUEST, 0, _FAMILY.pack(0, 0, _SUBSYSTEM))
    end = _message(_BATCH_END, _REQUEST, 0, _FAMILY.pack(0, 0, _SUBSYSTEM))
    head = _FAMILY.pack(socket.AF_INET, 0, 0)
    packed = [
        _message(kind, flags | _REQUEST | _ACK, number, head + body)
        for number, (kind, flags, body) in enumerate(messages, start=1)
    ]
    with _kernel() as kernel:
        kernel.send(b"".join((begin, *packed, end)))
        for _ in messages:
            _, kind, _, number, _, code = struct.unpack_from("=IHHIIi", kernel.recv(8192))
            if kind != _ERROR:
                raise OSError(errno.EPROTO, f"unexpected reply of nf_tables, of type {kind}")
            if code:
                raise OSError(-code, f"nf_tables: message {number}: {os.strerror(-code)}")


def _kernel() -> socket.socket:
    kernel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER)
    kernel.bind((0, 0))
    return kernel


def _message(kind: int, flags: int, sequence: int, body: bytes) -> bytes:
    return _HEADER.pack(_HEADER.size + len(body), kind, flags, sequence, 0) + body


def _attribute(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)


def _nest(kind: int, payload: bytes) -> bytes:
    return _attribute(kind | _NESTED, payload)


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _number(kind: int, number: int) -> bytes:
    return _attribute(kind, struct.pack(">I", number))
