"""Additional processes in a running container.

create --> start --> running --> ended (code) --> deleted with the container, or after five minutes
              '--> cannot start: code 126 or 127 (not found), the client gets the reason
"""

from __future__ import annotations

import secrets
import time
from collections.abc import AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from havre.aio import in_thread, spawn
from havre.containers.container import Container
from havre.containers.live import Index, Live
from havre.errors import Conflict, Failed, HavreError, InvalidInput, NotFound
from havre.events import Events
from havre.golang.gojson import Words
from havre.runtime import ExecPlan, check_accounts, resolve_user
from havre.runtime.exec import ExecProcess
from havre.runtime.fanout import Subscription
from havre.runtime.plan import User
from havre.wire.startfailures import container_exit_code
from havre.wire.values import Value

KEPT_S = 300.0
CANNOT_START = 126


class ExecSpec(Value):
    """The body of `POST /containers/{name}/exec`; `console_size` is [rows, columns]."""

    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    console_size: list[int] | None = None
    detach_keys: str = ""
    tty: bool = False
    env: list[str] | None = None
    cmd: Words | None = None
    privileged: bool = False
    user: str = ""
    working_dir: str = ""


@dataclass
class Exec:
    """One exec. `exit_code` is None until it ends; times in seconds since the epoch; `host_pid`: the container's."""

    id: str
    container_id: str
    spec: ExecSpec
    command: list[str]
    host_pid: int = 0
    running: bool = False
    started: bool = False
    exit_code: int | None = None
    pid: int = 0
    ended_at: float = 0.0
    process: ExecProcess | None = field(default=None, repr=False)

    @property
    def command_line(self) -> str:
        """The command as in Docker's events, which have a blank after a program without arguments."""
        program, *arguments = self.command
        return f"{program} {' '.join(arguments)}"


class ExecAttachment:
    """A client of a running exec; `output` ends after the exit code is known."""

    def __init__(self, exec: Exec, process: ExecProcess, output: Subscription | None) -> None:
        self._exec = exec
        self._process = process
        self._output = output
        self.tty = exec.spec.tty

    async def _read(self) -> AsyncIterator[tuple[int, bytes]]:
        if self._output is not None:
            async for chunk in self._output:
                yield chunk
        end = await self._process.wait()
        record_end(self._exec, end.code)

    @property
    def output(self) -> AsyncIterator[tuple[int, bytes]]:
        """The output of the process, as (stream, data)."""
        return self._read()

    async def write_stdin(self, data: bytes) -> None:
        """Write input."""
        if self._exec.spec.attach_stdin:
            await self._process.write_stdin(data)

    async def close_stdin(self) -> None:
        """End of the input."""
        if self._exec.spec.attach_stdin:
            await self._process.close_stdin()

    def close(self) -> None:
        """Detach; the process continues."""
        if self._output is not None:
            self._output.close()


def _terminal(spec: ExecSpec, container: Container) -> tuple[str, ...]:
    """TERM for a terminal; without one, removes the container's TERM unless it was configured."""
    if spec.tty:
        return ("TERM=xterm",)
    configured = any(variable.startswith("TERM=") for variable in container.spec.config.env or ())
    return () if configured else ("TERM",)


