"""Completion candidates for arguments and flags' values.

Names of containers, images, networks, volumes and contexts come from the current daemon, which is never started for
that; services come from the Compose files. Containers are limited to states that the command accepts.
"""

from __future__ import annotations

import json

from havre.errors import HavreError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from havre.cli.parser import Command
    from havre.cli.session import Session
    from havre.golang.flags import Flag

# The nouns of the placeholders in usage lines.
_NOUNS = {"CONTAINER": "container", "IMAGE": "image", "SOURCE_IMAGE": "image", "NETWORK": "network", "VOLUME": "volume",
          "CONTEXT": "context", "SERVICE": "service", "SERVICES": "service"}  # fmt: skip
_STATES = {
    **dict.fromkeys(("attach", "exec", "pause", "top"), ("running",)),
    **dict.fromkeys(("kill", "stop"), ("running", "paused", "restarting")),
    "start": ("created", "exited"),
    "unpause": ("paused",),
}
_WORDS = {
    "attach": "stdin stdout stderr",
    "cgroupns": "host private",
    "ipc": "host none private shareable",
    "log-driver": "fluentd gelf json-file journald local none syslog",
    "network": "bridge host none",
    "pid": "host",
    "pull": "always missing never",
    "restart": "always no on-failure unless-stopped",
    "userns": "auto host",
    "uts": "host",
}
_SHARED = ("ipc", "network", "pid")  # also container:NAME
_NAMED = {"link": "container", "network": "network", "volumes-from": "container"}

# Keys of --filter by group and verb, and their values: words, or names of a noun.
_FILTERS = {
    ("container", "ls"): "ancestor before exited expose health id label name network publish since status volume",
    ("container", "prune"): "label label! until",
    ("image", "ls"): "before dangling label label! reference since until",
    ("image", "prune"): "dangling label label! until",
    ("network", "ls"): "dangling driver id label name scope type",
    ("network", "prune"): "label label! until",
    ("volume", "ls"): "dangling driver label name",
    ("volume", "prune"): "all label label!",
    ("system", "events"): "container daemon event image label network type volume",
    ("system", "prune"): "label label! until",
    ("builder", "prune"): "description id inuse parent private shared type until",
    ("top", "search"): "is-automated is-official stars",
    ("compose", "ps"): "status",
}
_FILTER_WORDS = {
    "dangling": "false true",
    "driver": "bridge host ipvlan local macvlan none overlay",
    "health": "healthy none starting unhealthy",
    "scope": "global local swarm",
    "status": "created dead exited paused removing restarting running",
}
_TYPES = {"network": "builtin custom", "system": "builder container daemon image network volume"}
_FILTER_NAMES = {"ancestor": "image", "container": "container", "image": "image", "network": "network",
                 "reference": "image", "volume": "volume"}  # fmt: skip


def values_of(session: Session, group: str, command: Command, flag: Flag, word: str) -> list[str]:
    """The values of a command's `flag` that match the prefix `word`."""
    if flag.long in ("signal", "stop-signal"):
        import signal

        return sorted(each.name for each in signal.Signals)
    if flag.long == "filter":
        return _filters(session, group, command, word)
    if flag.long == "volume" and flag.kind == "list":
        return [] if word.startswith(("/", ".", "~")) else [f"{name}:" for name in _offered(session, "volume")]
    values = _WORDS.get(flag.long, "").split()
    if flag.long in _NAMED:
        values += _offered(session, _NAMED[flag.long])
    if flag.long in _SHARED:
        values += [f"container:{name}" for name in _offered(session, "container", _STATES["exec"])]
    return list(dict.fromkeys(values))


def _filters(session: Session, group: str, command: Command, word: str) -> list[str]:
    keys = _FILTERS.get((group, command.names[0]), "").split()
    key, equals, _ = word.partition("=")
    if not equals:
        return [f"{key}=" for key in keys]
    if key not in keys:
        return []
    values = (_TYPES.get(group, "") if key == "type" else _FILTER_WORDS.get(key, "")).split()
    noun = group if key in ("name", "id", "before", "since") else _FILTER_NAMES.get(key, "")
    return [f"{key}={value}" for value in values or _offered(session, noun)]


def arguments_of(session: Session, command: Command, index: int, word: str) -> list[str]:
    """The names for the argument at `index` that match the prefix `word`."""
    places = [part.strip("[].|").partition("=")[0].partition("[")[0] for part in command.usage.split("\n")[0].split()]
    places = [place for place in places if place.isupper() and place != "OPTIONS"]
    if command.names[0] == "cp":
        return [] if "/" in word else [f"{name}:" for name in _offered(session, _copied(command))]
    noun = _NOUNS.get(places[min(index, len(places) - 1)].partition(":")[0]) if places else None
    return _offered(session, noun, _STATES.get(command.names[0], ())) if noun else []


def _copied(command: Command) -> str:
    return _NOUNS.get(command.usage.split()[1].partition(":")[0], "")


def _offered(session: Session, noun: str, states: Sequence[str] = ()) -> list[str]:
    try:
        return _known(session, noun, states) if noun else []
    except HavreError:  # without daemon or file there are no candidates
        return []


def _known(session: Session, noun: str, states: Sequence[str]) -> list[str]:
    if noun == "context":
        from havre.cli.contexts import all_contexts

        return [meta["Name"] for meta in all_contexts(session)]
    if noun == "service":
        return _services(session)
    client = session.new_client(autostart=False)
    if noun == "container":
        filters = json.dumps({"status": states} if states else {})
        found = client.get("/containers/json", {"all": "1", "filters": filters})
        return [container["Names"][0].removeprefix("/") for container in found]
    if noun == "image":
        return [name for image in client.get("/images/json") for name in image.get("RepoTags") or []]
    if noun == "network":
        return [network["Name"] for network in client.get("/networks")]
    return [volume["Name"] for volume in client.get("/volumes")["Volumes"] or []]


def _services(session: Session) -> list[str]:
    """The services of the current command line's project."""
    from havre.cli.compose.scene import Scene
    from havre.golang.flags import Options

    scene = Scene(session, Options(()))
    project = scene.project(select=False)
    return sorted(project.services)
