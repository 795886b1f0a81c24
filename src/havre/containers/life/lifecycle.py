"""Executes containers' lives: passes events to the machine and carries out the effects that it returns.

    turn        decides, at once                        (`machine.decide`; updates the row in memory)
    carry_out   executes effects in order               a failure skips the rest; results are fed back as events
    feed        both

Effects that take time are executed under the container's lock. A failed start is undone step by step; the row then has
the error and Docker's exit code (127 not found, 126 not executable, 128 otherwise).
"""

from __future__ import annotations

import asyncio
import logging
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from pathlib import Path

from msgspec.structs import replace

from havre.aio import spawn
from havre.containers.container import Container
from havre.containers.exits import WaitResult
from havre.containers.life.draining import Draining
from havre.containers.life.erasure import Erasure, why_not_removed
from havre.containers.life.health import HealthChecks
from havre.containers.life.machine import decide
from havre.containers.life.memory import MemoryWatch
from havre.containers.life.vocabulary import (
    AbandonLaunch,
    BeginHealth,
    CancelRestart,
    CeaseHealth,
    CleanUp,
    DelayOver,
    Drain,
    Effect,
    Effects,
    Ended,
    EndPending,
    EndRun,
    Event,
    Freeze,
    Frozen,
    Launch,
    OutOfMemory,
    Persist,
    Publish,
    RemovalFailed,
    Remove,
    ScheduleRestart,
    Signal,
    StartAsked,
    Started,
    StartFailed,
    TakeDown,
    Thaw,
    Thawed,
    WakeWaiters,
)
from havre.containers.live import Index, Live
from havre.containers.networking import idle_networks
from havre.containers.states import Starting
from havre.containers.streams.logbook import Logbook
from havre.containers.surroundings.assembly import Assembly
from havre.containers.surroundings.plan import plan_container
from havre.errors import Conflict, Failed, HavreError, Unavailable
from havre.events import Events
from havre.networks.sandbox import Sandbox
from havre.runtime import Exit, Process, Runtime
from havre.wire import times
from havre.wire.startfailures import container_exit_code

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Around:
    """The collaborators of the executor."""

    assembly: Assembly
    runtime: Runtime
    health: HealthChecks
    draining: Draining
    erasure: Erasure


