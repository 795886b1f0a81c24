"""Verbs of `buildx`: the daemon is the one builder, and its name is `default`."""

from __future__ import annotations

import sys

from havre import __version__
from havre.cli.format.table import Listing
from havre.cli.parser import StatusError
from havre.cli.prune import check_builder
from havre.golang.texts import ago, human_size
from havre.golang.times import parse_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.golang.flags import Options

    Json = dict[str, Any]

_FILTERS = {"id": "ID", "type": "Type", "shared": "Shared", "inuse": "InUse"}


def du(session: Session, options: Options, arguments: list[str]) -> int:
    """Show the records of the build cache, and what a prune would free."""
    check_builder(options.builder)
    if options.verbose and options.format:
        raise StatusError(1, "--format and --verbose cannot be used together")
    caches = session.client.get("/system/df", {"type": "build-cache"})["BuildCache"] or []
    caches = [cache for cache in caches if all(_matches(cache, *each) for each in options.filter)]
    if options.verbose:
        sys.stdout.write("".join(_record(cache) for cache in caches))
    else:
        sys.stdout.write(_caches().render(caches, options.format))
    if not options.format:
        own = [cache for cache in caches if not cache["Shared"]]
        free = sum(cache["Size"] for cache in own if not cache["InUse"])
        print(f"Reclaimable:\t{human_size(free)}\nTotal:\t\t{human_size(sum(cache['Size'] for cache in own))}")
    return 0


def _matches(cache: Json, name: str, value: str) -> bool:
    if name not in _FILTERS:
        raise StatusError(1, f"invalid filter {name!r}: expected one of {', '.join(_FILTERS)}")
    found = cache[_FILTERS[name]]
    return found == (value == "true") if isinstance(found, bool) else found == value


def _caches() -> Listing:
    fields: Fields = {
        "ID": ("ID", lambda c: c["ID"]),
        "Reclaimable": ("RECLAIMABLE", lambda c: "false" if c["InUse"] else "true"),
        "Size": ("SIZE", lambda c: human_size(c["Size"]) + ("*" if c["Shared"] else "")),
        "LastAccessed": ("LAST ACCESSED", lambda c: _when(c["LastUsedAt"])),
    }
    return Listing("*buildx.record", fields, list(fields))


def _record(cache: Json) -> str:
    values = {
        "ID": cache["ID"],
        "Created at": cache["CreatedAt"],
        "Mutable": "false",
        "Reclaimable": "false" if cache["InUse"] else "true",
        "Shared": "true" if cache["Shared"] else "false",
        "Size": human_size(cache["Size"]),
        "Description": cache["Description"],
        "Usage count": cache["UsageCount"],
        "Last used": _when(cache["LastUsedAt"]),
        "Type": cache["Type"],
    }
    return "".join(f"{name + ':':<16}{value}\n" for name, value in values.items()) + "\n"


def _when(text: str | None) -> str:
    return ago(parse_time(text)[0]) if text else ""


def ls(session: Session, options: Options, arguments: list[str]) -> int:
    """List the one builder."""
    sys.stdout.write(_builders().render([session.client.get("/info")], options.format))
    return 0


def _builders() -> Listing:
    fields: Fields = {
        "Name": ("NAME/NODE", lambda info: "default*"),
        "DriverEndpoint": ("DRIVER/ENDPOINT", lambda info: "docker"),
        "Status": ("STATUS", lambda info: "running"),
        "Buildkit": ("BUILDKIT", lambda info: f"havre {info['ServerVersion']}"),
        "Platforms": ("PLATFORMS", _platform),
    }
    return Listing("*buildx.builder", fields, list(fields))


def _platform(info: Json) -> str:
    machines = {"x86_64": "amd64", "aarch64": "arm64"}
    return f"{info['OSType']}/{machines.get(info['Architecture'], info['Architecture'])}"


def inspect(session: Session, options: Options, arguments: list[str]) -> int:
    """Show the one builder."""
    check_builder(arguments[0] if arguments else options.builder)
    info = session.client.get("/info")
    print("Name:   default\nDriver: docker\n\nNodes:")
    print(f"Name:             default\nEndpoint:         {session.context}\nStatus:           running")
    print(f"BuildKit version: havre {info['ServerVersion']}\nPlatforms:        {_platform(info)}")
    return 0


def use(session: Session, options: Options, arguments: list[str]) -> int:
    """Accept the one builder, refuse others."""
    check_builder(arguments[0])
    return 0


def version(session: Session, options: Options, arguments: list[str]) -> int:
    """Show the version."""
    print(f"havre buildx {__version__}")
    return 0
