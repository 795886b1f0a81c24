"""The read-only verbs: ps, images, port, top, ls, volumes, events, stats, version, wait."""

from __future__ import annotations

import sys
import time

from havre.cli.attach import read_exit_code
from havre.cli.compose.stage import Stage
from havre.cli.format.table import Listing, align
from havre.cli.logs import timestamp
from havre.cli.parser import StatusError
from havre.cli.ps import ports_text, render_filters
from havre.cli.volumes import volume_listing
from havre.compose import COMPOSE_VERSION
from havre.compose import labels as label
from havre.golang.jsontext import encode
from havre.golang.texts import ago, ellipsis, go_quote, human_size, short_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.session import Session
    from havre.client.api import Query
    from havre.compose.state import Container
    from havre.golang.flags import Options

_STATES = ("paused", "restarting", "removing", "running", "dead", "created", "exited")


def ps(session: Session, options: Options, arguments: list[str]) -> int:
    """List containers."""
    stage = Stage(session, options)
    wanted = list(options.status)
    if options.filter:
        name, _, value = options.filter.partition("=")
        if name != "status":
            raise StatusError(1, f"unknown filter {name}; expected status=STATE")
        wanted.append(value)
    for state in wanted:
        if state not in _STATES:
            raise StatusError(1, f'invalid status "{state}"; expected one of {", ".join(_STATES)}')
    found = stage.containers(arguments, all=options.all or bool(wanted), one_off=options.all)
    found = [container for container in found if not wanted or container.state in wanted]
    found.sort(key=lambda container: container.name)
    if options.quiet:
        sys.stdout.write("".join(container.id + "\n" for container in found))
    elif options.services:
        sys.stdout.write("".join(name + "\n" for name in sorted({container.service for container in found})))
    else:
        listing = _ps_listing(truncate=not options.no_trunc)
        sys.stdout.write(listing.render(found, options.format))
    return 0


def _ps_listing(*, truncate: bool) -> Listing:
    def command(container: Container) -> str:
        text = container.row["Command"]
        return go_quote(ellipsis(text, 20) if truncate else text)

    def publishers(container: Container) -> list[dict[str, Any]]:
        ports = container.row.get("Ports") or []
        return [{"URL": p.get("IP", ""), "TargetPort": p["PrivatePort"], "PublishedPort": p.get("PublicPort", 0),
                 "Protocol": p["Type"]} for p in ports]  # fmt: skip

    fields: Any = {
        "Name": ("NAME", lambda c: c.name),
        "Image": ("IMAGE", lambda c: c.row["Image"]),
        "Command": ("COMMAND", command),
        "Service": ("SERVICE", lambda c: c.service),
        "RunningFor": ("CREATED", lambda c: ago(c.row["Created"])),
        "Status": ("STATUS", lambda c: c.row["Status"]),
        "Ports": ("PORTS", lambda c: ports_text(c.row.get("Ports") or [])),
        "ID": ("CONTAINER ID", lambda c: short_id(c.id) if truncate else c.id),
        "State": ("STATE", lambda c: c.state),
        "Health": ("HEALTH", _health),
        "ExitCode": ("EXIT CODE", _exit_code),
        "Project": ("PROJECT", lambda c: c.labels.get(label.PROJECT, "")),
        "Labels": ("LABELS", lambda c: ",".join(f"{key}={value}" for key, value in sorted(c.labels.items()))),
        "Publishers": ("PUBLISHERS", publishers),
        "Names": ("NAMES", lambda c: c.name),
    }
    columns = ["Name", "Image", "Command", "Service", "RunningFor", "Status", "Ports"]
    return Listing("*formatter.ContainerContext", fields, columns)


def _health(container: Container) -> str:
    status = container.row["Status"]
    words = {"(healthy)": "healthy", "(unhealthy)": "unhealthy", "(health: starting)": "starting"}
    return next((word for text, word in words.items() if status.endswith(text)), "")


def _exit_code(container: Container) -> int:
    code = container.row["Status"].partition("(")[2].partition(")")[0]
    return int(code) if code.isdigit() else 0


