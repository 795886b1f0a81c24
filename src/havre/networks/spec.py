"""Docker's description of a network: the request, the stored value, and its translation for the kernel.

Pure: `check_spec` refuses invalid requests, `bridge_of` returns the `Bridge` for the dataplane. Source: Docker
Engine API, "NetworkCreate" and "NetworkInspect"; messages are dockerd's.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Collection, Mapping
from ipaddress import ip_address

import msgspec
from msgspec import UNSET, UnsetType

from havre.dataplane.ipam import Pool, parse_address, parse_pool
from havre.dataplane.plan import DEFAULT_MTU, GATEWAY_MODES, ISOLATED, NAT, Bridge, bridge_link, dummy_parent
from havre.errors import Forbidden, InvalidInput, NotFound, Unavailable, Unsupported
from havre.golang.units import parse_bool
from havre.wire.values import Value

PREDEFINED = ("bridge", "host", "none")
LINK = "com.docker.network.bridge.name"
ICC = "com.docker.network.bridge.enable_icc"
MASQUERADE = "com.docker.network.bridge.enable_ip_masquerade"
HOST_BINDING = "com.docker.network.bridge.host_binding_ipv4"
HOST_BINDING6 = "com.docker.network.bridge.host_binding_ipv6"
INHIBIT = "com.docker.network.bridge.inhibit_ipv4"
TRUSTED = "com.docker.network.bridge.trusted_host_interfaces"
SOURCE = {version: f"com.docker.network.host_ipv{version}" for version in (4, 6)}
GATEWAY_MODE = {version: f"com.docker.network.bridge.gateway_mode_ipv{version}" for version in (4, 6)}
PARENT = "parent"
ROUTER, ROUTER6 = "DefaultGatewayIPv4", "DefaultGatewayIPv6"
"""Auxiliary addresses of the default gateway, as dockerd stores `--default-gateway`."""
MODES = {"macvlan": ("bridge", "private", "vepa", "passthru"), "ipvlan": ("l2", "l3", "l3s")}
"""The modes of the drivers with a parent device, the default first."""
ENABLE = {version: f"com.docker.network.enable_ipv{version}" for version in (4, 6)}
"""Options that say what `EnableIPv4` and `EnableIPv6` leave open, such as defaults of the daemon."""
DEFAULT_BRIDGE = "com.docker.network.bridge.default_bridge"
MTU = "com.docker.network.driver.mtu"
VNI = "com.docker.network.driver.overlay.vxlanid_list"
FIRST_VNI, OVERLAY_MTU = 4097, 1450

# Stricter than the kernel's rule: the name is also inserted into firewall commands.
_LINK_NAME = re.compile(r"[A-Za-z0-9_.-]{1,15}", re.ASCII)


class IpamPool(Value, omit_defaults=True):
    """One subnet of a network, in CIDR notation, with its gateway and the range for endpoints."""

    subnet: str = ""
    ip_range: str = ""
    gateway: str = ""
    auxiliary_addresses: dict[str, str] | None = None


class Ipam(Value):
    """Address management; the only driver is "default"."""

    driver: str = "default"
    options: dict[str, str] | None = None
    config: list[IpamPool] | None = None


class ConfigReference(Value):
    """The configuration-only network that a network uses."""

    network: str = ""


class NetworkSpec(Value):
    """The body of `POST /networks/create`."""

    name: str = ""
    check_duplicate: bool = False
    driver: str = "bridge"
    scope: str = ""
    enable_ipv4: bool | None = None
    enable_ipv6: bool | None = None
    ipam: Ipam | None = msgspec.field(default=None, name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_only: bool = False
    config_from: ConfigReference | None = None
    options: dict[str, str] | None = None
    labels: dict[str, str] | None = None


class NetworkContainer(Value):
    """An endpoint as `network inspect` lists it; addresses with prefix length."""

    name: str = ""
    endpoint_id: str = msgspec.field(default="", name="EndpointID")
    mac_address: str = ""
    ipv4_address: str = msgspec.field(default="", name="IPv4Address")
    ipv6_address: str = msgspec.field(default="", name="IPv6Address")


class SubnetStatus(msgspec.Struct, frozen=True):
    """Addresses of a subnet: in use or reserved, and left to allocate; both at most 2^64 - 1."""

    in_use: int = msgspec.field(name="IPsInUse")
    available: int = msgspec.field(name="DynamicIPsAvailable")


class IpamStatus(Value, omit_defaults=True):
    """The use of a network's subnets."""

    subnets: dict[str, SubnetStatus] = msgspec.field(default_factory=dict)


class NetworkStatus(Value):
    """What `network inspect` tells of a network's use."""

    ipam: IpamStatus = msgspec.field(name="IPAM")