class Execs:
    """All execs."""

    def __init__(self, index: Index, events: Events) -> None:
        self._index = index
        self._events = events
        self._execs: dict[str, Exec] = {}

    def create(self, ref: str, spec: ExecSpec) -> Exec:
        """Register an exec in the container `ref`. Raises `NotFound`; `Conflict` unless it runs."""
        live = self._index.get(ref)
        if not spec.cmd:
            raise InvalidInput("No exec command specified")
        if spec.working_dir and not spec.working_dir.startswith("/"):
            raise InvalidInput(
                f"the working directory '{spec.working_dir}' is invalid, it needs to be an absolute path"
            )
        for variable in spec.env or ():
            if not variable.partition("=")[0]:
                raise InvalidInput(f"invalid environment variable: {variable}", "expected NAME=VALUE")
        self._check(live, ref)
        self._forget_old()
        exec = Exec(secrets.token_hex(32), live.container.id, spec, spec.cmd, live.running().pid)
        self._execs[exec.id] = exec
        self._publish(exec, "exec_create: " + exec.command_line)
        return exec

    def _check(self, live: Live, ref: str) -> None:
        container = live.container
        if container.state.restarting:
            raise Conflict(f"Container {container.id} is restarting, wait until the container is running")
        live.running()
        if container.state.paused:
            raise Conflict(f"Container {ref} is paused, unpause the container before exec")

    def get(self, id: str) -> Exec:
        """The exec with that ID. Raises `NotFound`."""
        exec = self._execs.get(id)
        if exec is None:
            raise NotFound(f"No such exec instance: {id}")
        return exec

    def ids_of(self, container_id: str) -> list[str]:
        """The running execs of a container."""
        return [exec.id for exec in self._execs.values() if exec.container_id == container_id and exec.running]

    async def start(self, id: str, console_size: tuple[int, int] | None, *, detach: bool = False) -> ExecAttachment:
        """Start it. Raises `Conflict` if it was started before; a start that fails sets its code and raises."""
        exec = self.get(id)
        live = self._index.get(exec.container_id)
        if exec.started:
            what = "is already running" if exec.running else "has already run"
            raise Conflict(f"Error: Exec command {id} {what}")
        if live.process is None or live.process.pid != exec.host_pid:  # the container has ended or was restarted
            raise NotFound(f"container {live.container.id} is not running")
        self._check(live, live.container.id)
        exec.started = exec.running = True
        self._publish(exec, "exec_start: " + exec.command_line)
        process: ExecProcess | None = None
        try:
            process = await self._prepare(exec, live, console_size, detach)
            output = self._subscribe(exec, process, detach)
            await process.start()
        except HavreError as error:
            record_end(exec, CANNOT_START if process is None else container_exit_code(error.message))
            raise
        exec.process, exec.pid = process, process.pid
        spawn(self._await_end(exec, process), f"exec {id[:12]}")
        return ExecAttachment(exec, process, output)

    async def start_detached(self, id: str) -> None:
        """Start an exec without a client. Failures are raised as `InvalidInput`."""
        try:
            attachment = await self.start(id, None, detach=True)
        except HavreError as error:
            raise error if error.status < 500 else InvalidInput(error.message) from None
        attachment.close()

    async def _prepare(self, exec: Exec, live: Live, console_size: tuple[int, int] | None, detach: bool) -> ExecProcess:
        spec = exec.spec
        process = live.running()
        user = await in_thread(_user, process.rootfs, spec.user, live.container.spec.host_config.group_add or ())
        size = console_size or (tuple(spec.console_size[:2]) if spec.console_size else None)
        plan = ExecPlan(
            args=tuple(exec.command),
            env=(*_terminal(spec, live.container), *(spec.env or ())),
            cwd=spec.working_dir,
            user=user,
            tty=spec.tty,
            open_stdin=spec.attach_stdin and not detach,
            console_size=size,  # type: ignore[arg-type]
            privileged=spec.privileged,
        )
        return process.exec(plan)

    def _subscribe(self, exec: Exec, process: ExecProcess, detach: bool) -> Subscription | None:
        spec = exec.spec
        if detach or not (spec.attach_stdout or spec.attach_stderr):
            return None
        return process.output.subscribe(stdout=spec.attach_stdout or spec.tty, stderr=spec.attach_stderr or spec.tty)

    async def _await_end(self, exec: Exec, process: ExecProcess) -> None:
        end = await process.wait()
        record_end(exec, end.code)
        self._publish(exec, "exec_die", exitCode=str(end.code))

    async def resize(self, id: str, rows: int, columns: int) -> None:
        """Set the size of its terminal. Raises `Failed` if it does not run."""
        exec = self.get(id)
        if exec.process is None or not exec.running:
            raise Failed(f"exec {id} is not running")
        await exec.process.resize(rows, columns)

    def detached(self, id: str) -> None:
        """Publish the event of a client that detached by its detach keys."""
        self._publish(self.get(id), "exec_detach")

    def forget(self, container_id: str) -> None:
        """Delete the execs of a removed container."""
        self._drop(exec for exec in self._execs.values() if exec.container_id == container_id)

    def _forget_old(self) -> None:
        limit = time.time() - KEPT_S
        self._drop(exec for exec in self._execs.values() if exec.ended_at and exec.ended_at < limit)

    def _drop(self, execs: Iterable[Exec]) -> None:
        for exec in list(execs):
            del self._execs[exec.id]

    def _publish(self, exec: Exec, action: str, **attributes: str) -> None:
        live = self._index.find(exec.container_id)
        container = live.container if live else None
        shown = {"execID": exec.id, **attributes}
        if container is not None:
            shown |= {
                **(container.spec.config.labels or {}),
                "image": container.spec.config.image,
                "name": container.name,
            }
        self._events.publish("container", action, exec.container_id, shown)


def _user(rootfs: Path, user: str, group_add: Sequence[str]) -> User | None:
    """The user to run as, with the container's additional groups; None for the container's user.

    Raises `InvalidInput`, also for account files that would block the OCI runtime (FIFOs, devices).
    """
    if user:
        return resolve_user(rootfs, user, group_add)
    check_accounts(rootfs)
    return None


def record_end(exec: Exec, code: int) -> None:
    """Record the end, once: later calls are ignored."""
    if exec.exit_code is None:
        exec.running, exec.exit_code, exec.ended_at, exec.process = False, code, time.time(), None
