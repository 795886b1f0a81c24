"""`havre ps`: lists containers. The start-up time of this path is measured; see `main`."""

from __future__ import annotations

import sys

from havre.cli.format.table import Listing, label_text
from havre.golang.jsontext import encode
from havre.golang.texts import ago, ellipsis, go_quote, human_size, short_id
from havre.golang.times import go_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.golang.flags import Options


_RAW = {"container_id": "ID", "image": "Image", "command": "Command", "created_at": "CreatedAt", "state": "State",
        "status": "Status", "names": "Names", "labels": "Labels", "ports": "Ports"}  # fmt: skip


def render_filters(filters: list[tuple[str, str]]) -> str:
    """`--filter` values as the API takes them: name to set of values."""
    by_name: dict[str, dict[str, bool]] = {}
    for name, value in filters:
        by_name.setdefault(name, {})[value] = True
    return encode(by_name, sort_keys=True)


def ps(session: Session, options: Options, arguments: list[str]) -> int:
    """List containers."""
    form = options.format or ("" if options.quiet else session.config.text("psFormat"))
    query: dict[str, str | list[str]] = {}
    if options.all:
        query["all"] = "1"
    limit = 1 if options.latest and not options.given & {"last"} else options.last
    if limit != -1:
        query["limit"] = str(limit)
    if options.size or _shows_size(form):
        query["size"] = "1"
    if options.filter:
        query["filters"] = render_filters(options.filter)
    rows = session.client.get("/containers/json", query)
    if options.quiet and form in ("", "table"):
        sys.stdout.write("".join((c["Id"] if options.no_trunc else short_id(c["Id"])) + "\n" for c in rows))
    else:
        sys.stdout.write(container_listing(truncate=not options.no_trunc, size=options.size).render(rows, form))
    return 0


def _shows_size(form: str) -> bool:
    """Report whether a template needs sizes, which are expensive: it contains them, or prints the whole row."""
    return ".Size" in form or any(whole in form for whole in ("json .}", "json . "))


def container_listing(*, truncate: bool, size: bool) -> Listing:
    """The listing of containers as from `GET /containers/json`."""
    columns = ["ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names"]
    fields: Fields = {
        "ID": ("CONTAINER ID", lambda c: short_id(c["Id"]) if truncate else c["Id"]),
        "Names": ("NAMES", lambda c: _names(c, truncate)),
        "Image": ("IMAGE", lambda c: _image(c, truncate)),
        "Command": ("COMMAND", lambda c: go_quote(ellipsis(c["Command"], 20) if truncate else c["Command"])),
        "CreatedAt": ("CREATED AT", lambda c: go_time(c["Created"])),
        "RunningFor": ("CREATED", lambda c: ago(c["Created"])),
        "Ports": ("PORTS", lambda c: ports_text(c.get("Ports") or [])),
        "State": ("STATE", lambda c: c["State"]),
        "Status": ("STATUS", lambda c: c["Status"]),
        "Size": ("SIZE", _size),
        "Labels": ("LABELS", lambda c: label_text(c.get("Labels"))),
        "Label": ("LABELS", _label),
        "Mounts": ("MOUNTS", lambda c: _mounts(c, truncate)),
        "LocalVolumes": ("LOCAL VOLUMES", _local_volumes),
        "Networks": ("NETWORKS", _networks),
    }
    if size:
        columns.append("Size")
    return Listing("*formatter.ContainerContext", fields, columns, hidden=("Label",), raw=_RAW)


def _label(container: dict[str, Any], name: str) -> str:
    value: str = (container.get("Labels") or {}).get(name, "")
    return value


def _names(container: dict[str, Any], truncate: bool) -> str:
    names = [name.removeprefix("/") for name in container.get("Names") or []]
    return ",".join(name for name in names if not truncate or "/" not in name)


def _image(container: dict[str, Any], truncate: bool) -> str:
    name: str = container["Image"]
    if not name:
        return "<no image>"
    if truncate:
        digits = short_id(container.get("ImageID", ""))
        if digits == short_id(name):
            return digits
        if "@" in name:
            return name.partition("@")[0]
    return name


def _size(container: dict[str, Any]) -> str:
    own = human_size(container.get("SizeRw", 0), 3)
    whole = container.get("SizeRootFs", 0)
    return f"{own} (virtual {human_size(whole, 3)})" if whole > 0 else own


def _mounts(container: dict[str, Any], truncate: bool) -> str:
    names = [mount.get("Name") or mount.get("Source", "") for mount in container.get("Mounts") or []]
    return ",".join(ellipsis(name, 15) if truncate else name for name in names)


def _local_volumes(container: dict[str, Any]) -> str:
    return str(sum(mount.get("Driver") == "local" for mount in container.get("Mounts") or []))


def _networks(container: dict[str, Any]) -> str:
    return ",".join((container.get("NetworkSettings") or {}).get("Networks") or {})


def ports_text(ports: list[dict[str, Any]]) -> str:
    """Published and exposed ports, adjacent ones merged to ranges: `0.0.0.0:80-81->80-81/tcp, 443/tcp`."""
    moved = []
    done = []
    open_ranges: dict[tuple[str, str], tuple[int, int]] = {}
    for port in sorted(ports, key=_port_order):
        inner, outer, kind, ip = port["PrivatePort"], port.get("PublicPort", 0), port["Type"], port.get("IP", "")
        if ip and inner != outer:
            moved.append(f"{_join_host(ip, str(outer))}->{inner}/{kind}")
            continue
        first, last = open_ranges.get((ip, kind), (inner, inner - 1))
        if inner != last + 1:
            done.append(_range_text(ip, kind, first, last))
            first = inner
        open_ranges[ip, kind] = first, inner
    done += [_range_text(*key, *span) for key, span in open_ranges.items()]
    return ", ".join(done + moved)


def _port_order(port: dict[str, Any]) -> tuple[int, str, int, str]:
    return port["PrivatePort"], port.get("IP", ""), port.get("PublicPort", 0), port["Type"]


def _join_host(ip: str, port: str) -> str:
    return f"[{ip}]:{port}" if ":" in ip else f"{ip}:{port}"


def _range_text(ip: str, kind: str, first: int, last: int) -> str:
    span = str(first) if first == last else f"{first}-{last}"
    return f"{_join_host(ip, span)}->{span}/{kind}" if ip else f"{span}/{kind}"
