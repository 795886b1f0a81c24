"""Networks: ls, create, connect, disconnect, rm."""

from __future__ import annotations

import sys

from havre.cli.format.table import Listing, label_text
from havre.cli.parser import StatusError
from havre.cli.platforms import require_newer
from havre.cli.ps import render_filters
from havre.cli.run_config import endpoint_settings, to_map
from havre.errors import HavreError, NotFound
from havre.golang.texts import short_id
from havre.golang.times import go_time, parse_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.golang.flags import Options


def ls(session: Session, options: Options, arguments: list[str]) -> int:
    """List networks."""
    query: Query = {"filters": render_filters(options.filter)} if options.filter else {}
    networks = sorted(session.client.get("/networks", query), key=lambda network: network["Name"])
    form = options.format or ("" if options.quiet else session.config.text("networksFormat"))
    if options.quiet and form in ("", "table"):
        for network in networks:
            print(network["Id"] if options.no_trunc else short_id(network["Id"]))
    else:
        sys.stdout.write(_network_listing(truncate=not options.no_trunc).render(networks, form))
    return 0


def _network_listing(*, truncate: bool) -> Listing:
    fields: Fields = {
        "ID": ("NETWORK ID", lambda n: short_id(n["Id"]) if truncate else n["Id"]),
        "Name": ("NAME", lambda n: n["Name"]),
        "Driver": ("DRIVER", lambda n: n["Driver"]),
        "Scope": ("SCOPE", lambda n: n["Scope"]),
        "IPv6": ("IPV6", lambda n: _bool(n["EnableIPv6"])),
        "Internal": ("INTERNAL", lambda n: _bool(n["Internal"])),
        "Labels": ("LABELS", lambda n: label_text(n.get("Labels"))),
        "Label": ("LABELS", _label),
        "CreatedAt": ("CREATED AT", lambda n: _go_created(n["Created"])),
    }
    raw = {"network_id": "ID", "name": "Name", "driver": "Driver", "scope": "Scope"}
    columns = ["ID", "Name", "Driver", "Scope"]
    return Listing("*network.networkContext", fields, columns, hidden=("Label",), raw=raw)


def _label(network: dict[str, Any], name: str) -> str:
    value: str = (network.get("Labels") or {}).get(name, "")
    return value


def _bool(value: bool) -> str:
    return "true" if value else "false"


def _go_created(text: str) -> str:
    return go_time(*parse_time(text), utc=text.endswith("Z"))


def create(session: Session, options: Options, arguments: list[str]) -> int:
    """Create a network and print its ID."""
    if not options.ipv4:
        raise StatusError(1, '"--ipv4=false" requires networks without IPv4, which this client does not create')
    try:
        ipam = {"Driver": options.ipam_driver, "Config": _ipam(options), "Options": to_map(options.ipam_opt)}
    except ValueError as error:
        raise StatusError(1, str(error)) from error
    body = {
        "Name": arguments[0],
        "Driver": options.driver,
        "Options": to_map(options.opt),
        "IPAM": ipam,
        "Internal": options.internal,
        "Ingress": options.ingress,
        "Attachable": options.attachable,
        "EnableIPv6": options.ipv6,
        "Scope": options.scope,
        "ConfigOnly": options.config_only,
        "ConfigFrom": {"Network": options.config_from} if options.config_from else None,
        "Labels": to_map(options.label),
    }
    answer = session.client.post("/networks/create", body=body)
    if warning := answer.get("Warning"):
        session.warn(f"WARNING: {warning}")
    print(answer["Id"])
    return 0


def _ipam(options: Options) -> list[dict[str, Any]]:
    """Subnets with their ranges, gateways and auxiliary addresses. Raises ValueError."""
    from ipaddress import ip_address, ip_network

    if len(options.subnet) < len(options.ip_range) or len(options.subnet) < len(options.gateway):
        raise ValueError("every ip-range or gateway must have a corresponding subnet")
    configs: dict[str, dict[str, Any]] = {subnet: {"Subnet": subnet} for subnet in options.subnet}
    try:
        networks = {subnet: ip_network(subnet, strict=False) for subnet in options.subnet}
    except ValueError:
        raise ValueError(f"invalid CIDR address: {', '.join(options.subnet)}") from None
    for index, (one, first) in enumerate(networks.items()):
        for other, second in list(networks.items())[index + 1 :]:
            if first.version == second.version and first.overlaps(second):
                raise ValueError(f"multiple overlapping subnet configuration is not supported: {one}, {other}")

    def place(text: str, name: str) -> dict[str, Any]:
        address = ip_address(text.partition("/")[0])
        for subnet, network in networks.items():
            if address in network:
                return configs[subnet]
        raise ValueError(f"no matching subnet for {name} {text}")

    for text in options.ip_range:
        place(text, "range")["IPRange"] = text
    for text in options.gateway:
        config = place(text, "gateway")
        if "Gateway" in config:
            raise ValueError(f"cannot configure multiple gateways ({config['Gateway']}, {text}) on the same subnet")
        config["Gateway"] = text
    for name, text in to_map(options.aux_address).items():
        place(text, "aux-address").setdefault("AuxiliaryAddresses", {})[name] = text
    return list(configs.values())


def connect(session: Session, options: Options, arguments: list[str]) -> int:
    """Connect a container to a network."""
    network, container = arguments
    given = {
        "aliases": options.alias,
        "ip": options.ip,
        "ip6": options.ip6,
        "link_local": options.link_local_ip,
        "driver_opts": to_map(options.driver_opt),
        "gw_priority": options.gw_priority,
    }
    if options.gw_priority:
        require_newer(session.client, "--gw-priority", "1.48")
    body = {"Container": container, "EndpointConfig": endpoint_settings(given, options.link)}
    session.client.post(f"/networks/{network}/connect", body=body)
    return 0


def disconnect(session: Session, options: Options, arguments: list[str]) -> int:
    """Disconnect a container from a network."""
    network, container = arguments
    body = {"Container": container, "Force": options.force}
    session.client.post(f"/networks/{network}/disconnect", body=body)
    return 0


def rm(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove networks; with --force, a missing one is not an error."""
    failed = False
    for name in arguments:
        try:
            session.client.delete(f"/networks/{name}")
        except NotFound as error:
            if options.force:
                continue
            session.warn(error.message)
            failed = True
            continue
        except HavreError as error:
            session.warn(error.message)
            failed = True
            continue
        print(name, flush=True)
    return 1 if failed else 0
