"""Settings of a container's endpoint other than addresses. Pure: parses them, or refuses.

    link-local-ip   additional addresses of the device, in 169.254.0.0/16 or fe80::/64
    driver-opts     com.docker.network.endpoint.sysctls  net.ipv4.conf.IFNAME.log_martians=1,...
                    com.docker.network.endpoint.ifname   the device's name in the container
                    options without the prefix com.docker.network are stored without effect, as with Docker
    gw-priority     the network with the highest has the default route and the published ports

Source: Docker Engine API, "EndpointSettings"; the options are those of version 28.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address, ip_interface

import msgspec

from havre.dataplane import ipam
from havre.dataplane.ipam import Address, Pool
from havre.errors import InvalidInput
from havre.linux.netlink import Interface
from havre.networks import spec as words
from havre.networks.spec import Network, bridge_of
from havre.wire.config import EndpointIpam, EndpointSettings

SYSCTLS = "com.docker.network.endpoint.sysctls"
INTERFACE = "com.docker.network.endpoint.ifname"
_DOCKERS = "com.docker.network."

# docker's command line lowercases options.
_SYSCTL = re.compile(r"net\.(ipv4|ipv6|mpls)\.(conf|neigh)\.(?i:IFNAME)\.([a-z0-9_]+)=(-?[0-9]+)", re.ASCII)
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,14}", re.ASCII)
_PREFIX = {4: 16, 6: 64}


@dataclass(frozen=True)
class Extras:
    """The parsed settings. `interface` "" means chosen by the engine.

    `sysctls` contain IFNAME for the device's name.
    """

    interface: str = ""
    priority: int = 0
    link_local: tuple[Interface, ...] = ()
    sysctls: tuple[tuple[str, str], ...] = ()

    def settings(self, interface: str) -> tuple[tuple[str, str], ...]:
        """The sysctls of the device `interface`: path below /proc/sys/net, value."""
        return tuple((path.replace("IFNAME", interface), value) for path, value in self.sysctls)


def extras_of(asked: EndpointSettings) -> Extras:
    """Parse. InvalidInput lists all problems, with dockerd's messages where it has any."""
    problems: list[str] = []
    options: Mapping[str, str] = asked.driver_opts or {}
    extras = Extras(
        interface=options.get(INTERFACE, ""),
        priority=0 if asked.gw_priority is msgspec.UNSET else asked.gw_priority,
        link_local=tuple(_link_local((asked.ipam_config and asked.ipam_config.link_local_ips) or [], problems)),
        sysctls=tuple(_sysctls(options.get(SYSCTLS, ""), problems)),
    )
    if extras.interface and (not _NAME.fullmatch(extras.interface) or extras.interface == "lo"):
        problems.append(f"invalid interface name: {extras.interface}")
    unknown = [name for name in options if name.startswith(_DOCKERS) and name not in {SYSCTLS, INTERFACE}]
    problems += [f"unknown driver option {name}: not supported by any driver" for name in unknown]
    if problems:
        raise InvalidInput("invalid endpoint settings:\n" + "\n".join(problems))
    return extras


def check_settings(network: Network, asked: EndpointSettings) -> None:
    """Refuse settings that the network does not support."""
    is_bridge = not network.config_only and network.name not in words.PREDEFINED
    check_endpoint(network.name, asked, bridge_of(network).pools if is_bridge else None)


def check_endpoint(network: str, asked: EndpointSettings, pools: Sequence[Pool] | None) -> None:
    """Refuse settings that no network, or none with these pools, supports. None: the pools are not known yet.

    InvalidInput lists all problems, with dockerd's messages (moby daemon/container_operations.go,
    validateEndpointSettings).
    """
    if asked.mac_address:
        ipam.parse_mac(asked.mac_address)
    problems = list(_misplaced(network, asked.ipam_config or EndpointIpam(), pools))
    if asked.aliases and network in words.PREDEFINED:
        problems.append("network-scoped alias is supported only for containers in user defined networks")
    if problems:
        bullet = "* " if len(problems) > 1 else ""
        raise InvalidInput("invalid endpoint settings:\n" + "\n".join(bullet + each for each in problems))
    extras_of(asked)


def _misplaced(network: str, wanted: EndpointIpam, pools: Sequence[Pool] | None) -> Iterator[str]:
    if network in words.PREDEFINED and (wanted.ipv4_address or wanted.ipv6_address):
        yield "user specified IP address is supported on user defined networks only"
    for version, text in ((4, wanted.ipv4_address), (6, wanted.ipv6_address)):
        address = ipam.find_address(text)
        if text and (address is None or address.version != version or _is_mapped(address)):
            yield f"invalid IPv{version} address: {text}"
        if text and pools is not None and not any(address in pool for pool in pools if address is not None):
            yield f"no configured subnet or ip-range contain the IP address {text}"


def _is_mapped(address: Address) -> bool:
    """Whether it is an IPv4 address in IPv6's spelling, ::ffff:10.0.0.1."""
    return isinstance(address, IPv6Address) and address.ipv4_mapped is not None


def _link_local(given: list[str], problems: list[str]) -> list[Interface]:
    found = []
    for text in given:
        address = ipam.find_address(text)
        if address is None or not address.is_link_local:
            problems.append(f"invalid link-local IP address: {text}")
        else:
            found.append(ip_interface((address, _PREFIX[address.version])))
    return found


def _sysctls(text: str, problems: list[str]) -> list[tuple[str, str]]:
    found = []
    for item in filter(None, text.split(",")):
        match = _SYSCTL.fullmatch(item)
        if match is None:
            problems.append(f"invalid sysctl {item}: expected net.ipv4.conf.IFNAME.NAME=NUMBER or its like")
        else:
            found.append((f"{match[1]}/{match[2]}/IFNAME/{match[3]}", match[4]))
    return found
