"""Connection tracking: drop the flows of an address, so that its next owner does not inherit them.

A UDP flow does not end while a client keeps sending: the kernel goes on translating to the old destination. One message
with `CTA_FILTER` asks the kernel to drop every flow whose reply source is an address. A kernel that does not support
filters in deletions treats the message as the deletion of a single flow, and answers EINVAL or ENOENT.

Source: linux/netfilter/nfnetlink_conntrack.h. Blocking; failures are OSError.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
import threading
from ipaddress import IPv4Address, IPv6Address

_NETLINK_NETFILTER = 12
_DELETE = (1 << 8) | 2  # NFNL_SUBSYS_CTNETLINK, IPCTNL_MSG_CT_DELETE
_REQUEST, _ACK, _NESTED = 0x1, 0x4, 0x8000
_CTA_TUPLE_REPLY, _CTA_FILTER = 2, 25
_CTA_TUPLE_IP, _CTA_IP_V4_SRC, _CTA_IP_V6_SRC = 1, 1, 3
_CTA_FILTER_REPLY_FLAGS, _F_IP_SRC = 2, 1
_USE_FAMILY = 1  # nfgenmsg.version; 0 would select every address family


class Conntrack:
    """A ctnetlink socket in the network namespace of the thread that opens it. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        kind = socket.SOCK_RAW | socket.SOCK_CLOEXEC
        self._socket = socket.socket(socket.AF_NETLINK, kind, _NETLINK_NETFILTER)
        self._socket.bind((0, 0))

    def close(self) -> None:
        """Close the socket."""
        self._socket.close()

    def forget(self, address: IPv4Address | IPv6Address) -> bool:
        """Drop all flows whose reply source is `address`. Returns False where the kernel does not support it."""
        family, source = (socket.AF_INET, _CTA_IP_V4_SRC) if address.version == 4 else (socket.AF_INET6, _CTA_IP_V6_SRC)
        tuple_ip = _attr(_CTA_TUPLE_IP | _NESTED, _attr(source, address.packed))
        wanted = _attr(_CTA_FILTER_REPLY_FLAGS, struct.pack("=I", _F_IP_SRC))
        body = struct.pack(">BBH", family, _USE_FAMILY, 0)
        body += _attr(_CTA_TUPLE_REPLY | _NESTED, tuple_ip) + _attr(_CTA_FILTER | _NESTED, wanted)
        with self._lock:
            self._socket.send(struct.pack("=IHHII", 16 + len(body), _DELETE, _REQUEST | _ACK, 1, 0) + body)
            number = -struct.unpack_from("=i", self._socket.recv(4096), 16)[0]
        if number in (errno.EINVAL, errno.ENOENT, errno.EOPNOTSUPP):
            return False
        if number:
            raise OSError(number, f"forget flows of {address}: {os.strerror(number)}")
        return True


def _attr(kind: int, payload: bytes) -> bytes:
    return struct.pack("=HH", 4 + len(payload), kind) + payload + bytes(-len(payload) % 4)
