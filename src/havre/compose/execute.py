"""Executes a plan: every step as soon as the steps that it waits for are done, many in parallel.

After a failure no step is begun, running ones complete, and the first failure is raised. An interrupt does the same:
each
step is one change of the engine, so that the next plan continues from there.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import Any, NamedTuple, Protocol

from havre.client.api import Client
from havre.client.http import Response
from havre.compose.labels import container_labels
from havre.compose.mounts import injected_files
from havre.compose.plan import RUNNING_OR_HEALTHY
from havre.compose.prestart import prepare
from havre.compose.references import link_names, resolved
from havre.compose.request import container_request
from havre.compose.steps import Await, Build, Call, Create, Execute, Prepare, Provide, Pull, Push, Step
from havre.errors import Conflict, Failed, Forbidden, HavreError, NotFound, NotModified, Unavailable
from havre.golang.jsontext import encode
from havre.oci.names import split_tag, split_version

_STATUS: dict[type[HavreError], int] = {NotModified: 304, Forbidden: 403, NotFound: 404, Conflict: 409}
_MANY = 32
_TICK_S = 0.1
_ARRIVED = ("Pull complete", "Already exists", "Pushed", "Layer already exists", "Mounted from")


class View(Protocol):
    """Displays progress; called from one thread."""

    def show(self, subject: str, status: str, *, over: bool, failed: bool = False) -> None:
        """`subject` has a new status; `over` when it is final."""

    def tick(self, subject: str, lines: Sequence[str], said: Sequence[str]) -> None:
        """Show `lines` below `subject` until it has a new status; `said` is its output since the last call."""

    def close(self) -> None:
        """End the display."""


class _News(NamedTuple):
    """A message from a running step: its progress, its completion (`over`) and what to show, or its failure."""

    step: Step
    status: str = ""
    lines: Sequence[str] = ()
    said: Sequence[str] = ()
    over: bool = False
    error: BaseException | None = None


class Engine:
    """The engine; each thread has its own connection to it."""

    def __init__(
        self,
        connect: Callable[[], Client],
        credentials: Callable[[str], Mapping[str, str]],
        registries: Callable[[], str],
        unpack: Callable[[Iterator[bytes], str], None],
    ) -> None:
        self.connect = connect
        """Opens another client."""
        self._credentials = credentials
        self.registries = registries
        """The credentials of all registries, as builds take them."""
        self.unpack = unpack
        """Unpacks the archive of an OCI layout into a directory."""
        self._local = threading.local()

    @property
    def client(self) -> Client:
        """This thread's client."""
        if not hasattr(self._local, "client"):
            self._local.client = self.connect()
        client: Client = self._local.client
        return client

    def headers(self, image: str) -> dict[str, str]:
        """The credentials for an image's registry, as headers."""
        return dict(self._credentials(image))


def execute(
    steps: Sequence[Step], engine: Engine, view: View, *, limit: int = 0, deadline: float | None = None
) -> None:
    """Execute `steps`, at most `limit` in parallel; waiting ends at `deadline` (time.monotonic). Raises HavreError."""
    run = _Run(steps, engine, view, deadline)
    try:
        run.go(limit if limit > 0 else _MANY)
    finally:
        view.close()


