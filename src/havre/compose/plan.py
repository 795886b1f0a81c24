"""Plans `up` and `create`: the steps from the engine's state to the project.

A container is kept when its label has the hash of its service's configuration and the ID of its image; otherwise it is
replaced: a new one is created beside it, the old one is stopped and removed, and the new one takes its name. The next
`up` after an interrupted one therefore recognises a service's containers by labels, whatever their names.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

from havre.compose import labels as label
from havre.compose.labels import container_name, resource_labels
from havre.compose.prestart import prepare_steps
from havre.compose.project import Project, Service, image_of, in_order, scale_of, service_hash
from havre.compose.references import resolved, shared
from havre.compose.request import network_request, volume_request
from havre.compose.state import Container, State
from havre.compose.steps import Await, Call, Create, Execute, Step
from havre.errors import InvalidInput, NotFound

DIVERGED, FORCE, NEVER = "diverged", "force", "never"
"""Which existing containers are replaced."""

_HEALTHY, _COMPLETED = "service_healthy", "service_completed_successfully"
RUNNING_OR_HEALTHY = "running_or_healthy"
_GRACE_NS = 10 * 10**9


class UpOptions(NamedTuple):
    """Options of `up` and `create`.

    recreate       which containers of the named services are replaced; `recreate_others`: of their dependencies
    targets        the named services; empty: all
    start, wait    whether containers are started, and whether to wait until they are running or healthy
    inherit        whether a new container takes over its predecessor's anonymous volumes
    """

    recreate: str = DIVERGED
    recreate_others: str = DIVERGED
    targets: tuple[str, ...] = ()
    start: bool = True
    wait: bool = False
    inherit: bool = True
    remove_orphans: bool = False
    timeout_s: int | None = None
    separator: str = "-"


class _Draft:
    """A plan under construction.

    resources   the step that creates a network or volume
    names       the names that each service's containers will have
    made        the step after which a container of that name exists in its final form
    running     names of containers that are already running
    started     the steps after which a service's containers run
    kept_ids    the ID of the first container of services whose containers are all kept
    replaced    services with a replaced container
    """

    def __init__(self, project: Project, state: State, options: UpOptions) -> None:
        self.project = project
        self.state = state
        self.options = options
        self.steps: list[Step] = []
        self.resources: dict[tuple[str, str], str] = {}
        self.names: dict[str, list[str]] = {}
        self.made: dict[str, str] = {}
        self.running: set[str] = set()
        self.started: dict[str, list[str]] = {}
        self.kept_ids: dict[str, str] = {}
        self.replaced: set[str] = set()

    def add(self, step: Step) -> str:
        """Add a step; returns its key."""
        self.steps.append(step)
        return step.key


def plan_up(
    project: Project, state: State, options: UpOptions, awaited: Mapping[str, Mapping[str, Any]] | None = None
) -> list[Step]:
    """The steps that bring `state` to `project`. Raises HavreError when that is impossible.

    `awaited` are dependencies of something outside the plan.
    """
    draft = _Draft(project, state, options)
    _plan_networks(draft)
    _plan_volumes(draft)
    if options.remove_orphans:
        for container in orphans(project, state):
            draft.steps += remove_container(container, timeout_s=options.timeout_s)
    order = list(in_order(project))
    for name in order:
        _plan_service(draft, name)
    if options.start:
        for name in order:
            _plan_start(draft, name)
        if options.wait:
            _plan_wait(draft)
        list(_conditions(draft, {"depends_on": awaited or {}}))
    return draft.steps


def orphans(project: Project, state: State) -> list[Container]:
    """Containers of services that are not in the files."""
    known = {*project.services, *project.disabled}
    return [container for container in state.containers if container.service not in known]


def _plan_networks(draft: _Draft) -> None:
    for key, network in sorted(draft.project.networks.items()):
        name = network["name"]
        found = draft.state.networks.get(name)
        if network.get("external"):
            if found is None and name not in {row["Id"] for row in draft.state.networks.values()}:
                raise NotFound(f"network {name} declared as external, but could not be found")
            continue
        labels = resource_labels(draft.project, key, label.NETWORK, network.get("labels", {}))
        if found is None:
            call = Call("POST", "/networks/create", body=network_request(network, labels))
            draft.resources["networks", key] = draft.add(
                Step(f"network {key}", f"Network {name}", "Creating", "Created", call)
            )
        elif (found.get("Labels") or {}).get(label.NETWORK, key) != key:
            wrong = found["Labels"][label.NETWORK]
            raise InvalidInput(f'network {name} was found but has incorrect label {label.NETWORK} set to "{wrong}"')


def _plan_volumes(draft: _Draft) -> None:
    for key, volume in sorted(draft.project.volumes.items()):
        name = volume["name"]
        if name in draft.state.volumes:
            continue
        if volume.get("external"):
            raise NotFound(f'external volume "{name}" not found')
        labels = resource_labels(draft.project, key, label.VOLUME, volume.get("labels", {}))
        call = Call("POST", "/volumes/create", body=volume_request(volume, labels))
        draft.resources["volumes", key] = draft.add(
            Step(f"volume {key}", f'Volume "{name}"', "Creating", "Created", call)
        )


def _plan_service(draft: _Draft, name: str) -> None:
    """The service's containers: kept, replaced, removed and added."""
    service = draft.project.services[name]
    wanted = scale_of(service)
    existing = draft.state.of(name)
    stale = {container.id for container in existing if _stale(draft, name, service, container)}
    present = {container.id for container in existing}
    # First to go: replacements of an interrupted `up` whose originals are still here, with the same numbers.
    existing.sort(key=lambda each: (each.labels.get(label.REPLACES) in present, each.id not in stale, each.number))
    needed = _needs(draft, service)
    for container in existing[wanted:]:  # before others are created: it may hold a port of theirs
        draft.steps += remove_container(container, timeout_s=draft.options.timeout_s, service=service)
        needed += (draft.steps[-1].key,)
    draft.started[name], draft.names[name] = [], []
    first_kept: list[tuple[str, str]] = []
    for container in existing[:wanted]:
        if container.id in stale:
            _plan_replacement(draft, name, service, container, needed)
        else:
            _plan_kept(draft, name, service, container)
            first_kept.append((container.name, container.id))
    number = max((container.number for container in existing), default=0)
    for _ in range(wanted - len(existing)):
        number += 1
        _plan_new(draft, name, service, number, needed)
    if first_kept and name not in draft.replaced:
        draft.kept_ids[name] = min(first_kept)[1]


