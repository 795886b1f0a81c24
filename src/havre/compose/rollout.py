"""`up --rollout`: replaces a service's stale containers one by one, each only when its successor is healthy.

    create new -> start -> until running or healthy -> gets the service's names, and its fixed ports
                   |                       -> old one: drain, stop, remove; then the next one
                   '-- on failure: it is removed, the old ones stay, the command fails

The new container has a number of its own beside the old one, and gets the service's names on its networks only when it
is healthy: it is disconnected from each network and connected again with them. The old one is stopped with `drain`:
havre's daemon first removes its names and lets it finish its requests; dockerd ignores `drain`, and a client may then
reach a container that is stopping.

A fixed host port belongs to one container at a time. havre's daemon transfers it to a container created without ports;
with dockerd, and always with a fixed address, the rollout is refused. An interrupted rollout is recognised by a label,
the ID of the container to be replaced: while that exists, both are stale.
"""

from __future__ import annotations

from typing import NamedTuple

from havre.compose import labels as label
from havre.compose.labels import container_name
from havre.compose.plan import RUNNING_OR_HEALTHY, remove_container
from havre.compose.prestart import prepare_steps
from havre.compose.project import Project, Service, image_of, scale_of, service_hash
from havre.compose.request import networks_of, port_bindings
from havre.compose.state import Container, State
from havre.compose.steps import Await, Call, Create, Step
from havre.errors import Unsupported


class Replacement(NamedTuple):
    """One container's replacement: the steps up to a healthy successor, those that remove old ones, and the
    rollback."""

    forward: tuple[Step, ...]
    retire: tuple[Step, ...]
    undo: tuple[Step, ...]


def plan_rollout(
    project: Project, state: State, name: str, timeout_s: int | None, separator: str, *, hands_over: bool = False
) -> list[Replacement]:
    """The replacements of a service's stale containers, in order. `hands_over`: the engine can transfer ports between
    containers. Raises Unsupported.
    """
    service = project.services[name]
    image = state.images.get(image_of(service, name, project.name), {})
    wanted = (service_hash(service), image.get("Id", ""))
    existing = state.of(name)
    labels = (label.CONFIG_HASH, label.IMAGE)
    disturbed = state.disturbed(name)
    stale = [c for c in existing if c.id in disturbed or tuple(c.labels.get(key, "") for key in labels) != wanted]
    if not stale:
        return []
    _check(project, name, hands_over=hands_over)
    last = max(container.number for container in existing)
    count = min(len(stale), max(scale_of(service) - len(existing) + len(stale), 0))
    if not count:
        return [Replacement((), _retirement(stale, service, timeout_s), ())]
    plans = []
    for index in range(count):
        number = last + 1 + index
        target = container_name(project.name, name, service, number, separator)
        ports = not fixed_ports(service)
        follows = {label.FOLLOWS: stale[index].id}
        create = Create(project, name, service, number, target, image, aliases=False, ports=ports, extra=follows)
        old = stale[index:] if index == count - 1 else stale[index : index + 1]
        made, ready = prepare_steps(project, state, name, [target], (f"create {target}",), alone=not index)
        plans.append(_replacement(create, [container.id for container in stale], old, timeout_s, made, ready))
    return plans


def fixed_ports(service: Service) -> list[str]:
    """The service's fixed host ports, which only one container can hold."""
    return [p["published"] for p in service.get("ports", ()) if p.get("published") and "-" not in p["published"]]


def _check(project: Project, name: str, *, hands_over: bool) -> None:
    service = project.services[name]
    if (fixed := fixed_ports(service)) and not hands_over:
        raise Unsupported(
            f"service {name} cannot be rolled out: it publishes port {fixed[0]} of the host, which two containers "
            "cannot hold at once, and this engine cannot transfer it",
            "publish a range of ports, or put a proxy in front",
        )
    addresses = ("ipv4_address", "ipv6_address")
    if any((own or {}).get(key) for own in (service.get("networks") or {}).values() for key in addresses):
        raise Unsupported(f"service {name} cannot be rolled out: two containers cannot have its fixed address")
    if service.get("container_name"):
        raise Unsupported(f"service {name} cannot be rolled out: its container_name is for one container alone")


def _replacement(
    create: Create,
    givers: list[str],
    old: list[Container],
    timeout_s: int | None,
    hooks: list[Step],
    ready: tuple[str, ...],
) -> Replacement:
    """`hooks` run before the start, which waits for the steps `ready`."""
    subject = f"Container {create.name}"
    made = Step(f"create {create.name}", subject, "Creating", "Created", create)
    call = Call("POST", f"/containers/{create.name}/start")
    start = Step(f"start {create.name}", subject, "Starting", "Started", call, ready)
    condition = Await((create.name,), create.key, RUNNING_OR_HEALTHY)
    healthy = Step(f"await {create.name}", subject, "Waiting", "Healthy", condition, (start.key,))
    steps = [made, *hooks, start, healthy, *_naming(create, healthy.key)]
    if not create.ports:
        body = {"PortBindings": port_bindings(create.service), "Givers": givers}
        take = Call("POST", f"/containers/{create.name}/ports", body=body)
        steps.append(Step(f"ports {create.name}", subject, "", "In service", take, (steps[-1].key,)))
    back = Call("DELETE", f"/containers/{create.name}", {"force": "1", "v": "1"}, tolerated={404: ""})
    return Replacement(
        forward=tuple(steps),
        retire=_retirement(old, create.service, timeout_s),
        undo=(Step(f"undo {create.name}", subject, "Rolling back", "Removed", back),),
    )


def _retirement(old: list[Container], service: Service, timeout_s: int | None) -> tuple[Step, ...]:
    steps = (remove_container(container, timeout_s=timeout_s, service=service, drain=True) for container in old)
    return tuple(step for each in steps for step in each)


def _naming(create: Create, after: str) -> list[Step]:
    """The steps that give a running container the service's names on its networks."""
    subject = f"Container {create.name}"
    _, endpoints = networks_of(create.project, create.key, create.service, create.number)
    steps: list[Step] = []
    for network, endpoint in endpoints.items():
        leave = Call("POST", f"/networks/{network}/disconnect", body={"Container": create.name, "Force": True})
        join = Call("POST", f"/networks/{network}/connect", body={"Container": create.name, "EndpointConfig": endpoint})
        steps.append(Step(f"leave {network} {create.name}", subject, "", "", leave, (after,)))
        steps.append(Step(f"join {network} {create.name}", subject, "", "In service", join, (steps[-1].key,)))
        after = steps[-1].key
    return steps