def images(session: Session, options: Options, arguments: list[str]) -> int:
    """List the images of containers."""
    stage = Stage(session, options)
    found = stage.containers(arguments)
    details = {c.id: session.client.get(f"/images/{c.row['ImageID']}/json") for c in found}
    if options.quiet:
        names = dict.fromkeys(details[c.id]["Id"].removeprefix("sha256:") for c in found)
        sys.stdout.write("".join(name + "\n" for name in names))
        return 0
    rows = []
    for container in sorted(found, key=lambda c: c.name):
        image = details[container.id]
        repository, _, tag = (next(iter(image.get("RepoTags") or ()), "<none>:<none>")).rpartition(":")
        rows.append((container.name, repository, tag, image["Id"], image["Size"]))
    if options.format == "json":
        keys = ("ContainerName", "Repository", "Tag", "ID", "Size")
        print(encode([dict(zip(keys, row, strict=True)) for row in rows]))
        return 0
    lines = [
        [name, repository, tag, short_id(identifier), human_size(size, 3)]
        for name, repository, tag, identifier, size in rows
    ]
    sys.stdout.write(align([["CONTAINER", "REPOSITORY", "TAG", "IMAGE ID", "SIZE"], *lines]))
    return 0


def port(session: Session, options: Options, arguments: list[str]) -> int:
    """Print the host address of a service's published port."""
    stage = Stage(session, options)
    service, private = arguments
    if not private.isdigit():
        raise StatusError(1, f'invalid port "{private}"')
    container = stage.container(service, options.index)
    for row in container.row.get("Ports") or ():
        if row["PrivatePort"] == int(private) and row["Type"] == options.protocol and row.get("PublicPort"):
            ip = f"[{row['IP']}]" if ":" in row["IP"] else row["IP"]
            print(f"{ip}:{row['PublicPort']}")
            return 0
    raise StatusError(1, f"no port {private}/{options.protocol} for container {container.name}")


def top(session: Session, options: Options, arguments: list[str]) -> int:
    """Show the processes of containers."""
    stage = Stage(session, options)
    for container in sorted(stage.containers(arguments, all=False), key=lambda c: c.name):
        answer = session.client.get(f"/containers/{container.id}/top")
        print(container.name)
        sys.stdout.write(align([answer["Titles"], *answer["Processes"]]))
        print()
    return 0


def ls(session: Session, options: Options, arguments: list[str]) -> int:
    """List projects."""
    filters: list[tuple[str, str]] = [("label", label.PROJECT), ("label", label.CONFIG_HASH)]
    query: dict[str, str | list[str]] = {"filters": render_filters(filters)}
    if options.all:
        query["all"] = "1"
    projects: dict[str, list[dict[str, Any]]] = {}
    for row in session.client.get("/containers/json", query):
        projects.setdefault(row["Labels"][label.PROJECT], []).append(row)
    names = [value for name, value in options.filter if name == "name"]
    rows = []
    for name in sorted(projects):
        if names and not any(wanted in name for wanted in names):
            continue
        states = [row["State"] for row in projects[name]]
        status = ", ".join(f"{state}({states.count(state)})" for state in sorted(set(states)))
        files = dict.fromkeys(f for row in projects[name] for f in row["Labels"].get(label.FILES, "").split(","))
        rows.append((name, status, ",".join(files)))
    if options.quiet:
        sys.stdout.write("".join(row[0] + "\n" for row in rows))
    elif options.format == "json":
        print(encode([dict(zip(("Name", "Status", "ConfigFiles"), row, strict=True)) for row in rows]))
    else:
        sys.stdout.write(align([["NAME", "STATUS", "CONFIG FILES"], *(list(row) for row in rows)]))
    return 0


def volumes(session: Session, options: Options, arguments: list[str]) -> int:
    """List the project's volumes, or those that running containers of some services mount."""
    stage = Stage(session, options)
    containers = stage.containers(arguments, all=False, one_off=True)
    query: Query = {"filters": encode({"label": [f"{label.PROJECT}={stage.name()}"]})}
    found = session.client.get("/volumes", query)["Volumes"] or []
    if arguments:
        mounted = {mount.get("Name") for container in containers for mount in container.row["Mounts"]}
        found = [volume for volume in found if volume["Name"] in mounted]
    found.sort(key=lambda volume: volume["Name"])
    if options.quiet:
        sys.stdout.write("".join(volume["Name"] + "\n" for volume in found))
    else:
        sys.stdout.write(volume_listing().render(found, options.format))
    return 0


