"""What broke other engines' networks, tried on ours and on Docker's."""

from __future__ import annotations

import subprocess
import sys

from support.engines import Engine, run
from support.waiting import until

# An IPv6 router advertisement (RFC 4861, section 4.2) of a router that is the sender, for half an hour.
_ADVERTISE = """
import socket, struct
near = socket.socket(socket.AF_PACKET, socket.SOCK_RAW)
near.bind(("eth0", 0))
mac = near.getsockname()[4]
source, all_nodes = (socket.inet_pton(socket.AF_INET6, text) for text in ("fe80::bad", "ff02::1"))
def advertisement(checksum):
    return struct.pack(">BBHBBHII", 134, 0, checksum, 64, 0, 1800, 0, 0) + b"\\1\\1" + mac
body = advertisement(0)
words = struct.unpack(">%dH" % ((40 + len(body)) // 2), source + all_nodes + struct.pack(">II", len(body), 58) + body)
total = sum(words)
total = (total & 0xFFFF) + (total >> 16)
total = (total & 0xFFFF) + (total >> 16)
header = struct.pack(">IHBB", 6 << 28, len(body), 58, 255) + source + all_nodes
near.send(bytes.fromhex("333300000001") + mac + b"\\x86\\xdd" + header + advertisement(~total & 0xFFFF))
"""


def test_cve_2020_13401_a_container_is_no_router_of_the_host(engine: Engine) -> None:
    engine.out("network", "create", "-o", "com.docker.network.bridge.name=hv-ra", "advertised")
    engine.out("run", "-d", "--name", "evil", "--network", "advertised", "busybox", "sleep", "1000")
    pid = engine.out("inspect", "--format", "{{.State.Pid}}", "evil")

    def routes_after_one_more() -> str:
        inside = ["nsenter", f"--net=/proc/{pid}/ns/net", sys.executable, "-I", "-S", "-c", _ADVERTISE]
        subprocess.run(inside, check=True)
        return run("ip", "-n", engine.netns, "-6", "route", "show", "default")

    assert routes_after_one_more() == ""
    # A host that listens does believe it.
    run(*engine.inside, "sysctl", "-q", "-w", "net.ipv6.conf.hv-ra.accept_ra=2")
    until(lambda: "fe80::bad" in routes_after_one_more(), "the host to take the container for a router")
    engine.docker("rm", "-f", "evil", check=0)
    engine.out("network", "rm", "advertised")
