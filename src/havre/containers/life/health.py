"""Schedules the health checks of running containers.

Results go to the machine as `Probed`. The health is stored in the container's row, so a restart of the daemon only
shifts the next probe. A probe is an ordinary exec of the container.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable

from havre.aio import spawn
from havre.containers.container import HealthResult
from havre.containers.life.vocabulary import Probed
from havre.containers.live import Live
from havre.containers.probes import (
    DEFAULT_TIMEOUT_NS,
    KEPT_OUTPUT,
    SECOND_NS,
    delay_s,
    first_delay_s,
    probe_command,
    shorten,
)
from havre.containers.streams.exec import Execs, ExecSpec
from havre.errors import Conflict, HavreError
from havre.golang.units import format_duration
from havre.wire import times

log = logging.getLogger(__name__)

CANNOT_PROBE = -1

Tell = Callable[[Live, Probed], Awaitable[None]]


class HealthChecks:
    """Probes running containers, one task per container."""

    def __init__(self, execs: Execs) -> None:
        self._execs = execs
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, live: Live, tell: Tell) -> None:
        """Start probing, if it has a health check and is not probed yet; `tell` gets each result."""
        container = live.container
        if container.id not in self._tasks and probe_command(container.spec.config):
            self._tasks[container.id] = spawn(self._probe_on(live, tell), f"health of {container.id[:12]}")

    def leave(self, live: Live) -> None:
        """Stop probing. Idempotent."""
        if task := self._tasks.pop(live.container.id, None):
            task.cancel()

    async def _probe_on(self, live: Live, tell: Tell) -> None:
        check = live.container.spec.config.healthcheck
        assert check is not None, "what has no probe is not watched"
        started = times.parse(live.container.state.started_at)
        health = live.container.state.health
        assert health is not None, "what is watched has a state of health"
        delay = first_delay_s(health, check, started=started, now=time.time())
        while True:
            await asyncio.sleep(delay)
            began = time.time()
            code, output = await self._probe(live, (check.timeout or DEFAULT_TIMEOUT_NS) / SECOND_NS)
            result = HealthResult(
                start=times.from_seconds(began), end=times.now(), exit_code=code, output=shorten(output)
            )
            try:
                await tell(live, Probed(result, began - started))
            except HavreError as error:
                log.error("cannot record the health of container %s: %s", live.container.id, error)
            if (health := live.container.state.health) is None:
                return
            delay = delay_s(health, check, since_start_s=time.time() - started)

    async def _probe(self, live: Live, timeout_s: float) -> tuple[int, bytes]:
        config = live.container.spec.config
        spec = ExecSpec(
            attach_stdout=True,
            attach_stderr=True,
            cmd=probe_command(config),
            user=config.user,
            working_dir=config.working_dir,
        )
        try:
            exec = self._execs.create(live.container.id, spec)
            attachment = await self._execs.start(exec.id, None)
        except HavreError as error:
            return CANNOT_PROBE, error.message.encode()
        output = bytearray()

        async def collect() -> None:
            async for _, data in attachment.output:
                output.extend(data[: KEPT_OUTPUT + 1 - len(output)])

        if await _in_time(collect(), timeout_s):
            return exec.exit_code or 0, bytes(output)
        attachment.close()
        if exec.process is not None:
            try:
                await exec.process.kill(signal.SIGKILL)
            except Conflict:
                log.debug("the probe ended just now")
        reason = f"Health check exceeded timeout ({format_duration(round(timeout_s * 1e9))})".encode()
        return CANNOT_PROBE, b": ".join((reason, output)) if output else reason


async def _in_time(work: Awaitable[None], timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(work, timeout_s)
    except TimeoutError:
        return False
    return True
