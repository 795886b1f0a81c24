"""Requests to a running container: signals, stop, restart, pause.

A stop sends a signal, waits, and then sends SIGKILL. It waits without the lock, because the end is recorded under the
lock, and it waits for the end of the process that it found, not of a later one.
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
    """Sends signals and follows up on them. `default_timeout_s` is that of containers without one of their own."""

    def __init__(self, lifecycle: Lifecycle, default_timeout_s: int = DEFAULT_TIMEOUT_S) -> None:
        self._lifecycle = lifecycle
        self.default_timeout_s = default_timeout_s

    async def kill(self, live: Live, number: int) -> None:
        """Send a signal.

        A signal that is to end the container thaws it and counts as the user's stop, which also cancels a scheduled
        restart. These are SIGKILL, the configured stop signal, or, as in Docker, any signal if none is configured.
        """
        configured = live.container.spec.config.stop_signal
        ends = number == signal.SIGKILL or not configured or number == parse_signal(configured)
        try:
            process = await self._kill(live, KillAsked(number, ends))
        except Conflict as error:
            raise Conflict(f"cannot kill container: {live.container.name}: {error.message}") from None
        if process is not None and number == signal.SIGKILL:
            await self._see_end(live, process)

    async def _kill(self, live: Live, event: KillAsked) -> Process | None:
        if live.process is None:
            async with live.lock:  # a restart in progress comes first, and the end of the process that it started
                if live.process is None:
                    await self._lifecycle.feed(live, event)
                    return None
        process = live.running()
        try:
            await self._lifecycle.feed(live, event)
        except Conflict:  # it has just ended: no error, as in dockerd
            async with live.lock:
                return None
        return process

    async def _see_end(self, live: Live, process: Process) -> None:
        """After SIGKILL: wait until the end is recorded, unless the kernel takes long."""
        for patience_s in (_FROZEN_S, DEFAULT_TIMEOUT_S):
            ended = live.exits.wait("next-exit", None)
            if live.process is not process:
                ended.cancel()
                return
            try:
                await asyncio.wait_for(ended.result(), patience_s)
                return
            except TimeoutError:
                if live.process is process:  # it may have been paused meanwhile
                    await self._lifecycle.carry_out(live, (Thaw(publish=False),))

    def _stop_signal(self, live: Live) -> int:
        return parse_signal(live.container.spec.config.stop_signal or "SIGTERM")

    async def stop(
        self, live: Live, timeout_s: int | None, signal_text: str | None, drain_s: int | None = None
    ) -> None:
        """Send the stop signal, wait, then SIGKILL; with `drain_s`, drain it before.

        A negative timeout waits without limit. Raises `NotModified` if it does not run.
        """
        number = parse_signal(signal_text) if signal_text else self._stop_signal(live)
        async with live.lock:  # a start or restart in progress comes first
            process = live.process
            effects = self._lifecycle.turn(live, StopAsked(number, drain_s))
            if process is None:  # a restart was scheduled
                await self._lifecycle.carry_out(live, effects)
                return
        await self._end(live, process, number, effects, self._timeout(live, timeout_s))

    async def stop_with_host(self, live: Live, timeout_s: int) -> None:
        """Stop it because the host shuts down. Its policy decides whether the next daemon starts it again."""
        number = self._stop_signal(live)
        async with live.lock:
            process = live.process
            effects = self._lifecycle.turn(live, HostStops(number))
        if process is not None:
            await self._end(live, process, number, effects, timeout_s)

    def _timeout(self, live: Live, timeout_s: int | None) -> int:
        if timeout_s is not None:
            return timeout_s
        configured = live.container.spec.config.stop_timeout
        return self.default_timeout_s if configured is None else configured

    async def _end(self, live: Live, process: Process, number: int, effects: Effects, timeout_s: int) -> None:
        ended = live.exits.wait("next-exit", None)
        with suppress(Conflict):  # it may have ended meanwhile
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
            pass  # teardown is complete when the lock is free
        self._lifecycle.publish(live.container, "stop")

    async def _insist(self, process: Process, number: int) -> None:
        """Send the signal again once PID 1 has a handler; until then the kernel ignores it: pid_namespaces(7)."""
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
        with suppress(Conflict):  # it may have ended meanwhile
            await self._lifecycle.feed(live, PatienceOver())
        try:
            await asyncio.wait_for(ended.result(), DEFAULT_TIMEOUT_S)
        except TimeoutError:
            raise Failed(f"container {live.container.id} did not end within {DEFAULT_TIMEOUT_S} s of SIGKILL") from None

    async def end(self, live: Live) -> None:
        """Kill it if it runs, and wait for the teardown; for a forced removal."""
        if (process := live.process) is not None:
            await self._kill_hard(live, process)
            async with live.lock:
                pass

    async def restart(self, live: Live, timeout_s: int | None, signal_text: str | None) -> None:
        """Stop it if it runs, then start it; `--rm` does not apply in between."""
        self._lifecycle.turn(live, RestartAsked())
        try:
            with suppress(NotModified):
                await self.stop(live, timeout_s, signal_text)
        except BaseException:
            self._lifecycle.turn(live, RestartGivenUp())
            raise
        with suppress(NotModified):  # another client has started it
            await self._lifecycle.start(live)
        self._lifecycle.publish(live.container, "restart")

    async def pause(self, live: Live) -> None:
        """Freeze all processes."""
        async with live.lock:
            await self._lifecycle.feed(live, PauseAsked())

    async def unpause(self, live: Live) -> None:
        """Thaw all processes."""
        async with live.lock:
            await self._lifecycle.feed(live, UnpauseAsked())