class Network(Value):
    """A network as stored and shown; `containers` is filled for `inspect` only. `created` is RFC 3339.

    `enable_ipv4` is UNSET for clients that do not know it; `status` is set for `inspect` by those that do.
    """

    name: str
    id: str
    created: str
    scope: str = "local"
    driver: str = "bridge"
    enable_ipv4: bool | UnsetType = True
    enable_ipv6: bool = False
    ipam: Ipam = msgspec.field(default_factory=Ipam, name="IPAM")
    internal: bool = False
    attachable: bool = False
    ingress: bool = False
    config_from: ConfigReference = msgspec.field(default_factory=ConfigReference)
    config_only: bool = False
    containers: dict[str, NetworkContainer] = msgspec.field(default_factory=dict)
    options: dict[str, str] = msgspec.field(default_factory=dict)
    labels: dict[str, str] = msgspec.field(default_factory=dict)
    status: NetworkStatus | UnsetType = UNSET


def check_spec(spec: NetworkSpec) -> None:
    """Refuse a request that is invalid in itself."""
    if not spec.name.strip():
        raise InvalidInput(f"invalid name: {spec.name}")
    if spec.name in PREDEFINED or spec.name == "default":
        raise Forbidden(f"operation is not permitted on predefined {spec.name} network ")
    if spec.driver in ("host", "null"):
        raise Forbidden(f'only one instance of "{spec.driver}" network is allowed')
    if spec.ingress:
        raise Forbidden("Ingress network can only be global scope network")
    if spec.scope not in ("", "local") and (spec.driver, spec.scope) != ("overlay", "swarm"):
        raise Forbidden(f"cannot create a {spec.scope} scoped network when swarm is not active")
    if spec.driver == "overlay" and not spec.attachable:
        raise Unavailable(
            "This node is not a swarm manager",
            "services' overlays need a swarm; one for containers of this host is made with --attachable",
        )
    if spec.driver == "overlay" and "encrypted" in (spec.options or {}):
        raise Unsupported("overlay networks are not encrypted: their traffic does not leave this host", "leave it out")
    if spec.driver not in ("", "bridge", "overlay", *MODES):
        raise NotFound(f'plugin "{spec.driver}" not found', f"drivers: bridge, overlay, {', '.join(MODES)}")
    if spec.driver == "overlay" and spec.enable_ipv4 is False:
        raise InvalidInput("IPv4 cannot be disabled in a Swarm scoped network")
    if spec.config_only and spec.config_from:
        raise InvalidInput("configuration network cannot depend on another configuration network")
    if spec.ipam is not None and spec.ipam.driver not in ("", "default"):
        raise NotFound(f'plugin "{spec.ipam.driver}" not found', "the address driver is default")
    _check_options(spec.options or {})
    _check_gateway_modes(spec.options or {}, spec.internal)
    for pool in (spec.ipam.config if spec.ipam else None) or ():
        pool_of(pool)
    if spec.driver in MODES and not spec.config_only:
        _check_parent(spec.driver, spec.options or {})


def enabled(spec: NetworkSpec, options: dict[str, str]) -> frozenset[int]:
    """The IP versions of a new network. Removes from its `options` what a field of the request overrides."""
    versions = set()
    for version, asked, default in ((4, spec.enable_ipv4, True), (6, spec.enable_ipv6, False)):
        on = _flag(options, ENABLE[version], default) if asked is None else asked
        if asked is not None:
            options.pop(ENABLE[version], None)
        if on:
            versions.add(version)
    if not versions:
        raise InvalidInput("IPv4 or IPv6 must be enabled")
    return frozenset(versions)


def asked_pools(spec: NetworkSpec) -> list[IpamPool]:
    """The subnets given by the user; the engine chooses missing families. Bridges have at most one of each family."""
    given = (spec.ipam.config if spec.ipam else None) or []
    versions = [pool_of(each).subnet.version for each in given]
    if spec.driver in ("", "bridge") and len(set(versions)) < len(versions):
        raise Forbidden("bridge driver doesn't support multiple subnets", "one for each IP version")
    return given


def filled_in(driver: str, options: Mapping[str, str], id: str, taken: Collection[int]) -> dict[str, str]:
    """The options added for a new network `id`, as in dockerd; `taken`: VXLAN identifiers in use."""
    if driver in MODES and not options.get(PARENT):
        return {PARENT: dummy_parent(id)}
    if driver == "overlay" and not options.get(VNI):
        return {VNI: str(next(vni for vni in itertools.count(FIRST_VNI) if vni not in taken))}
    return {}


def pool_of(given: IpamPool) -> Pool:
    """Parse a pool; InvalidInput if its parts contradict each other."""
    reserved = given.auxiliary_addresses or {}
    router = reserved.get(ROUTER) or reserved.get(ROUTER6) or ""
    return parse_pool(given.subnet, given.gateway, given.ip_range, list(reserved.values()), router)


