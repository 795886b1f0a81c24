r"""A container's life: start, death, restart. The only place that changes what a container is doing.

                 start                      exit, policy says no
    created ------------> running ------------------------------> exited
       ^                  |     ^  \                                 |
       |            pause v     | unpause                            | start
       |                  paused                                     v
       |                         \-- exit, policy says yes --> restarting --(back-off)--> running
       '-- remove (from any state that does not run) --> removing --> gone

Each change happens under the container's lock. A start that fails is undone step by step; what is left is the row with
the error and Docker's exit code (127 not found, 126 not executable, 128 anything else). After an exit the clients that
wait are told first, then the surroundings are taken down, then the event `die` is told, after those of networks and
volumes as in Docker; all before the lock is released, so that whatever happens next finds everything gone.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path

from msgspec.structs import replace

from havre.aio import spawn
from havre.containers.container import Container, State
from havre.containers.life.health import HealthChecks, begin, cease, probe_command
from havre.containers.life.memory import MemoryWatch
from havre.containers.life.restart import Restart, decide_after_exit
from havre.containers.live import Index, Live
from havre.containers.streams.logbook import Logbook
from havre.containers.surroundings.assembly import Assembly
from havre.containers.surroundings.plan import plan_container
from havre.errors import Conflict, Failed, HavreError, NotModified, Unavailable
from havre.events import Events
from havre.networks.sandbox import Sandbox
from havre.runtime import Exit, Process, Runtime
from havre.wire import times
from havre.wire.config import EndpointSettings
from havre.wire.values import ZERO_TIME

log = logging.getLogger(__name__)

NOT_FOUND, NOT_EXECUTABLE, NOT_STARTED = 127, 126, 128
_NOT_FOUND_TEXTS = (
    *("executable file not found", "no such file or directory", "system cannot find the file specified"),
    "not a directory",
)
_NOT_EXECUTABLE_TEXTS = ("permission denied", "is a directory")


class Lifecycle:
    """Starts containers, watches them, and starts them again, unless it is `closing` with the host."""

    def __init__(
        self, index: Index, assembly: Assembly, runtime: Runtime, events: Events, health: HealthChecks, logs: Logbook
    ) -> None:
        self._index = index
        self._assembly = assembly
        self._runtime = runtime
        self._events = events
        self._health = health
        self.logs = logs
        self._memory = MemoryWatch(runtime.host.cgroups)
        self.auto_remove: Callable[[Live], Awaitable[None]] | None = None
        self.closing = False

    def publish(self, container: Container, action: str, **attributes: str) -> None:
        """Tell of something that happened to `container`; its labels, image and name are added."""
        labels = container.config.labels or {}
        told = {**labels, "image": container.config.image, "name": container.name, **attributes}
        self._events.publish("container", action, container.id, told)

    def publish_prune(self, reclaimed: int) -> None:
        """Tell that stopped containers were pruned, of `reclaimed` bytes."""
        self._events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})

    async def start(self, live: Live, images: Path | None = None) -> None:
        """Run it, from the checkpoint in `images` if that is given.

        Raises NotModified if it runs, Conflict while paused or being removed, else what went wrong. A container made
        with `--rm` that cannot start is removed.
        """
        live.cancel_restart()
        failed = False
        try:
            async with live.lock:
                self._prepare_start(live)
                failed = True
                await self._run(live, images)
                failed = False
        finally:
            if failed and live.container.host_config.auto_remove and self.auto_remove is not None:
                await self.auto_remove(live)

    def _prepare_start(self, live: Live) -> None:
        container = live.container
        self._index.check_sound(live)
        if self.closing:
            raise _closed(container)
        if live.removing or container.state.status in ("removing", "dead"):
            raise Conflict("container is marked for removal and cannot be started")
        if container.state.paused:
            raise Conflict("cannot start a paused container, try unpause instead")
        if live.process is not None:
            raise NotModified("container is already running")
        container.manually_stopped = live.stopping = False
        container.restart_count = 0
        live.last_delay_s = 0.0

    async def _run(self, live: Live, images: Path | None = None) -> None:
        """Start it, under the lock; on failure everything is undone and the row says why."""
        try:
            with self._runtime.room.for_start():
                async with asyncio.timeout(None) as live.launch, AsyncExitStack() as undo:
                    await self._launch(live, undo, images)
                    undo.pop_all()
        except HavreError as error:
            await self._failed(live, error)
            raise
        except OSError as error:
            if live.launch is not None and live.launch.expired():
                abandoned = self._abandoned(live.container)
                await self._failed(live, abandoned)
                raise abandoned from None
            failure = Failed(f"starting container {live.container.id}: {error}")
            await self._failed(live, failure)
            raise failure from error
        finally:
            live.launch = None

    def _abandoned(self, container: Container) -> HavreError:
        if self.closing:
            return _closed(container)
        return Conflict(f"container {container.id} was removed while it was being started")

    async def _launch(self, live: Live, undo: AsyncExitStack, images: Path | None) -> None:
        container = live.container
        container.networks = {name: replace(asked) for name, asked in container.asked_networks.items()}
        found, sandbox = await self._assembly.put_up(container, undo)
        plan = plan_container(container, found)
        spool = await self.logs.open(container)
        undo.push_async_callback(self.logs.end, container)
        undo.push_async_callback(self._runtime.cleanup, container.id)
        process = await self._runtime.create(container.id, plan, spool, images)
        self._assembly.is_held(container)
        undo.callback(process.recorded.set)
        for attachment in live.pending:
            attachment.bind(process)
        live.pending.clear()
        await process.start()
        _record_start(container, process, sandbox)
        live.process = process
        await self._index.save(container)
        self.publish(container, "start")
        self.watch(live, process)

    async def _failed(self, live: Live, error: HavreError) -> None:
        container = live.container
        live.process = None
        for attachment in live.pending:
            attachment.end()
        live.pending.clear()
        state = container.state
        container.state = State(
            status="created" if state.started_at == ZERO_TIME else "exited",
            exit_code=exit_code_of(error.message),
            error=error.message,
            started_at=state.started_at,
            finished_at=state.finished_at,
            health=cease(state.health),
        )
        container.networks, container.ports = idle_networks(container), {}
        await self._index.note(container)

    def watch(self, live: Live, process: Process) -> None:
        """See `process` to its end, in the background; probe its health, and keep its log."""
        container = live.container
        if not container.state.paused:
            self.probe(live)
        self.logs.watch(container, process)
        live.oom_told = False
        self._memory.watch(process, lambda: self._out_of_memory(live, process))
        spawn(self._await_end(live, process), f"watch {live.container.id[:12]}")

    def probe(self, live: Live) -> None:
        """Run its health checks, if it has any; idempotent."""
        self._health.watch(live, lambda live, action: self.publish(live.container, action))

    def stop_probing(self, live: Live) -> None:
        """Run no health checks while it is paused; idempotent."""
        self._health.leave(live)

    async def _await_end(self, live: Live, process: Process) -> None:
        exit = await process.wait()
        self._memory.leave(process)
        await self.ended(live, exit)

    async def ended(self, live: Live, exit: Exit) -> None:
        """Record an end, take everything down, and do what the policy wants."""
        async with live.lock:
            container = live.container
            await self.logs.end(container)
            restart = self._decide(live, exit)
            self.stop_probing(live)
            published, alone, process = bool(container.ports), _ends_alone(live), live.process
            _record_exit(container, exit, restart)
            self._assembly.leave(container)
            live.process = None
            if exit.oom_killed and not live.oom_told:
                self.publish(container, "oom")
            if not published:
                _tell_waiters(live, process)
            leaves = restart is None and _goes_with_exit(live) and self.auto_remove is not None
            try:
                if not leaves:
                    await self._index.note(container)  # before conmon's record of the end is removed
                if leaves and alone:  # the rest can wait until who waits for the removal has been told
                    await self._take_down(container)
                else:
                    await self._clear(container)
            except (HavreError, OSError) as error:  # the removal, or the next start, tries again
                log.error("what was around container %s is not taken down: %s", container.id, error)
            finally:
                self._tell_end(container, exit)
                _tell_waiters(live, process)
        if restart is not None and not self.closing:
            live.restart = spawn(self._restart_later(live, restart), f"restart {container.id[:12]}")
        if leaves and self.auto_remove is not None:
            await self.auto_remove(live)

    async def _clear(self, container: Container) -> None:
        # Both at once: no process is left that could still use what is taken down.
        cleaned = spawn(self._runtime.cleanup(container.id), f"clean up {container.id[:12]}")
        try:
            await self._take_down(container)
        finally:
            await cleaned

    async def _take_down(self, container: Container) -> None:
        await self._assembly.take_down(container)
        self._assembly.tell_unmounts(container)

    def _decide(self, live: Live, exit: Exit) -> Restart | None:
        container = live.container
        ran_s = exit.finished_at - times.parse(container.state.started_at)
        restart = decide_after_exit(
            container.host_config.restart_policy,
            exit_code=exit.code,
            stopped_by_user=live.stopping or container.manually_stopped,
            restarts=container.restart_count,
            ran_s=ran_s,
            last_delay_s=live.last_delay_s,
        )
        live.last_delay_s = restart.delay_s if restart else 0.0
        container.restart_count += restart is not None  # the one that it waits for counts, as in Docker
        return restart

    def _out_of_memory(self, live: Live, process: Process) -> None:
        if live.process is process:
            live.oom_told = live.container.state.oom_killed = True
            self.publish(live.container, "oom")
            spawn(self._index.save(live.container), f"save {live.container.id[:12]}")

    def _tell_end(self, container: Container, exit: Exit) -> None:
        ran_s = max(0.0, exit.finished_at - times.parse(container.state.started_at))
        self.publish(container, "die", exitCode=str(exit.code), execDuration=str(int(ran_s)))

    async def _restart_later(self, live: Live, restart: Restart) -> None:
        await asyncio.sleep(restart.delay_s)
        async with live.lock:
            live.restart = None
            if live.process is not None or live.stopping or live.removing or self.closing:
                return
            try:
                await self._run(live)
            except HavreError as error:
                log.warning("restart of container %s failed: %s", live.container.id, error)


def _closed(container: Container) -> Unavailable:
    return Unavailable(f"cannot start container {container.id}: the host is shutting down")


def _tell_waiters(live: Live, process: Process | None) -> None:
    """Who waits for the end, and who reads its output: what they see next is a container that does not run."""
    if process is not None:
        process.recorded.set()
    live.exits.exited(live.result())


def exit_code_of(error: str) -> int:
    """The exit code that Docker gives to a container that could not be started, by the error's text."""
    text = error.lower()
    if any(wanted in text for wanted in _NOT_EXECUTABLE_TEXTS):
        return NOT_EXECUTABLE
    if any(wanted in text for wanted in _NOT_FOUND_TEXTS):
        return NOT_FOUND
    return NOT_STARTED


