"""The verbs that run in or copy to containers: run, exec, attach, cp."""

from __future__ import annotations

import os
import posix
import shlex
import sys

from havre.cli.compose.converge import converge
from havre.cli.compose.stage import Stage
from havre.cli.compose.supply import supplied
from havre.cli.parser import StatusError
from havre.compose import labels as label
from havre.compose.dotenv import read_env_file
from havre.compose.execute import inject
from havre.compose.images import ImageOptions, plan_images
from havre.compose.labels import container_labels
from havre.compose.mounts import injected_files
from havre.compose.plan import NEVER, UpOptions
from havre.compose.project import image_of
from havre.compose.references import link_names, resolved
from havre.compose.request import container_request
from havre.compose.shortforms import parse_port, parse_volume
from havre.compose.state import inspect_images, observe
from havre.golang.flags import Flag, Options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from havre.cli.session import Session
    from havre.compose.project import Project, Service
    from havre.compose.state import Container


_EXEC = ("detach", "env", "interactive", "privileged", "user", "workdir")


def _plain(**values: Any) -> Options:
    """Options for a command of another group."""
    options = Options([Flag(name.replace("_", "-"), "", "string", "") for name in values])
    for name, value in values.items():
        setattr(options, name, value)
    return options


def exec_(session: Session, options: Options, arguments: list[str]) -> int:
    """Run a command in a service's container. Returns its exit code."""
    from havre.cli.exec import exec_ as container_exec

    service, *command = arguments
    stage = Stage(session, options)
    container = stage.container(service, options.index)
    if stage.dry_run:
        print(f"exec {container.name}: {' '.join(command)}")
        return 0
    tty = not (options.no_tty or options.no_TTY) and not options.detach and posix.isatty(0) and posix.isatty(1)
    wanted = _plain(detach_keys="", env_file=[], tty=tty, **{name: getattr(options, name) for name in _EXEC})
    return container_exec(session, wanted, [container.id, *command])


def attach(session: Session, options: Options, arguments: list[str]) -> int:
    """Attach to a service's container."""
    from havre.cli.attach import attach as container_attach

    container = Stage(session, options).container(arguments[0], options.index)
    return container_attach(session, options, [container.id])


def cp(session: Session, options: Options, arguments: list[str]) -> int:
    """Copy from a service's first container, or to all of them; --index names one."""
    from havre.cli.copy import cp as container_cp
    from havre.cli.copy import split_path

    (source, source_path), (target, target_path) = (split_path(argument) for argument in arguments)
    if source and target:
        raise StatusError(1, "copying between services is not supported")
    if not source and not target:
        raise StatusError(1, "unknown copy direction: one path must be SERVICE:PATH")
    stage = Stage(session, options)
    containers = _copied(stage, options, source or target)
    if source:
        pairs = [[f"{containers[0].id}:{source_path}", target_path]]
    else:
        pairs = [[source_path, f"{container.id}:{target_path}"] for container in containers]
    if stage.dry_run:
        sys.stdout.write("".join(f"cp {' '.join(pair)}\n" for pair in pairs))
        return 0
    if len(pairs) > 1 and source_path == "-":
        _keep_stdin()
    wanted = _plain(archive=options.archive, follow_link=options.follow_link, quiet=False)
    for pair in pairs:
        if len(pairs) > 1 and source_path == "-":
            os.lseek(0, 0, os.SEEK_SET)
        container_cp(session, wanted, pair)
    return 0


def _copied(stage: Stage, options: Options, service: str) -> list[Container]:
    if options.index:
        return [stage.container(service, options.index, all=True)]
    if found := stage.containers([service], one_off=options.all):
        return found
    raise StatusError(1, f'no container found for service "{service}"')


def _keep_stdin() -> None:
    """Replace STDIN by a file with its content, which can be read once for each container."""
    import shutil
    import tempfile

    with tempfile.TemporaryFile() as file:
        shutil.copyfileobj(sys.stdin.buffer, file)
        file.flush()
        os.dup2(file.fileno(), 0)


def run(session: Session, options: Options, arguments: list[str]) -> int:
    """Run a command in a new container of a service. Returns its exit code."""
    from havre.cli.attach import check_tty

    name, *command = arguments
    if options.publish and options.service_ports:
        raise StatusError(1, "--service-ports and --publish are incompatible")
    stage = Stage(session, options)
    if options.quiet:
        stage.progress = "quiet"
    project = stage.project([name])
    if "provider" in project.services[name]:
        raise StatusError(1, f'service "{name}" is managed by a provider: there is no container to run')
    project = supplied(stage, project, providers=not options.no_deps)
    tty = not (options.no_tty or options.no_TTY) and posix.isatty(0) and posix.isatty(1)
    interactive = options.interactive and not options.detach
    check_tty(interactive, tty)
    _start_dependencies(stage, project, name, options)
    service = one_off(project, name, options, command, tty=tty)
    project = project._replace(services={name: service})
    if stage.dry_run:
        print(f"run {name}: create a container, start it: {' '.join(service.get('command') or ())}".rstrip())
        return 0
    container = _create(stage, project, name, options)
    if options.detach:
        session.client.post(f"/containers/{container}/start")
        print(container)
        return 0
    from havre.cli.attach import start

    wanted = _plain(checkpoint="", attach=True, interactive=interactive, detach_keys="", sig_proxy=True)
    return start(session, wanted, [container])


