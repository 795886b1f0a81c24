"""`pre_start` hooks: containers that run to their end before a service's containers start.

    containers created, dependencies ready -> hook 0 -> hook 1 ... -> start
                                                |
                                                '-- fails: nothing is started, its container is kept for inspection

A hook has the volumes of the service's container, its networks without the service's names, and its environment. It
runs once, when no container of the service runs; with `per_replica` once for each container that is to be started.

Source: the Compose specification, "pre_start"; docker compose's requests.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from havre.client.api import Client
from havre.compose import COMPOSE_VERSION
from havre.compose import labels as label
from havre.compose.project import Project, Service, image_of
from havre.compose.references import resolved
from havre.compose.request import container_request
from havre.compose.state import State
from havre.compose.steps import Call, Prepare, Step
from havre.errors import Failed

_TAIL = "10"
_STDERR = 2


def prepare_steps(
    project: Project, state: State, name: str, starting: Sequence[str], after: tuple[str, ...], *, alone: bool
) -> tuple[list[Step], tuple[str, ...]]:
    """The steps of a service's hooks before its containers `starting` start, and the keys that these wait for then.

    `alone`: no other container of the service runs.
    """
    hooks = project.services[name].get("pre_start", ())
    steps: list[Step] = []
    if not hooks or not starting:
        return steps, after
    first = min(starting, key=lambda each: (len(each), each))  # by number
    for old in (container for container in state.hooks if container.service == name):
        call = Call("DELETE", f"/containers/{old.id}", {"force": "1", "v": "1"}, tolerated={404: ""})
        steps.append(Step(f"remove {old.id}", f"Container {old.name}", "", "", call, after))
    after += tuple(step.key for step in steps)
    for index, hook in enumerate(hooks):
        targets = starting if hook.get("per_replica") else [first] if alone else []
        made = [
            Step(key, f"Container {target}", "Hook", "", Prepare(project, name, index, target), after)
            for target, key in ((target, f"pre_start {index} {target}") for target in targets)
        ]
        steps += made
        after = tuple(step.key for step in made) or after
    return steps, after


def prepare(client: Client, action: Prepare, id_of: Callable[[str], str | None]) -> None:
    """Run a hook and remove its container. Raises Failed with the end of its output."""
    project, name = action.project, action.key
    service = resolved(_hook_service(project, name, action), id_of)
    labels = {label.PROJECT: project.name, label.SERVICE: name, label.VERSION: COMPOSE_VERSION, label.HOOK: "pre_start"}
    body = container_request(project, name, service, 0, labels, {}, aliases=False, proxies=client.proxies)
    query: dict[str, str | list[str]] = {"platform": service["platform"]} if service.get("platform") else {}
    identifier = client.post("/containers/create", query, body)["Id"]
    client.post(f"/containers/{identifier}/start")
    code = client.post(f"/containers/{identifier}/wait")["StatusCode"]
    if code:
        tail = _tail(client, identifier)
        kept = f"hook container {identifier[:12]} retained for inspection"
        text = f'service "{name}" pre_start[{action.number}] exited with code {code}'
        raise Failed(f"{text}: {tail} ({kept})" if tail else f"{text} ({kept})")
    client.call("DELETE", f"/containers/{identifier}", {"force": "1", "v": "1"}).read()


def _hook_service(project: Project, name: str, action: Prepare) -> Service:
    """The hook as a service of one container."""
    service = project.services[name]
    hook: dict[str, Any] = service["pre_start"][action.number]
    own_image = {} if hook.get("image") else {key: service.get(key, "") for key in ("user", "working_dir")}
    kept: Service = {key: service[key] for key in ("networks", "network_mode", "platform") if key in service}
    given = {key: hook[key] for key in ("user", "working_dir", "privileged", "command") if hook.get(key)}
    return {
        **kept,
        **own_image,
        **given,
        "image": hook.get("image") or image_of(service, name, project.name),
        "environment": {**service.get("environment", {}), **hook.get("environment", {})},
        "volumes_from": [f"container:{action.container}"],
    }


def _tail(client: Client, identifier: str) -> str:
    """The last lines that a container wrote to STDERR, or else to STDOUT."""
    query: dict[str, str | list[str]] = {"stdout": "1", "stderr": "1", "tail": _TAIL}
    data = client.call("GET", f"/containers/{identifier}/logs", query).read()
    texts = {1: b"", _STDERR: b""}
    while len(data) >= 8:  # frames: stream, three zeros, size (Docker API, "ContainerAttach")
        end = 8 + int.from_bytes(data[4:8], "big")
        texts[data[0]] = texts.get(data[0], b"") + data[8:end]
        data = data[end:]
    return (texts[_STDERR].strip() or texts[1].strip()).decode("utf-8", "replace")