def events(session: Session, options: Options, arguments: list[str]) -> int:
    """Print the events of the project's containers, until interrupted."""
    stage = Stage(session, options)
    query: Query = {"filters": encode({"type": ["container"], "label": [f"{label.PROJECT}={stage.name()}"]})}
    query |= {name: timestamp(value) for name in ("since", "until") if (value := getattr(options, name))}
    client = session.client
    for event in client.messages(client.call("GET", "/events", query)):
        attributes = event["Actor"]["Attributes"]
        service = attributes.pop(label.SERVICE, "")
        if (arguments and service not in arguments) or attributes.get(label.ONE_OFF) == "True":
            continue
        shown = {key: value for key, value in attributes.items() if not key.startswith("com.docker.compose.")}
        moment = _moment(event["timeNano"])
        if options.json:
            line = {"action": event["Action"], "attributes": shown, "id": event["Actor"]["ID"], "service": service,
                    "time": moment.replace(" ", "T") + "Z", "type": "container"}  # fmt: skip
            print(encode(line), flush=True)
        else:
            pairs = ", ".join(f"{key}={value}" for key, value in sorted(shown.items()))
            print(f"{moment} container {event['Action']} {event['Actor']['ID']} ({pairs})", flush=True)
    return 0


def _moment(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(seconds)) + f".{rest // 1000:06d}"


def stats(session: Session, options: Options, arguments: list[str]) -> int:
    """Show containers' resource usage."""
    from havre.cli.stats import stats as container_stats

    stage = Stage(session, options)
    names = [container.name for container in stage.containers(arguments, all=options.all)]
    if not names:
        raise StatusError(1, "no container to show")
    return container_stats(session, options, names)


def version(session: Session, options: Options, arguments: list[str]) -> int:
    """Print the docker compose version that is reproduced, and ours."""
    from havre import __version__

    if options.short:
        print(COMPOSE_VERSION)
    elif options.format == "json":
        print(encode({"version": COMPOSE_VERSION}))
    else:
        print(f"havre compose {__version__}, as Docker Compose version {COMPOSE_VERSION}")
    return 0


def alpha(session: Session, options: Options, arguments: list[str]) -> int:
    """The commands that docker compose calls experimental."""
    if arguments[0] == "publish":
        raise StatusError(1, "alpha publish is now havre compose publish")
    if arguments != ["viz"]:
        raise StatusError(1, f"unknown command alpha {arguments[0]}; expected alpha viz")
    return _viz(session, options)


def _viz(session: Session, options: Options) -> int:
    """Print the graph of the project's services, or write it as SVG."""
    indent = " " * options.indentation_size if options.spaces else "\t" * options.indentation_size
    project = Stage(session, options).project()
    from havre.compose.viz import render_dot, render_svg

    wanted = {"image": options.image, "networks": options.networks, "ports": options.ports}
    if not options.svg:
        sys.stdout.write(render_dot(project, indent=indent, **wanted))
        return 0
    try:
        with open(options.svg, "w", encoding="utf-8") as file:
            file.write(render_svg(project, **wanted))
    except OSError as error:
        raise StatusError(1, f"cannot write {options.svg}: {error.strerror}") from error
    return 0


def wait(session: Session, options: Options, arguments: list[str]) -> int:
    """Wait for the first of the services' containers to stop; returns its exit code."""
    stage = Stage(session, options)
    found = stage.containers(arguments, all=False)
    if not found:
        raise StatusError(1, f'no containers for project "{stage.name()}"')
    from queue import SimpleQueue
    from threading import Thread

    ended: SimpleQueue[tuple[str, int]] = SimpleQueue()

    def watch(container: Container) -> None:
        client = session.new_client()
        ended.put((container.name, read_exit_code(client.call("POST", f"/containers/{container.id}/wait"))))

    for container in found:
        Thread(target=watch, args=(container,), daemon=True).start()
    name, code = ended.get()
    print(f'container "{name}" exited with status code {code}')
    if options.down_project:
        from havre.compose.down import DownOptions, plan_down

        project, state = stage.observed(())
        stage.carry_out(plan_down(project, state, DownOptions()))
    return code