def _start_dependencies(stage: Stage, project: Project, name: str, options: Options) -> None:
    """Start the service's dependencies, unless --no-deps; its networks and volumes are created anyway."""
    others = {} if options.no_deps else {key: value for key, value in project.services.items() if key != name}
    rest = {key: value for key, value in project.services.items() if key not in others}
    dependencies = project._replace(services=others, disabled={**project.disabled, **rest})
    awaited = dict(project.services[name].get("depends_on", {})) if others else {}
    wanted = UpOptions(recreate=NEVER, recreate_others=NEVER, separator=stage.separator,
                       remove_orphans=options.remove_orphans)  # fmt: skip
    converge(
        stage,
        dependencies,
        wanted,
        _image_options(options)._replace(build=False),
        quiet=options.quiet_pull,
        awaited=awaited,
    )


def one_off(project: Project, name: str, options: Options, command: list[str], *, tty: bool) -> Service:
    """The service with the options of `run` applied."""
    service = dict(project.services[name])
    service |= {"tty": tty, "stdin_open": options.interactive, "scale": 1}
    service.pop("restart", None)
    service.pop("container_name", None)
    if not options.service_ports:
        service["ports"] = [port for text in options.publish for port in parse_port(text)]
    if options.entrypoint or "entrypoint" in options.given:
        service["entrypoint"] = shlex.split(options.entrypoint)
        service["command"] = []
    if command:
        service["command"] = command
    for key, value in (("user", options.user), ("working_dir", options.workdir)):
        if value:
            service[key] = value
    service["labels"] = {**service.get("labels", {}), **_pairs(options.label)}
    service["environment"] = {**service.get("environment", {}), **_environment(project, options)}
    for key, more, other in (("cap_add", options.cap_add, "cap_drop"), ("cap_drop", options.cap_drop, "cap_add")):
        if more:
            service[key] = [*service.get(key, ()), *more]
            service[other] = [capability for capability in service.get(other, ()) if capability not in more]
    volumes = [parse_volume(text) for text in options.volume]
    for volume in volumes:
        if volume["type"] == "bind":
            volume["source"] = os.path.abspath(os.path.expanduser(volume["source"]))
    service["volumes"] = [*service.get("volumes", ()), *volumes]
    return service


def _environment(project: Project, options: Options) -> dict[str, str]:
    """The variables of --env and of the files, of which the first one that sets a variable wins."""
    given = {k: v for k, v in ((t.partition("=")[0], _value(project, t)) for t in options.env) if v is not None}
    for path in options.env_from_file:
        given = {**read_env_file(path, given.get), **given}
    return given


def _pairs(texts: list[str]) -> dict[str, str]:
    return {name: value for name, _, value in (text.partition("=") for text in texts)}


def _value(project: Project, text: str) -> str | None:
    name, equals, value = text.partition("=")
    return value if equals else project.variables.get(name)


def _image_options(options: Options) -> ImageOptions:
    return ImageOptions(options.pull, build=options.build, quiet_build=options.quiet_build)


def _create(stage: Stage, project: Project, name: str, options: Options) -> str:
    """Create the one-off container; returns its name."""
    service = project.services[name]
    image = image_of(service, name, project.name)
    present = inspect_images(stage.client, [image])
    wanted = _image_options(options)
    if steps := plan_images(project, present, wanted):
        stage.carry_out(steps, quiet=options.quiet_pull)
        present = inspect_images(stage.client, [image])
    state = observe(stage.client, project)

    def id_of(other: str) -> str | None:
        found: list[Container] = state.of(other)
        return found[0].id if found else None

    slug = os.urandom(32).hex()
    title = options.name or stage.separator.join((project.name, name, "run", slug[:12]))
    final = resolved(service, id_of)
    labels = container_labels(project, name, final, 1, present.get(image, {}).get("Id", ""))
    labels |= {label.ONE_OFF: "True", label.SLUG: slug}
    names = {other: [c.name for c in state.of(other)] for other in {c.service for c in state.containers}}
    body = container_request(
        project, name, {**final, "container_name": title}, 1, labels, present.get(image, {}),
        aliases=options.use_aliases, links=link_names(project.name, final, 1, names), proxies=stage.client.proxies,
    )  # fmt: skip
    body |= {"AttachStdin": options.interactive and not options.detach, "StdinOnce": options.interactive}
    body["HostConfig"]["AutoRemove"] = options.rm
    identifier: str = stage.client.post("/containers/create", {"name": title}, body)["Id"]
    inject(stage.client, identifier, injected_files(project, final))
    return identifier
