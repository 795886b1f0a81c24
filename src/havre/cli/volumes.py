"""Volumes: ls, create, rm, and havre's additions: clone, rename, export, import, du."""

from __future__ import annotations

import sys

from havre.cli.archive import check_output, open_input, read_chunks, write_output
from havre.cli.commands.volume import CLUSTER_FLAGS
from havre.cli.format.table import Listing, label_text
from havre.cli.parser import StatusError
from havre.cli.ps import render_filters
from havre.cli.run_config import to_map
from havre.errors import NotFound
from havre.golang.texts import human_size

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.golang.flags import Options


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
    """The listing of volumes as from the API."""
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
    if cluster := sorted({name for name, _ in CLUSTER_FLAGS} & options.given):
        raise StatusError(1, f"havre: --{cluster[0]} is for cluster volumes, which need a swarm: havre has none yet")
    body = {
        "Name": arguments[0] if arguments else "",
        "Driver": options.driver,
        "DriverOpts": to_map(options.opt),
        "Labels": to_map(options.label),
    }
    print(session.client.post("/volumes/create", body=body)["Name"])
    return 0


def update(session: Session, options: Options, arguments: list[str]) -> int:
    """Set the availability of a cluster volume; engines without a swarm refuse it."""
    volume = session.client.get(f"/volumes/{arguments[0]}")
    if not (cluster := volume.get("ClusterVolume")):
        raise StatusError(1, "Can only update cluster volumes")
    version = str(cluster["Version"]["Index"])
    body = {"Spec": {"Availability": options.availability}}
    session.client.call("PUT", f"/volumes/{arguments[0]}", {"version": version}, body).read()
    return 0


def rm(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove volumes."""
    query: Query = {"force": "1"} if options.force else {}
    return session.each(arguments, lambda name: session.client.delete(f"/volumes/{name}", query))


def clone(session: Session, options: Options, arguments: list[str]) -> int:
    """Create a volume with the content of another, and print its name."""
    name, new = arguments
    print(session.client.post(f"/volumes/{name}/clone", {"name": new})["Name"])
    return 0


def rename(session: Session, options: Options, arguments: list[str]) -> int:
    """Rename a volume."""
    name, new = arguments
    session.client.post(f"/volumes/{name}/rename", {"name": new})
    return 0


def export(session: Session, options: Options, arguments: list[str]) -> int:
    """Write a volume as a tar archive."""
    check_output(options.output, "export volume")
    query: Query = {"zstd": "1"} if options.zstd else {}
    answer = session.client.call("GET", f"/volumes/{arguments[0]}/export", query)
    write_output(answer.chunks(), options.output, "export volume")
    return 0


def import_(session: Session, options: Options, arguments: list[str]) -> int:
    """Create a volume from a tar archive, and print its name."""
    name, *source = arguments
    descriptor = open_input(source[0]) if source and source[0] != "-" else 0
    headers = {"Content-Type": "application/x-tar"}
    body = read_chunks(descriptor)
    print(session.client.json("POST", f"/volumes/{name}/import", raw_body=body, headers=headers)["Name"])
    return 0


def du(session: Session, options: Options, arguments: list[str]) -> int:
    """Show volumes' sizes in human readable form, largest first."""
    volumes = session.client.get("/system/df", {"type": "volume"})["Volumes"] or []
    sizes = {volume["Name"]: volume["UsageData"]["Size"] for volume in volumes}
    for name in arguments:
        if name not in sizes:
            raise NotFound(f"get {name}: no such volume")
    shown = sorted(arguments or sizes, key=lambda name: (-sizes[name], name))
    sys.stdout.write("".join(f"{human_size(sizes[name])}\t{name}\n" for name in shown))
    return 0
