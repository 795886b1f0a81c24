"""Orders to a container that runs: signals, stop, restart, pause.

Stopping is a signal, patience, and SIGKILL. It holds no lock while it waits, because the end it waits for is recorded
under that lock; what it waits for is the end of the very process that it found.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

from havre.aio import spawn
from havre.containers.life.draining import Draining
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.live import Index, Live
from havre.errors import Conflict, Failed, NotModified
from havre.golang.signals import parse_signal
from havre.linux.signals import hears
from havre.runtime import Process

DEFAULT_TIMEOUT_S = 10
_UNHEARD_S, _LOOK_S = 5.0, 0.02
_FROZEN_S = 0.2


class Control:
    """Signals and their consequences."""

    def __init__(self, index: Index, lifecycle: Lifecycle, draining: Draining) -> None:
        self._index = index
        self._lifecycle = lifecycle
        self._draining = draining

    async def kill(self, live: Live, number: int) -> None:
        """Send a signal.

        One that is meant to end the container thaws it, and counts as the user's stop: SIGKILL, the configured stop
        signal, or, as with Docker, any signal where none is configured. What is about to be restarted is not, then.
        """
        container = live.container
        if live.process is None:
            async with live.lock:
                pass  # a restart that is under way comes first, and the end of what it has started
        if await self._ends_restarts(live):
            return
        try:
            process = live.running()
        except Conflict as error:
            raise Conflict(f"cannot kill container: {container.name}: {error.message}") from None
        configured = container.config.stop_signal
        ends = number == signal.SIGKILL or not configured or number == parse_signal(configured)
        if ends:
            await self._mark_stopped(live)
        try:
            await self._send(live, process, number)
        except Conflict:  # it has just ended
            problem = f"container {container.id} is not running"
            raise Conflict(f"cannot kill container: {container.name}: {problem}") from None
        if ends and container.state.paused and number != signal.SIGKILL:
            await self._thaw(live, process)
        if number == signal.SIGKILL:
            await self._see_end(live, process)

    async def _see_end(self, live: Live, process: Process) -> None:
        """After a SIGKILL: the end is known to whoever asks next, unless the kernel takes its time."""
        for patience_s in (_FROZEN_S, DEFAULT_TIMEOUT_S):
            ended = live.exits.wait("next-exit", None)
            if live.process is not process:
                ended.cancel()
                return
            try:
                await asyncio.wait_for(ended.result(), patience_s)
                return
            except TimeoutError:
                await self._thaw(live, process)  # a pause may have come in between

    def _stop_signal(self, live: Live) -> int:
        return parse_signal(live.container.config.stop_signal or "SIGTERM")

    async def _mark_stopped(self, live: Live) -> None:
        """The end to come is the user's doing: no restart, not even with the daemon's next start."""
        live.stopping = True
        live.container.manually_stopped = True
        await self._index.note(live.container)

    async def _send(self, live: Live, process: Process, number: int) -> None:
        await process.kill(number)
        self._lifecycle.publish(live.container, "kill", signal=str(int(number)))
        if live.container.state.paused and number == signal.SIGKILL:
            await self._thaw(live, process)

    async def _thaw(self, live: Live, process: Process) -> None:
        """A frozen process dies only once it is thawed (cgroup v1); with cgroup v2 it may be dead already."""
        with suppress(Conflict):
            await process.resume()
        state = live.container.state
        if state.paused:  # its end may have been recorded meanwhile
            state.paused, state.status = False, "running"
            self._lifecycle.probe(live)

    async def stop(
        self, live: Live, timeout_s: int | None, signal_text: str | None, drain_s: int | None = None
    ) -> None:
        """Ask it to end, wait, insist; with `drain_s`, take it out of service before. NotModified if it does not run;
        a negative timeout waits for ever."""
        number = parse_signal(signal_text) if signal_text else self._stop_signal(live)
        if await self._ends_restarts(live):
            return
        async with live.lock:
            process = live.process  # a start or restart that is under way comes first
        if process is None:
            if await self._ends_restarts(live):  # it has come and gone
                return
            raise NotModified("container is already stopped")
        await self._mark_stopped(live)
        if drain_s is not None:
            await self._draining.run(live, drain_s)
        await self._end(live, process, number, self._timeout(live, timeout_s))
        self._lifecycle.publish(live.container, "stop")

    async def stop_with_host(self, live: Live, timeout_s: int) -> None:
        """Ask it to end since the host goes down, wait, insist. Its policy still says whether it is to run again."""
        async with live.lock:
            process = live.process
        if process is not None:
            await self._end(live, process, self._stop_signal(live), timeout_s)
            self._lifecycle.publish(live.container, "stop")

    def _timeout(self, live: Live, timeout_s: int | None) -> int:
        if timeout_s is not None:
            return timeout_s
        configured = live.container.config.stop_timeout
        return DEFAULT_TIMEOUT_S if configured is None else configured

    async def _ends_restarts(self, live: Live) -> bool:
        """Whether a restart was to come, which does not come now."""
        if live.restart is None:
            return False
        await self._mark_stopped(live)
        await self._give_up_restart(live)
        return True

    async def _give_up_restart(self, live: Live) -> None:
        async with live.lock:
            live.cancel_restart()
            state = live.container.state
            state.status, state.running, state.restarting = "exited", False, False
            await self._index.note(live.container)
        self._lifecycle.publish(live.container, "stop")

    async def _end(self, live: Live, process: Process, number: int, timeout_s: int) -> None:
        ended = live.exits.wait("next-exit", None)
        if live.process is not process:
            ended.cancel()
            return
        with suppress(Conflict):  # it may end by itself meanwhile
            if number != signal.SIGKILL:
                await self._resume(live)
            await self._send(live, process, number)
        insisting = spawn(self._insist(process, number), f"signal for {live.container.id[:12]}")
        try:
            await asyncio.wait_for(ended.result(), None if timeout_s < 0 else timeout_s)
        except TimeoutError:
            await self._kill_hard(live, process)
        finally:
            insisting.cancel()
        async with live.lock:
            pass  # everything has been taken down once the lock is free

    async def _insist(self, process: Process, number: int) -> None:
        """Send the signal again to a process that has only just started and did not hear it, once it does."""
        if hears(process.pid, number) is not False:
            return
        for _ in range(int(_UNHEARD_S / _LOOK_S)):
            await asyncio.sleep(_LOOK_S)
            if (heard := hears(process.pid, number)) is not False:
                if heard:
                    with suppress(Conflict):
                        await process.kill(number)
                return

    async def _kill_hard(self, live: Live, process: Process) -> None:
        ended = live.exits.wait("next-exit", None)
        if live.process is not process:
            ended.cancel()
            return
        with suppress(Conflict):  # it may end by itself meanwhile
            await self._send(live, process, signal.SIGKILL)
        try:
            await asyncio.wait_for(ended.result(), DEFAULT_TIMEOUT_S)
        except TimeoutError:
            raise Failed(f"container {live.container.id} did not end within {DEFAULT_TIMEOUT_S} s of SIGKILL") from None

    async def end(self, live: Live) -> None:
        """Kill it and wait until everything is down; for a removal by force. Idempotent."""
        live.stopping = True
        live.cancel_restart()
        if (process := live.process) is not None:
            await self._kill_hard(live, process)
            async with live.lock:
                pass

    async def restart(self, live: Live, timeout_s: int | None, signal_text: str | None) -> None:
        """Stop it if it runs, then start it; with `--rm` it is not removed in between."""
        live.restarted_by_user = True
        try:
            with suppress(NotModified):
                await self.stop(live, timeout_s, signal_text)
        finally:
            live.restarted_by_user = False
        with suppress(NotModified):  # another client has been faster
            await self._lifecycle.start(live)
        self._lifecycle.publish(live.container, "restart")

    async def pause(self, live: Live) -> None:
        """Freeze every process."""
        async with live.lock:
            container = live.container
            process = live.running()
            if container.state.paused:
                raise Conflict(f"Container {container.id} is already paused")
            await process.pause()
            container.state.paused, container.state.status = True, "paused"
            self._lifecycle.stop_probing(live)
            await self._index.note(container)
        self._lifecycle.publish(container, "pause")

    async def unpause(self, live: Live) -> None:
        """Thaw it."""
        if not await self._resume(live):
            raise Failed(f"Container {live.container.id} is not paused")

    async def _resume(self, live: Live) -> bool:
        """Thaw it if it is paused; False if it is not."""
        async with live.lock:
            container = live.container
            if not container.state.paused or live.process is None:
                return False
            await live.process.resume()
            container.state.paused, container.state.status = False, "running"
            self._lifecycle.probe(live)
            await self._index.note(container)
        self._lifecycle.publish(container, "unpause")
        return True