def _stale(draft: _Draft, name: str, service: Service, container: Container) -> bool:
    options = draft.options
    named = not options.targets or name in options.targets
    policy = options.recreate if named else options.recreate_others
    if policy == NEVER:
        return False
    if policy == FORCE or draft.replaced & set(service.get("depends_on", {})):
        return True
    if container.id in draft.state.disturbed(name):
        return True
    try:
        expected = service_hash(resolved(service, draft.kept_ids.get))
    except NotFound:  # the container it refers to is new, so it must be replaced, too
        return True
    image = draft.state.images.get(image_of(service, name, draft.project.name), {})
    known = container.labels.get(label.CONFIG_HASH), container.labels.get(label.IMAGE, "")
    return known != (expected, image.get("Id", ""))


def _needs(draft: _Draft, service: Service) -> tuple[str, ...]:
    """The steps required before a container of the service is created."""
    keys = [("networks", key) for key in service.get("networks") or ()]
    keys += [("volumes", v.get("source", "")) for v in service.get("volumes", ()) if v["type"] == "volume"]
    needs = [draft.resources[key] for key in keys if key in draft.resources]
    names = [name for other in shared(service) for name in draft.names.get(other, ())]
    made = [draft.made[name] for name in names if name in draft.made]
    return tuple(dict.fromkeys([*needs, *made]))


def _plan_kept(draft: _Draft, name: str, service: Service, container: Container) -> None:
    subject = f"Container {container.name}"
    target = container_name(draft.project.name, name, service, container.number, draft.options.separator)
    if container.name != target and container.name.endswith(f"_{target}"):
        # an `up` was interrupted between removing the old one and renaming this one
        call = Call("POST", f"/containers/{container.id}/rename", {"name": target})
        draft.made[target] = draft.add(
            Step(f"rename {container.id}", f"Container {target}", "Renaming", "Renamed", call)
        )
    else:
        target = container.name
    draft.names[name].append(target)
    if container.state == "running":
        draft.running.add(target)
        draft.add(Step(f"running {target}", subject, "", "Running"))
    elif draft.options.start and container.state == "paused":
        call = Call("POST", f"/containers/{container.id}/unpause")
        draft.started[name].append(draft.add(Step(f"unpause {target}", subject, "Unpausing", "Unpaused", call)))


def _plan_new(draft: _Draft, name: str, service: Service, number: int, needed: tuple[str, ...]) -> None:
    target = container_name(draft.project.name, name, service, number, draft.options.separator)
    draft.names[name].append(target)
    create = _create(draft, name, service, number, target)
    draft.made[target] = draft.add(
        Step(f"create {target}", f"Container {target}", "Creating", "Created", create, needed)
    )


def _create(draft: _Draft, name: str, service: Service, number: int, target: str, **more: Any) -> Create:
    image = draft.state.images.get(image_of(service, name, draft.project.name), {})
    return Create(draft.project, name, service, number, target, image, **more)


def _plan_replacement(draft: _Draft, name: str, service: Service, old: Container, needed: tuple[str, ...]) -> None:
    target = container_name(draft.project.name, name, service, old.number, draft.options.separator)
    subject = f"Container {target}"
    temporary = f"{old.id[:12]}_{target}"
    draft.names[name].append(target)
    draft.replaced.add(name)
    create = _create(draft, name, service, old.number, temporary, replaced=old.row, inherit=draft.options.inherit,
                     extra={label.REPLACES: old.id})  # fmt: skip
    made = draft.add(Step(f"create {target}", subject, "Recreate", "", create, needed))
    stop = draft.add(Step(f"stop {target}", subject, "", "", _stop(old.id, draft.options.timeout_s), (made,)))
    remove = Call("DELETE", f"/containers/{old.id}", tolerated={404: ""})
    removed = draft.add(Step(f"remove {target}", subject, "", "", remove, (stop,)))
    rename = Call("POST", f"/containers/{temporary}/rename", {"name": target})
    draft.made[target] = draft.add(Step(f"rename {target}", subject, "", "Recreated", rename, (removed,)))