class _Crew:
    """At most `limit` threads that execute steps; each reuses its connection.

    Not concurrent.futures: importing that takes longer than executing a plan without steps.
    """

    def __init__(self, act: Callable[[Step], str], limit: int) -> None:
        self._act = act
        self._limit = limit
        self._threads = 0
        self._given: SimpleQueue[Step | None] = SimpleQueue()
        self._news: SimpleQueue[_News] = SimpleQueue()
        self.busy = 0

    @property
    def full(self) -> bool:
        """Report whether another step would have to wait."""
        return self.busy >= self._limit

    def give(self, step: Step) -> None:
        """Execute a step in a thread."""
        self.busy += 1
        if self.busy > self._threads:
            self._threads += 1
            threading.Thread(target=self._work, daemon=True).start()
        self._given.put(step)

    def tell(self, step: Step, lines: Sequence[str], said: Sequence[str] = ()) -> None:
        """Report a step's progress and new output; called by the thread that executes it."""
        self._news.put(_News(step, lines=lines, said=said))

    def take(self) -> _News:
        """Wait for the next message."""
        news = self._news.get()
        self.busy -= news.over
        return news

    def dismiss(self) -> None:
        """Let the threads end after their current steps."""
        for _ in range(self._threads):
            self._given.put(None)

    def _work(self) -> None:
        while (step := self._given.get()) is not None:
            try:
                self._news.put(_News(step, self._act(step), over=True))
            except BaseException as error:  # noqa: BLE001 - raised by the thread that executes the plan
                self._news.put(_News(step, over=True, error=error))


