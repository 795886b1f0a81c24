"""Settings read from the host's files: name servers, hosts, the range of ephemeral ports. Blocking."""

from __future__ import annotations

from pathlib import Path

from havre.dataplane import hostfiles as files

KERNEL_IPV6 = Path("/proc/sys/net/ipv6")
_RESOLVED_STUB, _RESOLVED_FILE = "127.0.0.53", Path("/run/systemd/resolve/resolv.conf")


def read(path: Path) -> str:
    """The text of a file, "" where there is none."""
    try:
        return path.read_text(errors="replace")
    except FileNotFoundError:
        return ""


def ephemeral_range() -> tuple[int, int]:
    """The ports of net.ipv4.ip_local_port_range."""
    first, last = read(Path("/proc/sys/net/ipv4/ip_local_port_range")).split() or ("32768", "60999")
    return int(first), int(last)


def host_resolver(options: files.Resolver) -> files.Resolver:
    """The daemon's name servers, else the host's, or those behind systemd-resolved's stub."""
    host = files.parse_resolv_conf(read(Path("/etc/resolv.conf")))
    if host.servers == (_RESOLVED_STUB,) and _RESOLVED_FILE.exists():
        host = files.parse_resolv_conf(read(_RESOLVED_FILE))
    return files.container_resolver(host, options, shares_host=True)