def _goes_with_exit(live: Live) -> bool:
    return live.container.host_config.auto_remove and not live.restarted_by_user


def _ends_alone(live: Live) -> bool:
    """Whether nothing runs after its first process: no hooks, nor processes that the kernel does not end with it."""
    return not (live.container.host_config.pid_mode or (live.process is not None and live.process.has_hooks))


def idle_networks(container: Container) -> dict[str, EndpointSettings]:
    """The networks of a container that does not run: as asked for, with the identifiers known from the last run."""
    known = {name: endpoint.network_id for name, endpoint in container.networks.items()}
    return {
        name: replace(asked, network_id=known.get(name) or asked.network_id)
        for name, asked in container.asked_networks.items()
    }


def _record_start(container: Container, process: Process, sandbox: Sandbox) -> None:
    container.state = State(
        status="running",
        running=True,
        pid=process.pid,
        started_at=times.now(),
        finished_at=container.state.finished_at,
        health=begin(container.state.health) if probe_command(container.config) else None,
    )
    container.apparmor_profile = process.apparmor_profile
    if not container.host_config.network_mode.startswith("container:"):
        container.networks, container.ports = dict(sandbox.endpoints), dict(sandbox.ports)


def _record_exit(container: Container, exit: Exit, restart: Restart | None) -> None:
    container.state = State(
        status="restarting" if restart else "exited",
        running=restart is not None,
        restarting=restart is not None,
        oom_killed=exit.oom_killed,
        exit_code=exit.code,
        started_at=container.state.started_at,
        finished_at=times.from_seconds(exit.finished_at),
        health=cease(container.state.health),
    )
    container.networks, container.ports = idle_networks(container), {}