class _Run:
    def __init__(self, steps: Sequence[Step], engine: Engine, view: View, deadline: float | None) -> None:
        self._waiting = list(steps)
        self._engine = engine
        self._view = view
        self._deadline = deadline
        self._done: set[str] = set()
        self._ids: dict[str, str] = {}
        self._names: dict[str, list[str]] = {}
        self._lock = threading.Lock()

    def go(self, limit: int) -> None:
        """Run until everything is done or a step failed."""
        crew = self._crew = _Crew(self._act, limit)
        failure: BaseException | None = None
        try:
            self._begin(crew)
            while crew.busy:
                news = crew.take()
                if not news.over:
                    if not news.step.doing:
                        continue
                    self._view.tick(news.step.subject, news.lines, news.said)
                    continue
                self._end(news.step, news.status, news.error)
                failure = failure or news.error
                if failure is None:
                    self._begin(crew)
        finally:
            crew.dismiss()
        if failure is not None:
            raise failure

    def _begin(self, crew: _Crew) -> None:
        """Begin all steps that are ready; steps without an action may make others ready."""
        progressed = True
        while progressed:
            progressed = False
            for step in list(self._waiting):
                if crew.full:
                    return
                if not self._done.issuperset(step.after):
                    continue
                self._waiting.remove(step)
                if step.action is None:
                    self._view.show(step.subject, step.done, over=True)
                    self._done.add(step.key)
                    progressed = True
                    continue
                if step.doing:
                    self._view.show(step.subject, step.doing, over=False)
                crew.give(step)

    def _end(self, step: Step, status: str, error: BaseException | None) -> None:
        if error is not None:
            self._view.show(step.subject, "Error", over=True, failed=True)
            return
        self._done.add(step.key)
        if status or step.done:
            self._view.show(step.subject, status or step.done, over=True)

    def _act(self, step: Step) -> str:
        """Execute a step's action; returns the text to show instead of its `done`, or ""."""
        match step.action:
            case Call() as call:
                return self._call(call)
            case Create() as create:
                self._create(create)
            case Await() as awaited:
                return self._await(awaited)
            case Execute() as command:
                self._hook(command)
            case Build() as build:
                from havre.compose.build import Means, build_image  # imported late: most plans build nothing

                means = Means(self._engine.registries(), self._engine.connect, self._engine.unpack)
                build_image(self._engine.client, build, means, partial(self._crew.tell, step))
            case Prepare() as hook:
                prepare(self._engine.client, hook, partial(self._id_of, hook.project.name))
            case Provide() as wanted:
                from havre.compose.provider import provide  # imported late: few projects have a provider

                if not provide(wanted, lambda text: self._crew.tell(step, [text], [text])):
                    return "Skipped"
            case Pull() as pull:
                return self._transfer(step, "/images/create", _pull_query(pull), pull.image, tolerate=pull.tolerate)
            case Push() as push:
                repository, query = _push_target(push.image)
                return self._transfer(step, f"/images/{repository}/push", query, push.image, tolerate=push.tolerate)
        return ""

    def _call(self, call: Call) -> str:
        try:
            self._engine.client.json(call.method, call.path, dict(call.query), call.body)
        except HavreError as error:
            status = _STATUS.get(type(error))
            if status is None or status not in call.tolerated:
                raise
            return call.tolerated[status]
        return ""

    def _id_of(self, project: str, service: str) -> str | None:
        from havre.compose.state import State, list_containers

        if service not in self._ids:
            found = State(list_containers(self._engine.client, project)).of(service)
            if not found:
                return None
            with self._lock:
                self._ids[service] = min(found, key=lambda container: container.name).id
                self._names[service] = [container.name for container in found]
        return self._ids[service]

    def _create(self, create: Create) -> None:
        project, client = create.project, self._engine.client
        service = resolved(create.service, lambda name: self._id_of(project.name, name))
        for link in service.get("links", ()):
            self._id_of(project.name, link.partition(":")[0])
        labels = container_labels(project, create.key, service, create.number, create.image.get("Id", ""))
        body = container_request(
            project,
            create.key,
            service,
            create.number,
            {**labels, **create.extra},
            dict(create.image),
            replaced=dict(create.replaced) if create.replaced and create.inherit else None,
            aliases=create.aliases,
            links=link_names(project.name, service, create.number, self._names),
            proxies=client.proxies,
        )
        if not create.ports:
            body["HostConfig"]["PortBindings"] = {}
        query: dict[str, str | list[str]] = {"name": create.name}
        if service.get("platform"):
            query["platform"] = service["platform"]
        identifier = client.post("/containers/create", query, body)["Id"]
        inject(client, identifier, injected_files(project, service))

    def _await(self, awaited: Await) -> str:
        events = self._subscribe(awaited.containers)  # before the first inspection, so that no event is missed
        try:
            if self._has_come(awaited):
                return ""
            for event in self._engine.client.messages(events):
                if not event["Action"].startswith("exec_") and self._has_come(awaited):
                    return ""
        except Failed as error:
            if awaited.required:
                raise
            return f"Skipped - optional dependency: {error.message}"
        finally:
            events.close()
        if self._deadline is None:
            raise Unavailable("the engine closed its stream of events")
        raise Unavailable("application not healthy after the time that was given")

    def _subscribe(self, containers: Sequence[str]) -> Response:
        """Events of the containers, until the deadline."""
        query: dict[str, str | list[str]] = {"filters": encode({"type": ["container"], "container": list(containers)})}
        if self._deadline is not None:
            query["until"] = f"{time.time() + self._deadline - time.monotonic():.6f}"
        return self._engine.client.call("GET", "/events", query)

    def _has_come(self, awaited: Await) -> bool:
        states = [self._engine.client.get(f"/containers/{name}/json") for name in awaited.containers]
        return sum(_reached(state, awaited) for state in states) == len(states)

    def _hook(self, action: Execute) -> None:
        hook, client = action.hook, self._engine.client
        body = {
            "User": hook.get("user", ""),
            "Privileged": hook.get("privileged", False),
            "WorkingDir": hook.get("working_dir", ""),
            "Env": [k if v is None else f"{k}={v}" for k, v in hook.get("environment", {}).items()],
            "Cmd": hook.get("command") or [],
            "AttachStdout": True,
            "AttachStderr": True,
        }
        identifier = client.post(f"/containers/{action.container}/exec", body=body)["Id"]
        client.call("POST", f"/exec/{identifier}/start", body={"Detach": False, "Tty": False}).read()
        code = client.get(f"/exec/{identifier}/json")["ExitCode"]
        if code:
            raise Failed(f"hook {' '.join(body['Cmd'])} exited with status {code}")

    def _transfer(self, step: Step, path: str, query: dict[str, str | list[str]], image: str, *, tolerate: bool) -> str:
        client, layers, shown = self._engine.client, Layers(), 0.0
        try:
            response = client.call("POST", path, query, headers=self._engine.headers(image))
            for message in client.messages(response):
                if error := message.get("error"):
                    raise Failed(str(error))
                lines = layers.update(message)
                if time.monotonic() - shown > _TICK_S:
                    shown = time.monotonic()
                    self._crew.tell(step, lines)
        except HavreError as error:
            if not tolerate:
                raise
            return f"Warning: {error.message}"
        return ""