class Lifecycle:
    """Executes effects. After `closing` is set (the host shuts down), nothing starts."""

    def __init__(self, index: Index, around: Around, events: Events, logs: Logbook) -> None:
        self._index = index
        self._assembly = around.assembly
        self._runtime = around.runtime
        self._health = around.health
        self._draining = around.draining
        self._erasure = around.erasure
        self._events = events
        self.logs = logs
        self._memory = MemoryWatch(around.runtime.host.cgroups)
        self.closing = False

    def publish(self, container: Container, action: str, **attributes: str) -> None:
        """Publish an event of `container`, with its labels, image and name."""
        labels = container.spec.config.labels or {}
        shown = {**labels, "image": container.spec.config.image, "name": container.name, **attributes}
        self._events.publish("container", action, container.id, shown)

    def publish_prune(self, reclaimed: int) -> None:
        """Publish the event of a prune that freed `reclaimed` bytes."""
        self._events.publish("container", "prune", "", {"reclaimed": str(reclaimed)})

    # -- the machine

    def turn(self, live: Live, event: Event) -> Effects:
        """The effects of `event`. Raises if the event is refused."""
        life, effects = decide(live.life, event)
        if life is not live.life:
            live.become(life)
        return effects

    async def feed(self, live: Live, event: Event) -> None:
        """Process `event` and carry out its effects."""
        await self.carry_out(live, self.turn(live, event))

    async def carry_out(self, live: Live, effects: Effects) -> None:
        """Execute effects in order. The first failure is raised, and the rest is skipped."""
        process = live.process
        for effect in effects:
            if not isinstance(effect, Signal | Freeze | Thaw | Drain):
                await self._act(live, effect)
            elif process is not None:
                await self._act_on(live, process, effect)
            else:
                raise Conflict(f"container {live.container.id} is not running")

    async def _act(self, live: Live, effect: Effect) -> None:
        match effect:
            case Launch(images):
                await self._launch(live, images)
            case AbandonLaunch():
                live.abandon_launch()
            case EndPending():
                _end_pending(live)
            case Persist(must):
                await (self._index.save if must else self._index.note)(live.container)
            case Publish(action, attributes):
                self.publish(live.container, action, **attributes)
            case EndRun():
                self._end_run(live)
            case TakeDown(bundle):
                await self._take_down(live.container, bundle)
            case WakeWaiters("removed", code, error):
                live.exits.not_removed(WaitResult(code, error))
            case WakeWaiters(_, code, error):
                live.exits.exited(WaitResult(code, error))
            case ScheduleRestart(delay_s) if not self.closing:
                live.restart = spawn(self._restart_later(live, delay_s), f"restart {live.container.id[:12]}")
            case CancelRestart():
                live.cancel_restart()
            case BeginHealth() if live.damaged is None:
                self._health.watch(live, self.feed)
            case CeaseHealth():
                self._health.leave(live)
            case Remove(volumes, later):
                await self._remove(live, volumes=volumes, later=later)
            case CleanUp():
                await self._runtime.cleanup(live.container.id)

    async def _act_on(self, live: Live, process: Process, effect: Signal | Freeze | Thaw | Drain) -> None:
        match effect:
            case Signal(number):
                await process.kill(number)
            case Drain(patience_s):
                await self._draining.run(live, patience_s)
            case Freeze():
                await process.pause()
                await self.feed(live, Frozen())
            case Thaw(publish=True):
                await process.resume()
                await self.feed(live, Thawed())
            case Thaw():
                # With cgroup v1 a frozen process dies only when thawed; with v2 SIGKILL ends it at once
                # (Documentation/admin-guide/cgroup-v2.rst, cgroup.freeze).
                with suppress(Conflict):
                    await process.resume()
                await self.feed(live, Thawed(publish=False))

    # -- start

    async def start(self, live: Live, images: Path | None = None) -> None:
        """Start it, from the checkpoint in `images` if given.

        Raises `NotModified` if it runs, `Conflict` while it is paused or being removed, or the error of the start. A
        container with `--rm` that cannot start is removed.
        """
        async with live.lock:
            self._index.check_sound(live)
            await self.feed(live, StartAsked(self.closing, images))

    async def _launch(self, live: Live, images: Path | None) -> None:
        """Start it under the lock; on failure, undo everything and feed `StartFailed`."""
        try:
            async with asyncio.timeout(None) as live.launch, self._runtime.room.for_start(), AsyncExitStack() as undo:
                await self._run(live, undo, images)
                undo.pop_all()
        except asyncio.CancelledError:  # the daemon exits
            if isinstance(live.life, Starting):
                live.become(live.life.before)
            raise
        except Exception as error:
            failure = self._failure(live, error)
            await self._launch_failed(live, failure)
            if failure is error:
                raise
            raise failure from error
        finally:
            live.launch = None

    def _failure(self, live: Live, error: Exception) -> Exception:
        """The exception to raise for an error of a start."""
        id = live.container.id
        if isinstance(error, HavreError) or not isinstance(error, OSError):
            return error
        if live.launch is None or not live.launch.expired():
            return Failed(f"starting container {id}: {error}")
        if self.closing:
            return Unavailable(f"cannot start container {id}: the host is shutting down")
        return Conflict(f"container {id} was removed while it was being started")

    async def _launch_failed(self, live: Live, failure: Exception) -> None:
        container, text = live.container, failure.message if isinstance(failure, HavreError) else str(failure)
        live.process = None
        container.note_run(networks=idle_networks(container), ports={})
        await self.feed(live, StartFailed(container_exit_code(text), text))

    async def _run(self, live: Live, undo: AsyncExitStack, images: Path | None) -> None:
        container = live.container
        container.note_run(networks={name: replace(asked) for name, asked in container.spec.networks.items()})
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
        _record_run(container, process, sandbox)
        live.process = process
        await self.feed(live, Started(process.pid, times.now()))
        self._follow(live, process)

    def take_over(self, live: Live) -> None:
        """Take over a process that an earlier daemon started."""
        assert live.process is not None, "what is taken over runs"
        if not live.container.state.paused and live.damaged is None:
            self._health.watch(live, self.feed)
        self._follow(live, live.process)

    def _follow(self, live: Live, process: Process) -> None:
        """Keep the log of `process` and await its end, in the background."""
        self.logs.watch(live.container, process)
        self._memory.watch(process, lambda: self._out_of_memory(live, process))
        spawn(self._await_end(live, process), f"watch {live.container.id[:12]}")

    def _out_of_memory(self, live: Live, process: Process) -> None:
        if live.process is process:
            effects = self.turn(live, OutOfMemory())
            spawn(self.carry_out(live, effects), f"tell of {live.container.id[:12]}")

    # -- the end

    async def _await_end(self, live: Live, process: Process) -> None:
        exit = await process.wait()
        self._memory.leave(process)
        await self.ended(live, exit)

    async def ended(self, live: Live, exit: Exit) -> None:
        """Process the end of a run."""
        async with live.lock:
            await self.logs.end(live.container)
            publishes = bool(live.container.run.ports)
            event = Ended(exit.code, exit.finished_at, exit.oom_killed, publishes, _ends_alone(live))
            try:
                await self.feed(live, event)
            finally:  # wake waiters also if an effect fails
                live.exits.exited(live.result())

    def _end_run(self, live: Live) -> None:
        container, process = live.container, live.process
        container.note_run(networks=idle_networks(container), ports={})
        self._assembly.leave(container)
        live.process = None
        if process is not None:
            process.recorded.set()

    async def _take_down(self, container: Container, bundle: bool) -> None:
        # Concurrently: no process is left that uses either.
        cleaned = spawn(self._runtime.cleanup(container.id), f"clean up {container.id[:12]}") if bundle else None
        try:
            await self._assembly.take_down(container)
            self._assembly.tell_unmounts(container)
        except (HavreError, OSError) as error:  # retried by the removal or the next start
            log.error("cannot tear down the surroundings of container %s: %s", container.id, error)
        if cleaned is not None:
            try:
                await cleaned
            except (HavreError, OSError) as error:
                log.error("cannot remove the runtime's files of container %s: %s", container.id, error)

    async def _restart_later(self, live: Live, delay_s: float) -> None:
        await asyncio.sleep(delay_s)
        async with live.lock:
            live.restart = None
            try:
                await self.feed(live, DelayOver(self.closing))
            except HavreError as error:
                log.warning("cannot restart container %s: %s", live.container.id, error)

    async def _remove(self, live: Live, *, volumes: bool, later: bool) -> None:
        container = live.container
        try:
            await self._erasure.erase(container, volumes=volumes, later=later)
        except (HavreError, OSError) as error:
            reason = why_not_removed(container, error)
            await self.feed(live, RemovalFailed(reason))
            if not later:
                raise Failed(reason) from error
            log.error("cannot remove container %s: %s", container.id, reason)  # no request to report it to
            return
        self.publish(container, "destroy")
        _end_pending(live)
        live.exits.removed(WaitResult(container.state.exit_code))


def _end_pending(live: Live) -> None:
    for attachment in list(live.pending):
        attachment.end()
    live.pending.clear()


def _ends_alone(live: Live) -> bool:
    """Report whether nothing runs after the first process: no hooks, and its PID namespace ends with it."""
    return not (live.container.spec.host_config.pid_mode or (live.process is not None and live.process.has_hooks))


def _record_run(container: Container, process: Process, sandbox: Sandbox) -> None:
    container.note_run(apparmor_profile=process.apparmor_profile)
    if not container.spec.host_config.network_mode.startswith("container:"):
        container.note_run(networks=dict(sandbox.endpoints), ports=dict(sandbox.ports))
