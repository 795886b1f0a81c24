"""Plans of the verbs for existing containers: down, stop, start, restart, kill, rm, pause, unpause.

The order follows dependencies, reversed for stopping. Without files, dependencies are read from the containers' labels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from havre.compose import labels as label
from havre.compose.labels import parse_dependencies
from havre.compose.plan import orphans, remove_container, stop_container
from havre.compose.project import Project, in_order
from havre.compose.state import Container, State
from havre.compose.steps import Call, Provide, Step

_IN_USE = "Resource is still in use"


class DownOptions(NamedTuple):
    """Options of `down`; `images` are the names of images to remove."""

    services: tuple[str, ...] = ()
    volumes: bool = False
    images: tuple[str, ...] = ()
    remove_orphans: bool = False
    timeout_s: int | None = None


def project_of(name: str, state: State) -> Project:
    """A project reconstructed from its containers."""
    services: dict[str, Any] = {}
    for container in state.containers:
        if not container.one_off:
            dependencies = parse_dependencies(container.labels.get(label.DEPENDENCIES, ""))
            services[container.service] = {"depends_on": dependencies}
    resources = {
        kind: {
            row["Labels"][key]: {"name": row["Name"]}
            for row in rows.values()
            if (row.get("Labels") or {}).get(label.PROJECT) == name and key in row["Labels"]
        }
        for kind, rows, key in (("networks", state.networks, label.NETWORK), ("volumes", state.volumes, label.VOLUME))
    }
    return Project(name, "", (), {}, services, resources["networks"], resources["volumes"])


def plan_down(project: Project, state: State, options: DownOptions) -> list[Step]:
    """The steps that stop and remove the project's containers, then its networks and whatever else the options
    include."""
    steps: list[Step] = []
    removed: dict[str, tuple[str, ...]] = {}
    for name in reversed(list(in_order(project))):
        if options.services and name not in options.services:
            continue
        after = tuple(key for other in _dependents(project, name) for key in removed.get(other, ()))
        keys = []
        for container in _all_of(state, name, one_off=options.remove_orphans):
            steps += remove_container(
                container,
                timeout_s=options.timeout_s,
                volumes=options.volumes,
                after=after,
                service=project.services[name],
            )
            keys.append(steps[-1].key)
        if "provider" in project.services[name]:
            steps.append(_provide(project, name, "down", ("Removing", "Removed"), after))
            keys.append(steps[-1].key)
        removed[name] = tuple(keys)
    if options.remove_orphans:
        for container in orphans(project, state):
            steps += remove_container(container, timeout_s=options.timeout_s)
    for hook in state.hooks:
        if not options.services or hook.service in options.services:
            steps += remove_container(hook, volumes=True)
    ended = tuple(step.key for step in steps if step.key.startswith("remove "))
    return [*steps, *_resources(project, state, options, ended)]


def _all_of(state: State, name: str, *, one_off: bool) -> list[Container]:
    return [c for c in state.containers if c.service == name and (one_off or not c.one_off)]


def _dependents(project: Project, name: str) -> list[str]:
    return [other for other, service in project.services.items() if name in service.get("depends_on", {})]


def _resources(project: Project, state: State, options: DownOptions, after: tuple[str, ...]) -> Iterable[Step]:
    in_use = {403: _IN_USE, 409: _IN_USE, 404: "Removed"}
    for _, network in sorted(project.networks.items()):
        row = state.networks.get(network["name"])
        if row is not None and not network.get("external") and label.PROJECT in (row.get("Labels") or {}):
            call = Call("DELETE", f"/networks/{row['Id']}", tolerated=in_use)
            yield Step(f"network {row['Id']}", f"Network {network['name']}", "Removing", "Removed", call, after)
    for image in options.images:
        call = Call("DELETE", f"/images/{image}", tolerated=in_use)
        yield Step(f"image {image}", f"Image {image}", "Removing", "Removed", call, after)
    if options.volumes and not options.services:
        for _, volume in sorted(project.volumes.items()):
            if not volume.get("external") and volume["name"] in state.volumes:
                name = volume["name"]
                call = Call("DELETE", f"/volumes/{name}", {"force": "1"}, tolerated=in_use)
                yield Step(f"volume {name}", f"Volume {name}", "Removing", "Removed", call, after)


def plan_each(
    project: Project,
    state: State,
    services: Sequence[str],
    step: Callable[[Container, tuple[str, ...]], list[Step]],
    *,
    backwards: bool = False,
) -> list[Step]:
    """Steps for each container of the services (none named: all), after those of their dependencies (`backwards`: of
    their
    dependents).
    """
    order = list(in_order(project))
    done: dict[str, tuple[str, ...]] = {}
    steps: list[Step] = []
    for name in reversed(order) if backwards else order:
        if services and name not in services:
            continue
        before = _dependents(project, name) if backwards else list(project.services[name].get("depends_on", {}))
        after = tuple(key for other in before for key in done.get(other, ()))
        keys = []
        for container in state.of(name):
            made = step(container, after)
            steps += made
            keys += [made[-1].key] if made else []
        done[name] = tuple(keys)
    return steps


def plan_stop(project: Project, state: State, services: Sequence[str], timeout_s: int | None) -> list[Step]:
    """The steps of `stop`."""

    def stop(container: Container, after: tuple[str, ...]) -> list[Step]:
        if container.state not in ("running", "restarting", "paused"):
            return []
        return stop_container(
            container, timeout_s=timeout_s, after=after, service=project.services.get(container.service)
        )

    steps = plan_each(project, state, services, stop, backwards=True)
    for name, service in sorted(project.services.items()):
        if "provider" in service and (not services or name in services):
            dependents = _dependents(project, name)
            stopped = {f"stop {container.id}" for container in state.containers if container.service in dependents}
            after = tuple(step.key for step in steps if step.key in stopped)
            steps.append(_provide(project, name, "stop", ("Stopping", "Stopped"), after))
    return steps


def _provide(project: Project, name: str, command: str, words: tuple[str, str], after: tuple[str, ...]) -> Step:
    action = Provide(project, name, command, {})
    return Step(f"{command} provider {name}", f"Service {name}", words[0], words[1], action, after)


def plan_simple(
    project: Project,
    state: State,
    services: Sequence[str],
    verb: str,
    words: tuple[str, str],
    query: dict[str, str],
    states: tuple[str, ...],
) -> list[Step]:
    """One request per container in one of `states`: start, restart, kill, pause, unpause."""  # fmt: skip

    def call(container: Container, after: tuple[str, ...]) -> list[Step]:
        if container.state not in states:
            return []
        action = Call("POST", f"/containers/{container.id}/{verb}", query, tolerated={304: ""})
        subject = f"Container {container.name}"
        return [Step(f"{verb} {container.id}", subject, words[0], words[1], action, after)]

    return plan_each(project, state, services, call)
