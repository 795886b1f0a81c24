"""Orders to a container that runs: signals, stop, restart, pause.

Stopping is a signal, patience, and SIGKILL. It holds no lock while it waits, because the end it waits for is recorded
under that lock; what it waits for is the end of the very process that it found.
"""

from __future__ import annotations

import asyncio
import signal
from contextlib import suppress

from havre.aio import spawn
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.life.vocabulary import (
    Effects,
    HostStops,
    KillAsked,
    PatienceOver,
    PauseAsked,
    RestartAsked,
    RestartGivenUp,
    StopAsked,
    Thaw,
    UnpauseAsked,
)
from havre.containers.live import Live
from havre.errors import Conflict, Failed, NotModified
from havre.golang.signals import parse_signal
from havre.linux.signals import hears
from havre.runtime import Process

DEFAULT_TIMEOUT_S = 10
_UNHEARD_S, _LOOK_S = 5.0, 0.02
_FROZEN_S = 0.2


class Control:
    """Signals and their consequences."""

    def __init__(self, lifecycle: Lifecycle) -> None:
        self._lifecycle = lifecycle

    async def kill(self, live: Live, number: int) -> None:
        """Send a signal.

        One that is meant to end the container thaws it, and counts as the user's stop: SIGKILL, the configured stop
        signal, or, as with Docker, any signal where none is configured. What is about to be restarted is not, then.
        """
        configured = live.container.config.stop_signal
        ends = number == signal.SIGKILL or not configured or number == parse_signal(configured)
        try:
            process = await self._kill(live, KillAsked(number, ends))
        except Conflict as error:
            raise Conflict(f"cannot kill container: {live.container.name}: {error.message}") from None
        if process is not None and number == signal.SIGKILL:
            await self._see_end(live, process)

    async def _kill(self, live: Live, event: KillAsked) -> Process | None:
        if live.process is None:
            async with live.lock:  # a restart that is under way comes first, and the end of what it has started
                if live.process is None:
                    await self._lifecycle.feed(live, event)
                    return None
        process = live.running()
        try:
            await self._lifecycle.feed(live, event)
        except Conflict:  # it has just ended: no error, as with dockerd
            async with live.lock:
                return None
        return process

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
                if live.process is process:  # a pause may have come in between
                    await self._lifecycle.carry_out(live, (Thaw(told=False),))

    def _stop_signal(self, live: Live) -> int:
        return parse_signal(live.container.config.stop_signal or "SIGTERM")

    async def stop(
        self, live: Live, timeout_s: int | None, signal_text: str | None, drain_s: int | None = None
    ) -> None:
        """Ask it to end, wait, insist; with `drain_s`, take it out of service before. NotModified if it does not run;
        a negative timeout waits for ever."""
        number = parse_signal(signal_text) if signal_text else self._stop_signal(live)
        async with live.lock:  # a start or restart that is under way comes first
            process = live.process
            effects = self._lifecycle.turn(live, StopAsked(number, drain_s))
            if process is None:  # a restart was to come
                await self._lifecycle.carry_out(live, effects)
                return
        await self._end(live, process, number, effects, self._timeout(live, timeout_s))

    async def stop_with_host(self, live: Live, timeout_s: int) -> None:
        """Ask it to end since the host goes down, wait, insist. Its policy still says whether it is to run again."""
        number = self._stop_signal(live)
        async with live.lock:
            process = live.process
            effects = self._lifecycle.turn(live, HostStops(number))
        if process is not None:
            await self._end(live, process, number, effects, timeout_s)

    def _timeout(self, live: Live, timeout_s: int | None) -> int:
        if timeout_s is not None:
            return timeout_s
        configured = live.container.config.stop_timeout
        return DEFAULT_TIMEOUT_S if configured is None else configured

    async def _end(self, live: Live, process: Process, number: int, effects: Effects, timeout_s: int) -> None:
        ended = live.exits.wait("next-exit", None)
        with suppress(Conflict):  # it may end by itself meanwhile
            await self._lifecycle.carry_out(live, effects)
        insisting = spawn(self._insist(process, number), f"signal for {live.container.id[:12]}")
        try:
            await asyncio.wait_for(ended.result(), None if timeout_s < 0 else timeout_s)
        except TimeoutError:
            await self._kill_hard(live, process)
        finally:
            insisting.cancel()
            ended.cancel()
        async with live.lock:
            pass  # everything has been taken down once the lock is free
        self._lifecycle.publish(live.container, "stop")

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
            await self._lifecycle.feed(live, PatienceOver())
        try:
            await asyncio.wait_for(ended.result(), DEFAULT_TIMEOUT_S)
        except TimeoutError:
            raise Failed(f"container {live.container.id} did not end within {DEFAULT_TIMEOUT_S} s of SIGKILL") from None

    async def end(self, live: Live) -> None:
        """Kill it if it runs, and wait until everything is down; for a removal by force."""
        if (process := live.process) is not None:
            await self._kill_hard(live, process)
            async with live.lock:
                pass

    async def restart(self, live: Live, timeout_s: int | None, signal_text: str | None) -> None:
        """Stop it if it runs, then start it; with `--rm` it is not removed in between."""
        self._lifecycle.turn(live, RestartAsked())
        try:
            with suppress(NotModified):
                await self.stop(live, timeout_s, signal_text)
        except BaseException:
            self._lifecycle.turn(live, RestartGivenUp())
            raise
        with suppress(NotModified):  # another client has been faster
            await self._lifecycle.start(live)
        self._lifecycle.publish(live.container, "restart")

    async def pause(self, live: Live) -> None:
        """Freeze every process."""
        async with live.lock:
            await self._lifecycle.feed(live, PauseAsked())

    async def unpause(self, live: Live) -> None:
        """Thaw it."""
        async with live.lock:
            await self._lifecycle.feed(live, UnpauseAsked())