def bridge_of(network: Network) -> Bridge:
    """The network as the dataplane's `Bridge`."""
    options = network.options
    pools = [pool_of(each) for each in network.ipam.config or []]
    versions = {version for version, on in ((4, network.enable_ipv4), (6, network.enable_ipv6)) if on}
    modes = {version: options[key] for version, key in GATEWAY_MODE.items() if options.get(key)}
    return Bridge(
        id=network.id,
        name=network.name,
        link=options.get(LINK) or bridge_link(network.id),
        pools=tuple(sorted((pool for pool in pools if _version(pool) in versions), key=_version)),
        mtu=_number(options, MTU, OVERLAY_MTU if network.driver == "overlay" else DEFAULT_MTU),
        internal=network.internal,
        masquerade=_flag(options, MASQUERADE, True),
        icc=_flag(options, ICC, True),
        kind=network.driver,
        parent=options.get(PARENT, ""),
        mode=_mode(network.driver, options) if network.driver in MODES else "",
        vni=_vni(options) if network.driver == "overlay" else 0,
        gateways=tuple(modes.items()),
        inhibited=frozenset(version for version in (4, 6) if _is_inhibited(version, options)),
        sources=tuple(parse_address(options[key]) for key in SOURCE.values() if options.get(key)),
        trusted=tuple(filter(None, options.get(TRUSTED, "").split(":"))),
    )


def _is_inhibited(version: int, options: Mapping[str, str]) -> bool:
    return options.get(GATEWAY_MODE[version]) == ISOLATED or (version == 4 and _flag(options, INHIBIT, False))


def _version(pool: Pool) -> int:
    return pool.subnet.version


def _mode(driver: str, options: Mapping[str, str]) -> str:
    return options.get(f"{driver}_mode") or MODES[driver][0]


def _check_parent(driver: str, options: Mapping[str, str]) -> None:
    if _mode(driver, options) not in MODES[driver]:
        raise InvalidInput(
            f"requested {driver} mode '{_mode(driver, options)}' is not valid, '{MODES[driver][0]}' is the default"
        )


def _vni(options: Mapping[str, str]) -> int:
    text = options.get(VNI, "")
    if not (text.isascii() and text.isdigit() and 0 < int(text) < 1 << 24):
        raise InvalidInput(f"invalid vxlan id: {text}", "expected one number below 16777216")
    return int(text)


def _check_options(options: dict[str, str]) -> None:
    for key in (ICC, MASQUERADE, INHIBIT):
        _flag(options, key, True)
    _number(options, MTU, DEFAULT_MTU)
    if options.get(VNI):
        _vni(options)
    for key, version in ((HOST_BINDING, 4), (HOST_BINDING6, 6), (SOURCE[4], 4), (SOURCE[6], 6)):
        if options.get(key) and not _is_address(options[key], version):
            text = f"failed to parse {key} value: {options[key]} (nil ip)"
            raise InvalidInput(text, f"expected an IPv{version} address")
    for name in filter(None, options.get(TRUSTED, "").split(":")):
        if not _LINK_NAME.fullmatch(name):
            raise InvalidInput(f"invalid {TRUSTED}: {options[TRUSTED]}", "expected names of devices, joined by colons")
    parent = options.get(PARENT, "")
    if parent and (len(parent) > 15 or "/" in parent or " " in parent):
        raise InvalidInput(f"invalid parent device name: {parent}", "expected 1 to 15 characters")
    link = options.get(LINK, "")
    if link and (not _LINK_NAME.fullmatch(link) or link.strip(".") == ""):
        raise InvalidInput(f"invalid bridge name: {link}", "expected 1 to 15 of letters, digits, dot, dash, underscore")


def _check_gateway_modes(options: Mapping[str, str], internal: bool) -> None:
    for key in GATEWAY_MODE.values():
        mode = options.get(key) or NAT
        if mode not in GATEWAY_MODES:
            raise InvalidInput(f"unknown gateway mode {mode} of {key}", f"modes: {', '.join(GATEWAY_MODES)}")
        if mode == ISOLATED and not internal:
            raise InvalidInput(
                "gateway mode 'isolated' can only be used for an internal network", "create the network with --internal"
            )


def _is_address(text: str, version: int) -> bool:
    try:
        return ip_address(text).version == version
    except ValueError:
        return False


def _flag(options: Mapping[str, str], key: str, default: bool) -> bool:
    text = options.get(key)
    try:
        return default if text is None else parse_bool(text)
    except ValueError as error:
        raise InvalidInput(f"failed to parse {key} value: {text} ({error})") from None


def _number(options: Mapping[str, str], key: str, default: int) -> int:
    text = options.get(key)
    if text is None:
        return default
    if not (text.isascii() and text.isdigit() and 68 <= int(text) <= 65535):
        raise InvalidInput(f"failed to parse {key} value: {text}", "expected a number of bytes from 68 to 65535")
    return int(text)
