"""Volumes: ls, create, rm."""

from __future__ import annotations

import sys

from havre.cli.format.table import Listing, label_text
from havre.cli.format.text import human_size
from havre.cli.ps import render_filters
from havre.cli.run_config import to_map

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.parser import Options
    from havre.cli.session import Session
    from havre.client.api import Query


def ls(session: Session, options: Options, arguments: list[str]) -> int:
    """List volumes."""
    query: Query = {"filters": render_filters(options.filter)} if options.filter else {}
    volumes = session.client.get("/volumes", query)["Volumes"] or []
    if options.cluster:
        volumes = []
    form = options.format or ("" if options.quiet else session.config.text("volumesFormat"))
    volumes.sort(key=lambda volume: volume["Name"])
    if options.quiet and form in ("", "table"):
        sys.stdout.write("".join(volume["Name"] + "\n" for volume in volumes))
    else:
        sys.stdout.write(volume_listing().render(volumes, form))
    return 0


def volume_listing() -> Listing:
    """The listing of volumes as the API has them."""
    fields: Fields = {
        "Name": ("VOLUME NAME", lambda v: v["Name"]),
        "Driver": ("DRIVER", lambda v: v["Driver"]),
        "Scope": ("SCOPE", lambda v: v["Scope"]),
        "Mountpoint": ("MOUNTPOINT", lambda v: v["Mountpoint"]),
        "Labels": ("LABELS", lambda v: label_text(v.get("Labels"))),
        "Label": ("LABELS", _label),
        "Links": ("LINKS", lambda v: _usage(v, "RefCount")),
        "Size": ("SIZE", lambda v: _usage(v, "Size")),
        "Group": ("GROUP", lambda v: "N/A"),
        "Availability": ("AVAILABILITY", lambda v: "N/A"),
        "Status": ("STATUS", lambda v: "N/A"),
    }
    raw = {"name": "Name", "driver": "Driver"}
    return Listing("*formatter.volumeContext", fields, ["Driver", "Name"], hidden=("Label",), raw=raw)


def _label(volume: dict[str, Any], name: str) -> str:
    value: str = (volume.get("Labels") or {}).get(name, "")
    return value


def _usage(volume: dict[str, Any], name: str) -> str:
    usage = volume.get("UsageData")
    if not usage:
        return "N/A"
    return human_size(usage[name]) if name == "Size" else str(usage[name])


def create(session: Session, options: Options, arguments: list[str]) -> int:
    """Create a volume and print its name."""
    body = {
        "Name": arguments[0] if arguments else "",
        "Driver": options.driver,
        "DriverOpts": to_map(options.opt),
        "Labels": to_map(options.label),
    }
    print(session.client.post("/volumes/create", body=body)["Name"])
    return 0


def rm(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove volumes."""
    query: Query = {"force": "1"} if options.force else {}
    return session.each(arguments, lambda name: session.client.delete(f"/volumes/{name}", query))
