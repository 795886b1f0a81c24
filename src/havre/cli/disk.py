"""`havre system df`: disk usage and reclaimable space; `check`: integrity of the store."""

from __future__ import annotations

import sys

from havre.cli.format.table import Listing
from havre.cli.images import image_listing, image_rows
from havre.cli.parser import StatusError
from havre.cli.ps import container_listing
from havre.cli.volumes import volume_listing
from havre.golang.texts import ago, human_size
from havre.golang.times import parse_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.golang.flags import Options

    Json = dict[str, Any]


def check(session: Session, options: Options, arguments: list[str]) -> int:
    """Check the store; prints a line for each defect."""
    findings = session.client.post("/system/check", {"repair": "1"} if options.repair else {})
    for one in findings:
        outcome = f" ({one['Outcome']})" if options.repair and one["Outcome"] else ""
        print(f"{one['Kind']} {one['Id']}: {one['Problem']}{outcome}")
    left = sum(not one["Mended"] for one in findings)
    if not findings:
        print("No defects found.")
    elif options.repair and not left:
        print("All defects were repaired.")
    else:
        session.warn(
            "Run `havre system check --repair`." if not options.repair else "Some defects could not be repaired."
        )
    return 1 if left else 0


def df(session: Session, options: Options, arguments: list[str]) -> int:
    """Show disk usage by kind, or with -v by object."""
    usage = session.client.get("/system/df")
    form = options.format
    if not options.verbose:
        sys.stdout.write(_summary_listing().render(_summary(usage), form))
        return 0
    if form not in ("", "table"):
        raise StatusError(1, "the verbose listing of disk usage has one form only: leave out --format")
    sys.stdout.write(_verbose(usage))
    return 0


def _summary(usage: Json) -> list[Json]:
    images, containers = usage["Images"] or [], usage["Containers"] or []
    volumes, caches = usage["Volumes"] or [], usage["BuildCache"] or []
    used = sum(i["Size"] - max(i["SharedSize"], 0) for i in images if i["Containers"] and i["Size"] != -1)
    layers = usage["LayersSize"]
    stopped = [c for c in containers if c["State"] not in ("running", "paused", "restarting")]
    written = sum(c.get("SizeRw", 0) for c in containers)
    local = [v for v in volumes if v.get("UsageData", {}).get("Size", -1) != -1]
    cached = sum(c["Size"] for c in caches if not c["Shared"])
    return [
        {"Type": "Images", "TotalCount": len(images), "Active": sum(i["Containers"] > 0 for i in images),
         "size": layers, "free": layers - used},
        {"Type": "Containers", "TotalCount": len(containers), "Active": len(containers) - len(stopped),
         "size": written, "free": sum(c.get("SizeRw", 0) for c in stopped)},
        {"Type": "Local Volumes", "TotalCount": len(volumes),
         "Active": sum(v["UsageData"]["RefCount"] > 0 for v in local),
         "size": sum(v["UsageData"]["Size"] for v in local),
         "free": sum(v["UsageData"]["Size"] for v in local if not v["UsageData"]["RefCount"])},
        {"Type": "Build Cache", "TotalCount": len(caches), "Active": sum(bool(c["InUse"]) for c in caches),
         "size": cached, "free": sum(c["Size"] for c in caches if not c["Shared"] and not c["InUse"]), "whole": True},
    ]  # fmt: skip


def _summary_listing() -> Listing:
    fields: Fields = {
        "Type": ("TYPE", lambda row: row["Type"]),
        "TotalCount": ("TOTAL", lambda row: str(row["TotalCount"])),
        "Active": ("ACTIVE", lambda row: str(row["Active"])),
        "Size": ("SIZE", lambda row: human_size(row["size"])),
        "Reclaimable": ("RECLAIMABLE", _reclaimable),
    }
    return Listing("*formatter.diskUsageContext", fields, ["Type", "TotalCount", "Active", "Size", "Reclaimable"])


def _reclaimable(row: Json) -> str:
    text = human_size(row["free"])
    if row["size"] > 0 and not row.get("whole"):
        text += f" ({row['free'] * 100 // row['size']}%)"
    return text


def _verbose(usage: Json) -> str:
    images = [row for image in usage["Images"] or [] for row in image_rows(image, digests=False)]
    image_fields = image_listing(truncate=True, digests=False)
    image_fields.columns = ["Repository", "Tag", "ID", "CreatedSince", "Size", "SharedSize", "UniqueSize", "Containers"]
    container_fields = container_listing(truncate=True, size=True)
    container_fields.columns = ["ID", "Image", "Command", "LocalVolumes", "Size", "RunningFor", "Status", "Names"]
    containers = [{**container, "SizeRootFs": 0} for container in usage["Containers"] or []]
    volume_fields = volume_listing()
    volume_fields.columns = ["Name", "Links", "Size"]
    caches = usage["BuildCache"] or []
    size = human_size(sum(cache["Size"] for cache in caches if not cache["Shared"]))
    return (
        "Images space usage:\n\n" + image_fields.render(images, "")
        + "\nContainers space usage:\n\n" + container_fields.render(containers, "")
        + "\nLocal Volumes space usage:\n\n" + volume_fields.render(usage["Volumes"] or [], "")
        + f"\nBuild cache usage: {size}\n\n" + _cache_listing().render(caches, "")
    )  # fmt: skip


def _cache_listing() -> Listing:
    fields: Fields = {
        "ID": ("CACHE ID", lambda c: c["ID"][:12] + ("*" if c["InUse"] else "")),
        "CacheType": ("CACHE TYPE", lambda c: c["Type"]),
        "Size": ("SIZE", lambda c: human_size(c["Size"], 3)),
        "CreatedSince": ("CREATED", lambda c: ago(parse_time(c["CreatedAt"])[0])),
        "LastUsedSince": ("LAST USED", lambda c: ago(parse_time(c["LastUsedAt"])[0]) if c["LastUsedAt"] else ""),
        "UsageCount": ("USAGE", lambda c: str(c["UsageCount"])),
        "Shared": ("SHARED", lambda c: "true" if c["Shared"] else "false"),
    }
    return Listing("*formatter.buildCacheContext", fields, list(fields))
