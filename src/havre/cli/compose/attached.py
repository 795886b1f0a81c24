"""`up` in the foreground: prints the containers' output until all have ended or are stopped.

engine's events --> queue --+--> start:   a thread prints the container's output from then on
thread that starts ---------'    die:     one fewer runs; the last end is ours
                                 started: wait for the start events of all containers that have run by then
^C: stop all, a second ^C: kill all
"""

from __future__ import annotations

import queue
import signal
import threading

from havre.cli.compose.logs import Printer, coloured, shown_name
from havre.cli.logs import timestamp
from havre.compose import labels as label
from havre.compose.down import plan_simple, plan_stop
from havre.compose.project import scale_of
from havre.compose.state import Container, State, list_containers
from havre.errors import HavreError
from havre.golang.jsontext import encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from havre.cli.compose.stage import Stage
    from havre.compose.project import Project
    from havre.golang.flags import Options

INTERRUPTED = 130
NEVER = "0001-01-01T00:00:00Z"


class Attached:
    """One `up` in the foreground."""

    def __init__(self, stage: Stage, project: Project, options: Options, services: list[str]) -> None:
        self._stage = stage
        self._project = project
        self._failures_only = options.abort_on_container_failure
        self._abort = options.abort_on_container_exit or self._failures_only or bool(options.exit_code_from)
        self._code_from = options.exit_code_from
        if self._code_from:
            project.service(self._code_from)
        self._stays = options.watch
        self._shown = _shown(project, options, services)
        self._printer = Printer(colour=coloured(stage, never=options.no_color), prefix=not options.no_log_prefix)
        self._timestamps = options.timestamps
        self._queue: queue.Queue[tuple[str, Any]] = queue.Queue()
        self._alive: set[str] = set()
        self._since: dict[str, str] = {}
        self._starts: dict[str, str] = {}
        self._awaited: set[str] = set()
        self._pumps: list[threading.Thread] = []
        self._started = False
        self._stopping = False
        self._code: int | None = None

    def run(self, begin: Callable[[], None]) -> int:
        """Start with `begin` and print until the end; returns the exit code. Raises HavreError."""
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        self._stage.share_terminal()
        events = self._events()
        for container in self._own():
            state = self._state_of(container.id)
            self._starts[container.id] = state.get("StartedAt", "")
            if container.state == "running":
                self._watch(container.id, now=True)
            elif container.state != "created" and state:
                self._since[container.id] = timestamp(state["FinishedAt"])
        threading.Thread(target=self._listen, args=(events,), daemon=True).start()
        starting = threading.Thread(target=self._begin, args=(begin,), daemon=True)
        starting.start()
        try:
            self._loop()
        except KeyboardInterrupt:
            return self._interrupted(starting)
        for pump in self._pumps:
            pump.join()
        return self._code or 0

    def _own(self) -> list[Container]:
        found = list_containers(self._stage.session.new_client(), self._project.name)
        return [
            container for container in found if container.service in self._project.services and not container.one_off
        ]

    def _events(self) -> Any:
        filters = encode({"type": ["container"], "label": [f"{label.PROJECT}={self._project.name}"]})
        client = self._stage.session.new_client()
        return client.messages(client.call("GET", "/events", {"filters": filters}))

    def _listen(self, events: Any) -> None:
        try:
            for event in events:
                if event["Action"] in ("start", "die"):
                    self._queue.put((event["Action"], event))
        except HavreError as error:
            self._queue.put(("failed", error))

    def _begin(self, begin: Callable[[], None]) -> None:
        try:
            begin()
        except HavreError as error:
            self._queue.put(("failed", error))
        else:
            self._queue.put(("started", None))

    def _loop(self) -> None:
        seen: set[str] = set()
        while self._stays or not self._started or self._alive or self._awaited:
            what, detail = self._queue.get()
            if what == "failed":
                raise detail
            if what == "started":
                self._started = True
                self._awaited = self._have_run() - seen
            elif what == "start":
                identifier = detail["Actor"]["ID"]
                seen.add(identifier)
                self._awaited.discard(identifier)
                self._watch(identifier)
            else:
                self._died(detail)

    def _have_run(self) -> set[str]:
        """The containers started since the beginning."""
        began = {container.id: self._state_of(container.id).get("StartedAt", "") for container in self._own()}
        return {each for each, at in began.items() if at > self._starts.get(each, NEVER)}

    def _state_of(self, identifier: str) -> dict[str, Any]:
        try:
            state: dict[str, Any] = self._stage.engine.client.get(f"/containers/{identifier}/json")["State"]
        except HavreError:  # removed already
            return {}
        return state

    def _watch(self, identifier: str, *, now: bool = False) -> None:
        """Print a container's output since its present start, or from now on."""
        client = self._stage.session.new_client()
        try:
            details = client.get(f"/containers/{identifier}/json")
        except HavreError:  # removed already
            return
        labels = details["Config"]["Labels"]
        if (
            labels.get(label.ONE_OFF) == "True"
            or label.HOOK in labels
            or labels.get(label.SERVICE) not in self._project.services
        ):
            return
        self._alive.add(identifier)
        if labels[label.SERVICE] not in self._shown:
            return
        name = shown_name(Container({"Id": identifier, "Names": [details["Name"]]}), self._project.name)
        self._printer.expect((name,))
        query: dict[str, str | list[str]] = {"follow": "1"}
        if now:
            query["tail"] = "0"
        elif identifier in self._since:
            query["since"] = self._since[identifier]
        if self._timestamps:
            query["timestamps"] = "1"

        def pump() -> None:
            try:
                self._printer.pump(client, identifier, name, query, tty=details["Config"]["Tty"])
            except HavreError as error:
                self._printer.say(f"{name}: {error}")

        thread = threading.Thread(target=pump, daemon=True)
        self._pumps.append(thread)
        thread.start()

    def _died(self, event: dict[str, Any]) -> None:
        identifier, attributes = event["Actor"]["ID"], event["Actor"]["Attributes"]
        if identifier not in self._alive:
            return
        self._since[identifier] = f"{event['timeNano'] // 10**9}.{event['timeNano'] % 10**9:09d}"
        code = int(attributes.get("exitCode") or 0)
        name = shown_name(Container({"Id": identifier, "Names": [attributes["name"]]}), self._project.name)
        service = attributes.get(label.SERVICE, "")
        if service in self._shown:
            self._printer.say(f"{name} exited with code {code}")
        if not self._restarts(identifier):
            self._alive.discard(identifier)
        if self._abort and not self._stopping and (code or not self._failures_only):
            if self._code is None and self._code_from in ("", service):
                self._code = code
            self._printer.say(f"Aborting on container {'failure' if self._failures_only else 'exit'}...")
            self._stopping = True
            threading.Thread(target=self._begin, args=(self._stop,), daemon=True).start()
        elif self._abort and self._code is None and service == self._code_from:
            self._code = code

    def _restarts(self, identifier: str) -> bool:
        return bool(self._state_of(identifier).get("Restarting"))

    def _stop(self) -> None:
        state = State(tuple(self._own()))
        self._stage.carry_out(plan_stop(self._project, state, (), None))

    def _interrupted(self, starting: threading.Thread) -> int:
        self._printer.say("Gracefully stopping... (press Ctrl+C again to force)")
        unfinished = starting.is_alive()
        try:
            self._stop()
            if unfinished:  # containers have started meanwhile
                starting.join()
                self._stop()
        except KeyboardInterrupt:
            state = State(tuple(self._own()))
            words, query = ("Killing", "Killed"), {"signal": "SIGKILL"}
            self._stage.carry_out(plan_simple(self._project, state, (), "kill", words, query, ("running",)))
        return INTERRUPTED


def _shown(project: Project, options: Options, services: list[str]) -> set[str]:
    """The services whose output is printed."""
    if options.attach:
        return set(options.attach)
    names = set(services if services and not options.attach_dependencies else project.services)
    names = {name for name in names if project.services[name].get("attach") is not False}
    return {name for name in names if scale_of(project.services[name])} - set(options.no_attach)
