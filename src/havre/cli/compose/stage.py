"""A scene with an engine: observes a project, and executes or prints plans."""

from __future__ import annotations

import os
import sys
import time
from threading import current_thread, main_thread

from havre.cli.compose.scene import Scene
from havre.cli.parser import StatusError
from havre.compose.state import State, list_containers, observe
from havre.errors import Conflict

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from havre.cli.session import Session
    from havre.client.api import Client
    from havre.compose.execute import Engine
    from havre.compose.project import Project
    from havre.compose.state import Container
    from havre.compose.steps import Step
    from havre.golang.flags import Options


class Stage(Scene):
    """A scene with an engine."""

    def __init__(self, session: Session, options: Options) -> None:
        super().__init__(session, options)
        self._engine: Engine | None = None
        compatible = self.group.compatibility or os.environ.get("COMPOSE_COMPATIBILITY", "").lower() in ("1", "true")
        self.progress: str = self.group.progress
        self.separator = "_" if compatible else "-"

    @property
    def engine(self) -> Engine:
        """The engine for plans, created at first use: read-only verbs do not need it."""
        if self._engine is None:
            from havre.cli.pull import registry_headers
            from havre.client.buildsend import registry_config
            from havre.compose.execute import Engine

            session = self.session
            self._engine = Engine(
                session.new_client,
                lambda image: registry_headers(session, image),
                lambda: registry_config(session.config),
                _unpack,
            )
        return self._engine

    @property
    def client(self) -> Client:
        """The engine's client for the current thread."""
        return self.session.client if current_thread() is main_thread() else self.engine.client

    def share_terminal(self, progress: str = "plain") -> None:
        """Others write to the terminal from now on: nothing may be redrawn."""
        if self.progress in ("auto", "tty", "plain"):
            self.progress = progress

    def carry_out(self, steps: Sequence[Step], *, timeout_s: float = 0, quiet: bool = False) -> None:
        """Execute a plan, or print it with --dry-run. Raises HavreError."""
        if self.dry_run:
            sys.stdout.write("".join(describe(step) + "\n" for step in steps if step.action is not None))
            return
        if not steps:
            return
        from havre.cli.compose.view import choose
        from havre.compose.execute import execute
        from havre.compose.steps import Build

        if builds := [step.action for step in steps if isinstance(step.action, Build)]:
            from havre.compose.build import unsupported

            for text in unsupported(self.client, builds):
                self.session.warn(f"warning: {text}")
        view = choose(sys.stderr, "quiet" if quiet else self.progress, self.group.ansi)
        limit = self.group.parallel
        if "parallel" not in self.group.given:
            limit = int(os.environ.get("COMPOSE_PARALLEL_LIMIT") or -1)
        deadline = time.monotonic() + timeout_s if timeout_s else None
        sys.stdout.flush()
        execute(steps, self.engine, view, limit=limit, deadline=deadline)

    def observed(self, services: Sequence[str]) -> tuple[Project, State]:
        """The project, from the files or else from the containers' labels, and its state. Raises StatusError."""
        project, name = self.project_or_name(services)
        if project is None:
            networks = {row["Name"]: row for row in self.client.get("/networks")}
            volumes = {row["Name"]: row for row in self.client.get("/volumes")["Volumes"] or ()}
            state = State(list_containers(self.client, name), networks, volumes)
            from havre.compose.down import project_of

            project = project_of(name, state)
        else:
            state = observe(self.client, project)
        for service in services:
            if service not in project.services:
                raise StatusError(1, f"no such service: {service}")
        return project, state

    def containers(self, services: Sequence[str], *, all: bool = True, one_off: bool = False) -> list[Container]:
        """The project's containers, optionally only those of some services. Raises StatusError."""
        project, name = self.project_or_name(services)
        found = list_containers(self.client, name, all=all)
        known = {*(project.services if project else ()), *(c.service for c in found)}
        for service in services:
            if service not in known:
                raise StatusError(1, f"no such service: {service}")
        wanted = [c for c in found if (not services or c.service in services) and (one_off or not c.one_off)]
        return sorted(wanted, key=lambda c: (c.service, c.one_off, c.number, c.name))

    def container(self, service: str, index: int, *, all: bool = False, one_off: bool = False) -> Container:
        """One container of a service, with `one_off` at last one of `run`. Raises StatusError, Conflict."""
        found = [c for c in self.containers([service], all=all, one_off=one_off) if not index or c.number == index]
        if not found:
            numbered = f" container #{index}" if index else ""
            raise Conflict(f'service "{service}" is not running{numbered}')
        return found[0]


def describe(step: Step) -> str:
    """A step as a line of a plan."""
    from havre.compose.steps import Await, Call, Create

    match step.action:
        case Call() as call:
            text = f"{call.method} {call.path}"
        case Create() as create:
            text = f"create container {create.name}"
        case Await() as awaited:
            text = f"until {awaited.condition}"
        case action:
            text = type(action).__name__.lower()
    after = f"  after {', '.join(step.after)}" if step.after else ""
    return f"{step.key}: {text}{after}"


def _unpack(pieces: Iterator[bytes], directory: str) -> None:
    from havre.cli.buildoutput import unpack_layout

    unpack_layout(pieces, directory)
