"""Images: ls, history, tag, rm, search."""

from __future__ import annotations

import sys
import time

from havre.cli.format.table import Listing
from havre.cli.parser import StatusError
from havre.cli.platforms import platform_parameters
from havre.cli.ps import render_filters
from havre.errors import HavreError, InvalidInput, NotFound
from havre.golang.texts import ago, ellipsis, human_size, short_id
from havre.golang.times import go_time
from havre.oci.names import familiar, split_tag

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.golang.flags import Options

_NONE = "<none>"


def ls(session: Session, options: Options, arguments: list[str]) -> int:
    """List images."""
    filters = list(options.filter)
    if arguments:
        filters.append(("reference", arguments[0]))
    query: Query = {"all": "1"} if options.all else {}
    if filters:
        query["filters"] = render_filters(filters)
    if options.tree:
        if options.quiet or options.format or options.digests:
            raise StatusError(1, "--tree cannot be combined with --quiet, --digests or --format")
        from havre.cli.imagetree import render_tree

        images = session.client.get("/images/json", {**query, "manifests": "1"})
        inspect = lambda id: session.client.get(f"/images/{id}/json")  # noqa: E731
        sys.stdout.write(render_tree(images, inspect, truncate=not options.no_trunc))
        return 0
    images = session.client.get("/images/json", query)
    form = options.format or ("" if options.quiet else session.config.text("imagesFormat"))
    digests = options.digests or ".Digest" in form
    rows = [row for image in images for row in image_rows(image, digests=digests)]
    if options.quiet and form in ("", "table"):
        ids = [row["ID"] if options.no_trunc else short_id(row["ID"]) for row in rows]
        sys.stdout.write("".join(identifier + "\n" for identifier in ids))
    else:
        listing = image_listing(truncate=not options.no_trunc, digests=options.digests)
        sys.stdout.write(listing.render(rows, form))
    return 0


def image_rows(image: dict[str, Any], *, digests: bool) -> list[dict[str, Any]]:
    """One row for each name of an image: by tag, and (with digests, or without tags) by digest."""
    tags: dict[str, list[str]] = {}
    found: dict[str, list[str]] = {}
    for name in image.get("RepoTags") or []:
        repository, _, tag = name.rpartition(":")
        if repository != _NONE:
            tags.setdefault(familiar_repository(repository), []).append(tag)
    for name in image.get("RepoDigests") or []:
        repository, _, digest = name.partition("@")
        if repository != _NONE:
            found.setdefault(familiar_repository(repository), []).append(digest)
    base = {"ID": image["Id"], "image": image}
    rows = []
    for repository in dict.fromkeys([*tags, *found]):
        own_tags, own_digests = tags.get(repository, []), found.get(repository, [])
        if digests and own_digests:
            pairs = [(tag, digest) for digest in own_digests for tag in own_tags or [_NONE]]
        elif own_tags:
            pairs = [(tag, _NONE) for tag in own_tags]
        else:
            pairs = [(_NONE, "")]
        rows += [{**base, "Repository": repository, "Tag": tag, "Digest": digest} for tag, digest in pairs]
    return rows or [{**base, "Repository": _NONE, "Tag": _NONE, "Digest": _NONE}]


def familiar_repository(name: str) -> str:
    """A repository's name without the default registry."""
    return familiar(name + ":x").removesuffix(":x")


def image_listing(*, truncate: bool, digests: bool) -> Listing:
    """The listing of rows from `image_rows`."""
    columns = ["Repository", "Tag", *(["Digest"] if digests else []), "ID", "CreatedSince", "Size"]
    fields: Fields = {
        "Repository": ("REPOSITORY", lambda r: r["Repository"]),
        "Tag": ("TAG", lambda r: r["Tag"]),
        "Digest": ("DIGEST", lambda r: r["Digest"]),
        "ID": ("IMAGE ID", lambda r: short_id(r["ID"]) if truncate else r["ID"]),
        "CreatedSince": ("CREATED", lambda r: created_since(r["image"]["Created"])),
        "CreatedAt": ("CREATED AT", lambda r: go_time(r["image"]["Created"])),
        "Size": ("SIZE", lambda r: human_size(r["image"]["Size"], 3)),
        "Containers": ("CONTAINERS", lambda r: _count(r["image"]["Containers"])),
        "VirtualSize": ("SIZE", lambda r: human_size(r["image"]["Size"])),
        "SharedSize": ("SHARED SIZE", lambda r: _shared(r["image"]["SharedSize"])),
        "UniqueSize": ("UNIQUE SIZE", lambda r: _unique(r["image"])),
    }
    raw = {
        "repository": "Repository",
        "tag": "Tag",
        "image_id": "ID",
        "created_at": "CreatedAt",
        "virtual_size": "Size",
    }
    return Listing("*formatter.imageContext", fields, columns, raw=raw)


