"""`prune` of every noun: confirmation, and a report of what was removed."""

from __future__ import annotations

from havre.cli.format.table import Listing
from havre.cli.parser import StatusError
from havre.cli.platforms import require_newer
from havre.cli.ps import render_filters
from havre.golang.texts import human_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.format.table import Fields
    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.golang.flags import Options

_SURE = "\nAre you sure you want to continue?"


def _agreed(session: Session, options: Options, warning: str) -> bool:
    return bool(options.force) or session.confirm(warning + _SURE)


def _query(session: Session, filters: list[tuple[str, str]]) -> Query:
    """The filters, those of the config file included."""
    own = [tuple(text.partition("=")[::2]) for text in session.config.values.get("pruneFilters") or []]
    both = [*own, *filters]
    return {"filters": render_filters(both)} if both else {}


def _total(space: int) -> int:
    print("Total reclaimed space:", human_size(space))
    return 0


def _lines(title: str, names: list[str] | None) -> None:
    if names:
        print(title)
        print("\n".join(names))
        print()


def containers(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove stopped containers."""
    if options.dry_run or options.plan:
        return _by_plan(session, options, "container", _query(session, options.filter))
    if not _agreed(session, options, "WARNING! This will remove all stopped containers."):
        return _cancelled("container")
    answer = session.client.post("/containers/prune", _query(session, options.filter))
    _lines("Deleted Containers:", answer.get("ContainersDeleted"))
    return _total(answer["SpaceReclaimed"])


def _cancelled(noun: str) -> int:
    raise StatusError(1, f"{noun} prune has been cancelled")


def images(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove dangling images, or all unused ones."""
    if options.dry_run or options.plan:
        return _by_plan(session, options, "image", _query(session, options.filter) | _flags(options, "all"))
    warning = "WARNING! This will remove all dangling images."
    if options.all:
        warning = "WARNING! This will remove all images without at least one container associated to them."
    if not _agreed(session, options, warning):
        return _cancelled("image")
    filters = [*options.filter, ("dangling", "false" if options.all else "true")]
    answer = session.client.post("/images/prune", _query(session, filters))
    _lines("Deleted Images:", _image_lines(answer))
    return _total(answer["SpaceReclaimed"])


def _image_lines(answer: dict[str, Any]) -> list[str]:
    return [
        f"untagged: {item['Untagged']}" if item.get("Untagged") else f"deleted: {item['Deleted']}"
        for item in answer.get("ImagesDeleted") or []
    ]


def volumes(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove anonymous volumes that no container uses, or all unused ones."""
    filters = list(options.filter)
    if options.all:
        if any(name == "all" for name, _ in filters):
            raise StatusError(1, "conflicting options: cannot specify both --all and --filter all=1")
        filters.append(("all", "true"))
    if options.dry_run or options.plan:
        return _by_plan(session, options, "volume", _query(session, filters))
    kind = "all" if options.all else "anonymous"
    warning = f"WARNING! This will remove {kind} local volumes not used by at least one container."
    if not _agreed(session, options, warning):
        return _cancelled("volume")
    answer = session.client.post("/volumes/prune", _query(session, filters))
    _lines("Deleted Volumes:", answer.get("VolumesDeleted"))
    return _total(answer["SpaceReclaimed"])


def networks(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove networks that no container uses."""
    if options.dry_run or options.plan:
        return _by_plan(session, options, "network", _query(session, options.filter))
    warning = "WARNING! This will remove all custom networks not used by at least one container."
    if not _agreed(session, options, warning):
        return _cancelled("network")
    answer = session.client.post("/networks/prune", _query(session, options.filter))
    _lines("Deleted Networks:", answer.get("NetworksDeleted"))
    return 0


def system(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove unused data of every noun."""
    if options.dry_run or options.plan:
        return _by_plan(session, options, "", _query(session, options.filter) | _flags(options, "all", "volumes"))
    if not _agreed(session, options, _system_warning(options)):
        return _cancelled("system")
    client = session.client
    query = _query(session, options.filter)
    space = 0
    answer = client.post("/containers/prune", query)
    _lines("Deleted Containers:", answer.get("ContainersDeleted"))
    space += answer["SpaceReclaimed"]
    if options.volumes:
        answer = client.post("/volumes/prune", query)
        _lines("Deleted Volumes:", answer.get("VolumesDeleted"))
        space += answer["SpaceReclaimed"]
    _lines("Deleted Networks:", client.post("/networks/prune", query).get("NetworksDeleted"))
    filters = [*options.filter, ("dangling", "false" if options.all else "true")]
    answer = client.post("/images/prune", _query(session, filters))
    _lines("Deleted Images:", _image_lines(answer))
    space += answer["SpaceReclaimed"]
    return _total(space + _build_cache(session, options, query))


def _flags(options: Options, *names: str) -> Query:
    return {name: "1" for name in names if getattr(options, name)}


def _by_plan(session: Session, options: Options, kind: str, query: Query) -> int:
    """Show a plan for one noun, or for `system prune`; or execute it."""
    query |= {"kinds": kind} if kind else {}
    if options.dry_run:
        plan = session.client.get("/system/prune", query)
        print(_listing().render(plan["Items"], ""), end="")
        print(f"\nPlan: {plan['ID']}\nReclaimable space: {human_size(plan['Reclaimable'])}")
        return 0
    if not _agreed(session, options, f"WARNING! This will remove everything in plan {options.plan}."):
        return _cancelled(kind or "system")
    plan = session.client.post("/system/prune", {**query, "plan": options.plan})
    _lines("Deleted:", [f"{item['Kind']} {item['Name'] or short_id(item['ID'])}" for item in plan["Items"]])
    return _total(plan["Reclaimable"])


def _listing() -> Listing:
    fields: Fields = {
        "Kind": ("KIND", lambda item: item["Kind"]),
        "ID": ("ID", lambda item: short_id(item["ID"])),
        "Name": ("NAME", lambda item: item["Name"]),
        "Size": ("SIZE", lambda item: human_size(item["Size"])),
        "Reason": ("WHY", lambda item: item["Reason"]),
    }
    return Listing("*prune.item", fields, list(fields))


def builder(session: Session, options: Options, arguments: list[str]) -> int:
    """Remove build cache."""
    check_builder(options.builder)
    scope = "all build cache" if options.all else "all dangling build cache"
    query = _query(session, options.filter)
    if reserved := options.reserved_space or options.keep_storage:
        query["keep-storage"] = str(reserved)  # the name that daemons of any version know
    for name in ("max-used-space", "min-free-space"):
        if value := getattr(options, name.replace("-", "_")):
            require_newer(session.client, f"--{name}", "1.48")
            query[name] = str(value)
    if options.dry_run or options.plan:
        return _by_plan(session, options, "cache", query | _flags(options, "all"))
    if not _agreed(session, options, f"WARNING! This will remove {scope}."):
        return _cancelled("build cache")
    return _total(_build_cache(session, options, query))


def check_builder(name: str) -> None:
    """Reject an unknown builder, in buildx's words."""
    if name not in ("", "default"):
        raise StatusError(1, f'no builder "{name}" found')


def _build_cache(session: Session, options: Options, query: Query) -> int:
    answer = session.client.post("/build/prune", {**query, **({"all": "1"} if options.all else {})})
    _lines("Deleted build cache objects:", answer.get("CachesDeleted"))
    return int(answer["SpaceReclaimed"])


def _system_warning(options: Options) -> str:
    items = ["all stopped containers", "all networks not used by at least one container"]
    if options.volumes:
        items.append("all anonymous volumes not used by at least one container")
    items.append("all images without at least one container associated to them" if options.all
                 else "all dangling images")  # fmt: skip
    items.append("all build cache" if options.all else "unused build cache")
    text = "WARNING! This will remove:\n" + "\n".join(f"  - {item}" for item in items) + "\n"
    if options.filter:
        kept = "\n".join(f"  - {name}={value}" for name, value in sorted(options.filter))
        text += f"\n  Items to be pruned will be filtered with:\n{kept}\n"
    return text