class Layers:
    """The progress of an image's layers, from the messages of a pull or push."""

    def __init__(self) -> None:
        self._rows: dict[str, str] = {}

    def update(self, message: Mapping[str, Any]) -> list[str]:
        """Process a message; returns the lines of unfinished layers."""
        if layer := message.get("id"):
            status, detail = str(message.get("status", "")), message.get("progressDetail") or {}
            if status.startswith(_ARRIVED):
                self._rows.pop(layer, None)
            elif "progressDetail" in message or layer in self._rows:
                self._rows[layer] = f"{layer} {status}{_amount(detail)}"
        return list(self._rows.values())


def _amount(detail: Mapping[str, Any]) -> str:
    current, total = detail.get("current") or 0, detail.get("total") or 0
    return f" {current / 1e6:.1f} MB" + (f" of {total / 1e6:.1f} MB" if total else "") if current else ""


def _pull_query(pull: Pull) -> dict[str, str | list[str]]:
    name, version = split_version(pull.image)
    query: dict[str, str | list[str]] = {"fromImage": name, "tag": version or "latest"}
    return query | ({"platform": pull.platform} if pull.platform else {})


def _push_target(image: str) -> tuple[str, dict[str, str | list[str]]]:
    repository, tag = split_tag(image)
    return repository, {"tag": tag or "latest"}


def _reached(container: dict[str, Any], awaited: Await) -> bool:
    """Report whether a container is in the awaited state. Raises Failed when it can no longer reach it."""
    name, state = container["Name"].lstrip("/"), container["State"]
    if awaited.condition == "service_completed_successfully":
        if state["Status"] != "exited":
            return False
        if state["ExitCode"]:
            raise Failed(f'service "{awaited.service}" didn\'t complete successfully: exit {state["ExitCode"]}')
        return True
    if state["Status"] == "exited":
        raise Failed(f"dependency failed to start: container {name} exited ({state['ExitCode']})")
    health = state.get("Health")
    if health is None or health["Status"] in ("", "none"):
        if awaited.condition == RUNNING_OR_HEALTHY:
            return bool(state["Status"] == "running")
        raise Failed(f"dependency failed to start: container {name} has no healthcheck configured")
    if health["Status"] == "unhealthy":
        raise Failed(f"dependency failed to start: container {name} is unhealthy")
    return bool(health["Status"] == "healthy")


def inject(client: Client, container: str, files: list[tuple[str, dict[str, Any], str]]) -> None:
    """Write configs and secrets into a newly created container."""
    if not files:
        return
    from havre.tar.headers import end, header, padding

    pieces: list[bytes] = []
    owned = False
    for target, entry, content in files:
        data = content.encode("utf-8", "surrogateescape")
        uid, gid = (int(entry.get(key) or 0) for key in ("uid", "gid"))
        owned = owned or bool(entry.get("uid") or entry.get("gid"))
        path, mode = os.fsencode(target.lstrip("/")), int(entry.get("mode") or 0o444)
        head = header(path, mode=mode, uid=uid, gid=gid, size=len(data), mtime=int(time.time()))
        pieces += [head, data, padding(len(data))]
    query: dict[str, str | list[str]] = {"path": "/"}
    if owned:
        query["copyUIDGID"] = "1"
    client.call("PUT", f"/containers/{container}/archive", query, raw_body=[b"".join(pieces), end(0)]).read()
