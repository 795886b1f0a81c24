"""Contents of a container's `/etc/hosts` and `/etc/resolv.conf`, as dockerd writes them. Pure.

Format: hosts(5), resolv.conf(5). Name servers on the host's loopback are unreachable from another network namespace and
are omitted; where none remains, public ones are used, as in dockerd.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from havre.errors import InvalidInput

HOST_GATEWAY = "host-gateway"

_LOCAL_NAMES = "127.0.0.1\tlocalhost\n"
_LOCAL_NAMES6 = """\
::1\tlocalhost ip6-localhost ip6-loopback
fe00::0\tip6-localnet
ff00::0\tip6-mcastprefix
ff02::1\tip6-allnodes
ff02::2\tip6-allrouters
"""
_PUBLIC_SERVERS = ("8.8.8.8", "8.8.4.4")


@dataclass(frozen=True)
class Resolver:
    """The directives of a resolv.conf; empty means "absent"."""

    servers: tuple[str, ...] = ()
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()


def render_hosts(
    own: Iterable[tuple[str, str]], extra: Sequence[str], host_gateways: Sequence[str], *, ipv6: bool = True
) -> str:
    """`own` are (address, names) of the container, `extra` the user's `name:address`; IPv6 may be in brackets.

    Without `ipv6`, the file has no IPv6 lines.
    """
    given = [(address, name) for item in extra for name, address in _extra(item, host_gateways)]
    lines = [f"{address}\t{names}\n" for address, names in (*given, *own) if ipv6 or ":" not in address]
    return _LOCAL_NAMES + (_LOCAL_NAMES6 if ipv6 else "") + "".join(lines)


def append_hosts(text: str, extra: Sequence[str], host_gateways: Sequence[str]) -> str:
    """The host's own file plus the user's entries, for containers in the host's network."""
    ended = text if not text or text.endswith("\n") else text + "\n"
    added = (f"{address}\t{name}\n" for item in extra for name, address in _extra(item, host_gateways))
    return ended + "".join(added)


def _extra(item: str, host_gateways: Sequence[str]) -> list[tuple[str, str]]:
    """The name of an entry with its address, or with each of the host's."""
    name, colon, address = item.partition(":")
    if not (name and colon):
        raise InvalidInput(f'bad format for add-host: "{item}"', "expected NAME:ADDRESS")
    if address == HOST_GATEWAY:
        if not host_gateways:
            raise InvalidInput("unable to derive the IP value for host-gateway")
        return [(name, each) for each in host_gateways]
    address = address.removeprefix("[").removesuffix("]")
    try:
        ip_address(address)
    except ValueError:
        raise InvalidInput(f'invalid IP address in add-host: "{address}"') from None
    return [(name, address)]


def parse_resolv_conf(text: str) -> Resolver:
    """The directives that containers inherit; the last `search` or `domain` wins, as in the C library."""
    servers: list[str] = []
    options: list[str] = []
    search: tuple[str, ...] = ()
    for line in text.splitlines():
        key, *values = line.partition("#")[0].partition(";")[0].split() or [""]
        if key == "nameserver" and values:
            servers.append(values[0])
        elif key in ("search", "domain"):
            search = tuple(values)
        elif key == "options":
            options.extend(values)
    return Resolver(tuple(servers), search, tuple(options))


def container_resolver(host: Resolver, override: Resolver, *, shares_host: bool = False) -> Resolver:
    """The host's resolver, overridden by the container's `--dns`, `--dns-search` and `--dns-option`.

    A search list of "." means none. Link-local IPv6 and loopback servers are dropped unless the network is shared.
    """
    inherited = host.servers if shares_host else tuple(server for server in host.servers if _reachable(server))
    search = () if override.search == (".",) else override.search or host.search
    servers = override.servers or inherited or _PUBLIC_SERVERS
    return Resolver(servers, search, override.options or host.options)


def embedded_resolver(resolver: Resolver, address: str) -> Resolver:
    """As `resolver`, with our embedded name server at `address` as the only one (ndots:0: names without a dot)."""
    ndots = () if any(option.startswith("ndots:") for option in resolver.options) else ("ndots:0",)
    return Resolver((address,), resolver.search, (*resolver.options, *ndots))


def change_hosts(text: str, old: Iterable[tuple[str, str]], new: Iterable[tuple[str, str]]) -> str:
    """Replace the container's own (address, names) lines in its hosts file; lines that others added stay."""
    gone = {f"{address}\t{names}" for address, names in old}
    kept = [line for line in text.splitlines() if line not in gone]
    return "".join(f"{line}\n" for line in [*kept, *(f"{address}\t{names}" for address, names in new)])


def _reachable(server: str) -> bool:
    try:
        address = ip_address(server.partition("%")[0])
    except ValueError:
        return False
    return address.version == 4 and not address.is_loopback


def render_resolv_conf(resolver: Resolver) -> str:
    """resolv.conf(5) text."""
    lines = ["# Generated by havre.", *(f"nameserver {server}" for server in resolver.servers)]
    if resolver.search:
        lines.append("search " + " ".join(resolver.search))
    if resolver.options:
        lines.append("options " + " ".join(resolver.options))
    return "\n".join(lines) + "\n"
