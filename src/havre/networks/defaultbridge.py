"""The default bridge, by the daemon's options: device, subnets, rules. Pure.

    --bridge NAME      a bridge created by the administrator, never removed; "none": no default bridge
    --bip, --bip6      its address with prefix length. By default the subnet of the administrator's bridge,
    --fixed-cidr(-v6)  or of the range for containers, or the first free pool, which is then stored
    --default-gateway  the containers' default route, if not the bridge itself
    --icc --ip-masq --ip --mtu --ipv6    as the options of user-defined networks

Without --ipv6 the IPv6 options have no effect, as with dockerd.

Source: dockerd(8), "Default network options". Contradictions are refused, with dockerd's messages where it has any.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from ipaddress import ip_interface

from havre.dataplane import ipam
from havre.dataplane.ipam import Subnet
from havre.dataplane.plan import DEFAULT_MTU
from havre.errors import InvalidInput
from havre.linux.netlink import Interface
from havre.networks import spec as words
from havre.networks.spec import IpamPool

NONE = "none"


@dataclass(frozen=True)
class DefaultBridge:
    """The daemon's options; "" means not given."""

    link: str = ""
    bip: str = ""
    bip6: str = ""
    fixed_cidr: str = ""
    fixed_cidr6: str = ""
    gateway: str = ""
    gateway6: str = ""
    host_binding: str = ""
    icc: bool = True
    masquerade: bool = True
    ipv6: bool = False
    mtu: int = DEFAULT_MTU

    @property
    def wanted(self) -> bool:
        """Report whether a default bridge is configured."""
        return self.link != NONE

    def check(self) -> None:
        """Refuse contradictory options."""
        if self.link and (self.bip or self.bip6):
            raise InvalidInput("You specified -b & --bip, mutually exclusive options. Please specify only one")
        if not self.wanted and (self.fixed_cidr or self.fixed_cidr6 or self.gateway or self.gateway6 or self.ipv6):
            raise InvalidInput("--bridge=none has no addresses", "leave out --fixed-cidr, --default-gateway and --ipv6")
        if self.host_binding:
            ipam.parse_address(self.host_binding)
        if self.bip6:
            _address("--bip6", self.bip6, 6)
        if self.fixed_cidr6 and ipam.parse_span(self.fixed_cidr6).version != 6:
            raise InvalidInput(f"invalid fixed-cidr-v6: {self.fixed_cidr6}", "expected an IPv6 subnet, as fd00:30::/64")

    @property
    def idle(self) -> list[str]:
        """The options without effect because another one is missing, for a warning."""
        given = {"--bip6": self.bip6, "--fixed-cidr-v6": self.fixed_cidr6, "--default-gateway-v6": self.gateway6}
        return [flag for flag, text in given.items() if text and not self.ipv6]

    def options(self, link: str) -> dict[str, str]:
        """The options of the network with the device `link`."""
        return {
            words.DEFAULT_BRIDGE: "true",
            words.ICC: str(self.icc).lower(),
            words.MASQUERADE: str(self.masquerade).lower(),
            words.HOST_BINDING: self.host_binding or "0.0.0.0",
            words.LINK: link,
            words.MTU: str(self.mtu),
        }

    def pools(
        self, present: Sequence[Interface], kept: Sequence[IpamPool], choose: Callable[[int, Sequence[Subnet]], Subnet]
    ) -> list[IpamPool]:
        """Its subnets. `present` are the addresses of an administrator's device, `kept` the stored pools of the
        network.

        `choose(version, preferred)` returns the first free subnet of `preferred`, otherwise one of the pools.
        """
        four = self._pool(4, self.bip, self.fixed_cidr, self.gateway, present, kept, choose)
        if not self.ipv6:
            return [four]
        return [four, self._pool(6, self.bip6, self.fixed_cidr6, self.gateway6, present, kept, choose)]

    def _pool(
        self,
        version: int,
        bip: str,
        fixed: str,
        gateway: str,
        present: Sequence[Interface],
        kept: Sequence[IpamPool],
        choose: Callable[[int, Sequence[Subnet]], Subnet],
    ) -> IpamPool:
        fixed = str(ipam.parse_span(fixed)) if fixed else ""
        own = next((each for each in present if each.version == version and not each.is_link_local), None)
        if bip:
            own = _address("--bip" if version == 4 else "--bip6", bip, version)
        if own is not None:
            pool = IpamPool(subnet=str(own.network), gateway=str(own.ip))
        elif fixed:
            pool = IpamPool(subnet=fixed)
        else:
            before = [words.pool_of(each) for each in kept]
            subnet = choose(version, [pool.subnet for pool in before if pool.subnet.version == version])
            at = next((pool.gateway for pool in before if pool.subnet == subnet), ipam.default_gateway(subnet))
            pool = IpamPool(subnet=str(subnet), gateway=str(at))
        pool.ip_range = fixed
        if gateway:
            pool.auxiliary_addresses = {words.ROUTER if version == 4 else words.ROUTER6: gateway}
        words.pool_of(pool)  # raises if the parts contradict each other
        return pool


def _address(flag: str, text: str, version: int) -> Interface:
    try:
        address = ip_interface(text)
    except ValueError:
        address = None
    if address is None or address.version != version or "/" not in text:
        example = "172.30.0.1/16" if version == 4 else "fd00:30::1/64"
        raise InvalidInput(f"invalid {flag}: {text}", f"expected an address with prefix length, as {example}")
    return address
