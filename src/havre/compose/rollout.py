"""`up --rollout`: a service's stale containers replaced one after another, each only when its successor is healthy.

    create new -> start -> until it runs or is healthy -> gets the service's names -> old one: drain, stop, remove
                                     |                                                then the next one
                                     '-- it does not: it is removed, the old ones run on, the command fails

The new container has a number of its own beside the old one, and is known by the service's names on its networks only
when it is healthy: it leaves each network and joins it again with them. The old one is stopped with `drain`: our engine
first forgets its names and lets it answer what it was asked; Docker's reads over that, and a client may then meet a
container that is ending. A fixed port of the host, or a fixed address, can only belong to one container: a service with
one is refused.
"""

from __future__ import annotations

from typing import NamedTuple

from havre.compose import labels as label
from havre.compose.labels import container_name
from havre.compose.plan import RUNNING_OR_HEALTHY, remove_container
from havre.compose.project import Project, image_of, service_hash
from havre.compose.request import networks_of
from havre.compose.state import Container, State
from havre.compose.steps import Await, Call, Create, Step
from havre.errors import Unsupported


class Replacement(NamedTuple):
    """One container's replacement: the steps up to a healthy successor, those that end the old one, and the undoing."""

    forward: tuple[Step, ...]
    retire: tuple[Step, ...]
    undo: tuple[Step, ...]


def plan_rollout(project: Project, state: State, name: str, timeout_s: int | None, separator: str) -> list[Replacement]:
    """The replacements of a service's stale containers, in order. Raises Unsupported."""
    service = project.services[name]
    image = state.images.get(image_of(service, name, project.name), {})
    wanted = (service_hash(service), image.get("Id", ""))
    existing = state.of(name)
    stale = [c for c in existing if (c.labels.get(label.CONFIG_HASH), c.labels.get(label.IMAGE, "")) != wanted]
    if not stale:
        return []
    _check(project, name)
    number = max(container.number for container in existing)
    plans = []
    for old in stale:
        number += 1
        target = container_name(project.name, name, service, number, separator)
        create = Create(project, name, service, number, target, image, aliases=False)
        plans.append(_replacement(create, old, timeout_s))
    return plans


def _check(project: Project, name: str) -> None:
    service = project.services[name]
    for port in service.get("ports", ()):
        if port.get("published") and "-" not in port["published"]:
            raise Unsupported(
                f"service {name} cannot be rolled out: it publishes port {port['published']} of the host, which two "
                "containers cannot hold at once",
                "publish a range of ports, or put a proxy in front",
            )
    addresses = ("ipv4_address", "ipv6_address")
    if any((own or {}).get(key) for own in (service.get("networks") or {}).values() for key in addresses):
        raise Unsupported(f"service {name} cannot be rolled out: two containers cannot have its fixed address")
    if service.get("container_name"):
        raise Unsupported(f"service {name} cannot be rolled out: its container_name is for one container alone")


def _replacement(create: Create, old: Container, timeout_s: int | None) -> Replacement:
    subject = f"Container {create.name}"
    made = Step(f"create {create.name}", subject, "Creating", "Created", create)
    call = Call("POST", f"/containers/{create.name}/start")
    start = Step(f"start {create.name}", subject, "Starting", "Started", call, (made.key,))
    condition = Await((create.name,), create.key, RUNNING_OR_HEALTHY)
    healthy = Step(f"await {create.name}", subject, "Waiting", "Healthy", condition, (start.key,))
    named = _naming(create, healthy.key)
    back = Call("DELETE", f"/containers/{create.name}", {"force": "1", "v": "1"}, tolerated={404: ""})
    return Replacement(
        forward=(made, start, healthy, *named),
        retire=tuple(remove_container(old, timeout_s=timeout_s, service=create.service, drain=True)),
        undo=(Step(f"undo {create.name}", subject, "Rolling back", "Removed", back),),
    )


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