def _stop(container_id: str, timeout_s: int | None, *, drain_s: int | None = None) -> Call:
    given = {"t": timeout_s, "drain": drain_s}
    query = {name: str(value) for name, value in given.items() if value is not None}
    return Call("POST", f"/containers/{container_id}/stop", query, tolerated={304: "", 404: ""})


def _grace_s(service: Service, timeout_s: int | None) -> int:
    """Stop timeout of a container, in seconds."""
    if timeout_s is not None:
        return timeout_s
    return int(service.get("stop_grace_period", _GRACE_NS)) // 10**9


def _plan_start(draft: _Draft, name: str) -> None:
    service = draft.project.services[name]
    before = tuple(_conditions(draft, service))
    names = draft.names[name]
    starting = [each for each in names if each not in draft.running and f"unpause {each}" not in draft.started[name]]
    made = tuple(draft.made[target] for target in starting if target in draft.made) if service.get("pre_start") else ()
    alone = len(starting) == len(names)
    steps, ready = prepare_steps(draft.project, draft.state, name, starting, (*made, *before), alone=alone)
    draft.steps += steps
    for target in starting:
        made = (draft.made[target],) if target in draft.made else ()
        call = Call("POST", f"/containers/{target}/start", tolerated={304: ""})
        needed = tuple(dict.fromkeys((*made, *ready)))
        key = draft.add(Step(f"start {target}", f"Container {target}", "Starting", "Started", call, needed))
        for number, hook in enumerate(service.get("post_start", ())):
            execute = Execute(target, hook)
            key = draft.add(
                Step(f"post_start {number} {target}", f"Container {target}", "Hook", "Started", execute, (key,))
            )
        draft.started[name].append(key)


def _conditions(draft: _Draft, service: Service) -> Iterator[str]:
    """The steps required before a container of the service is started."""
    for other, how in sorted(service.get("depends_on", {}).items()):
        if other not in draft.project.services:
            continue
        if not draft.names[other]:
            continue  # scaled to zero
        if how["condition"] not in (_HEALTHY, _COMPLETED):
            yield from draft.started[other]
            continue
        yield _await(draft, other, how["condition"], required=bool(how.get("required", True)))


def _await(draft: _Draft, service: str, condition: str, *, required: bool = True) -> str:
    key = f"await {service} {condition} {required}"
    if any(step.key == key for step in draft.steps):
        return key
    names = tuple(draft.names[service])
    doing, done = ("Waiting", "Exited" if condition == _COMPLETED else "Healthy")
    subject = ", ".join(f"Container {name}" for name in names)
    action = Await(names, service, condition, required)
    return draft.add(Step(key, subject, doing, done, action, tuple(draft.started[service])))


def _plan_wait(draft: _Draft) -> None:
    for name, service in sorted(draft.project.services.items()):
        if not scale_of(service):
            continue
        awaited = [other.get("depends_on", {}).get(name, {}) for other in draft.project.services.values()]
        once = any(how.get("condition") == _COMPLETED for how in awaited)
        _await(draft, name, _COMPLETED if once else RUNNING_OR_HEALTHY)


def remove_container(
    container: Container,
    *,
    timeout_s: int | None = None,
    volumes: bool = False,
    after: tuple[str, ...] = (),
    service: Service | None = None,
    drain: bool = False,
) -> list[Step]:
    """The steps that stop and remove a container; with `drain` its names are removed first."""
    subject = f"Container {container.name}"
    steps = stop_container(container, timeout_s=timeout_s, after=after, service=service, drain=drain)
    query = {"force": "1", "v": "1" if volumes else "0"}
    call = Call("DELETE", f"/containers/{container.id}", query, tolerated={404: "", 409: ""})
    return [*steps, Step(f"remove {container.id}", subject, "Removing", "Removed", call, (steps[-1].key,))]


def stop_container(
    container: Container,
    *,
    timeout_s: int | None = None,
    after: tuple[str, ...] = (),
    service: Service | None = None,
    drain: bool = False,
) -> list[Step]:
    """The steps that stop a container, after its `pre_stop` hooks; with `drain` its names are removed first."""
    subject = f"Container {container.name}"
    steps: list[Step] = []
    hooks = (service or {}).get("pre_stop", ()) if container.state == "running" else ()
    for number, hook in enumerate(hooks):
        key = f"pre_stop {number} {container.id}"
        steps.append(Step(key, subject, "Hook", "", Execute(container.id, hook), after))
        after = (key,)
    stop = _stop(container.id, timeout_s, drain_s=_grace_s(service or {}, timeout_s) if drain else None)
    return [*steps, Step(f"stop {container.id}", subject, "Stopping", "Stopped", stop, after)]