def created_since(seconds: int) -> str:
    """The age of an image, N/A if unknown."""
    return ago(seconds) if seconds > 0 else "N/A"


def _count(number: int) -> str:
    return "N/A" if number == -1 else str(number)


def _shared(size: int) -> str:
    return "N/A" if size == -1 else human_size(size)


def _unique(image: dict[str, Any]) -> str:
    if image["Size"] == -1 or image["SharedSize"] == -1:
        return "N/A"
    return human_size(image["Size"] - image["SharedSize"])


def history(session: Session, options: Options, arguments: list[str]) -> int:
    """Show the layers of an image and the commands that created them."""
    platforms = platform_parameters(session.client, [options.platform] if options.platform else [], "1.48")
    rows = session.client.get(f"/images/{arguments[0]}/history", {"platform": platforms})
    if options.quiet and not options.format:
        for row in rows:
            print(row["Id"] if options.no_trunc else short_id(row["Id"]))
        return 0
    sys.stdout.write(_history_listing(human=options.human, truncate=not options.no_trunc).render(rows, options.format))
    return 0


def _history_listing(*, human: bool, truncate: bool) -> Listing:
    def created_by(row: dict[str, Any]) -> str:
        text = row["CreatedBy"].replace("\t", " ")
        return ellipsis(text, 45) if truncate else text

    def created(row: dict[str, Any]) -> str:
        if row["Created"] <= 0:
            return "N/A"
        return ago(row["Created"]) if human else _local_time(row["Created"])

    fields: Fields = {
        "ID": ("IMAGE", lambda r: short_id(r["Id"]) if truncate else r["Id"]),
        "CreatedSince": ("CREATED", created),
        "CreatedAt": ("CREATED AT", lambda r: _local_time(r["Created"]) if r["Created"] else ""),
        "CreatedBy": ("CREATED BY", created_by),
        "Size": ("SIZE", lambda r: human_size(r["Size"], 3) if human else str(r["Size"])),
        "Comment": ("COMMENT", lambda r: r["Comment"]),
    }
    columns = ["ID", "CreatedSince" if human else "CreatedAt", "CreatedBy", "Size", "Comment"]
    return Listing("*formatter.historyContext", fields, columns)


def _local_time(seconds: int) -> str:
    broken = time.localtime(seconds)
    zone = time.strftime("%z", broken)
    return time.strftime("%Y-%m-%dT%H:%M:%S", broken) + ("Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}")


def tag(session: Session, options: Options, arguments: list[str]) -> int:
    """Tag an image."""
    source, target = arguments
    from havre.cli.pull import check_name

    try:
        check_name(target)
    except InvalidInput as error:
        text = f'Error parsing reference: "{target}" is not a valid repository/tag: {error}'
        raise InvalidInput(text) from error
    repository, version = split_tag(target)
    session.client.post(f"/images/{source}/tag", {"repo": repository, "tag": version or "latest"})
    return 0


def rm(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove images, or names of them."""
    query: Query = {"force": "1"} if options.force else {}
    if options.no_prune:
        query["noprune"] = "1"
    if options.platform:
        query["platforms"] = platform_parameters(session.client, options.platform, "1.50")
    failures = []
    missing_only = True
    for name in arguments:
        try:
            for item in session.client.delete(f"/images/{name}", query):
                print(f"Deleted: {item['Deleted']}" if "Deleted" in item else f"Untagged: {item['Untagged']}")
        except NotFound as error:
            failures.append(str(error))
        except HavreError as error:
            missing_only = False
            failures.append(str(error))
    code = session.tell(failures)
    return 0 if options.force and missing_only else code


def search(session: Session, options: Options, arguments: list[str]) -> int:
    """Search Docker Hub."""
    query: Query = {"term": arguments[0]}
    if "limit" in options.given:
        query["limit"] = str(options.limit)
    if options.filter:
        query["filters"] = render_filters(options.filter)
    rows = sorted(session.client.get("/images/search", query), key=lambda row: -row["star_count"])

    def description(row: dict[str, Any]) -> str:
        text = row["description"].replace("\n", " ").replace("\r", " ")
        return text if options.no_trunc else ellipsis(text, 45)

    fields: Fields = {
        "Name": ("NAME", lambda r: r["name"]),
        "Description": ("DESCRIPTION", description),
        "StarCount": ("STARS", lambda r: str(r["star_count"])),
        "IsOfficial": ("OFFICIAL", lambda r: "[OK]" if r["is_official"] else ""),
        "IsAutomated": ("AUTOMATED", lambda r: "[OK]" if r.get("is_automated") else ""),
    }
    columns = ["Name", "Description", "StarCount", "IsOfficial"]
    sys.stdout.write(Listing("*formatter.searchContext", fields, columns).render(rows, options.format))
    return 0
