r"""Health checks: a pure state machine, and the scheduler that runs the probes of running containers.

                    success                     failure, `retries` in a row
    starting ------------------------> healthy ------------------------------> unhealthy
        |                                 ^-----------------------------------------|
        |  failure, `retries` in a row (those in the start period do not count)     |  success
        '---------------------------------------------------------------------------'

A start begins at "starting" and keeps the log; a probe waits for the interval first (for the start interval while it is
starting and the start period lasts). With the probes, at a pause or an end, ends what is known: "unhealthy", as Docker
says then. The state is in the container's row, so a restart of the daemon changes nothing but the time of the next
probe. A probe is an exec of the container like any other. Source: Docker's documentation, "HEALTHCHECK", observed.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import time
from collections.abc import Awaitable, Callable

from msgspec.structs import replace

from havre.aio import spawn
from havre.containers.container import Health, HealthResult
from havre.containers.live import Index, Live
from havre.containers.streams.exec import Execs, ExecSpec
from havre.errors import Conflict, HavreError
from havre.wire import times
from havre.wire.config import Config, Healthcheck

log = logging.getLogger(__name__)

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
KEPT_RESULTS = 5
KEPT_OUTPUT = 4096
DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_RETRIES = 3
SECOND_NS = 1_000_000_000
DEFAULT_INTERVAL_NS, DEFAULT_TIMEOUT_NS, DEFAULT_START_INTERVAL_NS = 30 * SECOND_NS, 30 * SECOND_NS, 5 * SECOND_NS
CANNOT_PROBE = -1

Publish = Callable[[Live, str], None]


def probe_command(config: Config) -> list[str]:
    """The command of a container's probe; [] where it has none."""
    kind, *words = (config.healthcheck.test if config.healthcheck else None) or ["NONE"]
    if kind == "CMD-SHELL":
        return [*(config.shell or DEFAULT_SHELL), *words]
    return words if kind == "CMD" else []


def begin(health: Health | None) -> Health:
    """What is known when a container starts."""
    return Health(status=STARTING, log=health.log if health else [])


def cease(health: Health | None) -> Health | None:
    """What is known once no probes run any more."""
    return replace(health, status=UNHEALTHY) if health else None


def judge(health: Health, check: Healthcheck, result: HealthResult, *, since_start_s: float) -> Health:
    """The state after a probe that began `since_start_s` after the container did."""
    known = replace(health, log=[*health.log, result][-KEPT_RESULTS:])
    if result.exit_code == 0:
        return replace(known, status=HEALTHY, failing_streak=0)
    if health.status == STARTING and since_start_s * SECOND_NS < check.start_period:
        return known
    streak = health.failing_streak + 1
    unhealthy = streak >= (check.retries or DEFAULT_RETRIES)
    return replace(known, status=UNHEALTHY if unhealthy else health.status, failing_streak=streak)


def delay_s(health: Health, check: Healthcheck, *, since_start_s: float) -> float:
    """How long to wait before the next probe."""
    if health.status == STARTING and since_start_s * SECOND_NS < check.start_period:
        return (check.start_interval or DEFAULT_START_INTERVAL_NS) / SECOND_NS
    return (check.interval or DEFAULT_INTERVAL_NS) / SECOND_NS


def first_delay_s(health: Health, check: Healthcheck, *, started: float, now: float) -> float:
    """How long to wait before the first probe of a daemon; what an earlier one found healthy is due when it was."""
    delay = delay_s(health, check, since_start_s=now - started)
    if health.status != HEALTHY or not health.log:
        return delay
    return max(0.0, times.parse(health.log[-1].end) + delay - now)


def shorten(output: bytes) -> str:
    """What of a probe's output is kept."""
    text = output[:KEPT_OUTPUT].decode(errors="replace")
    return text + "..." if len(output) > KEPT_OUTPUT else text


class HealthChecks:
    """Probes running containers, one task each."""

    def __init__(self, index: Index, execs: Execs) -> None:
        self._index = index
        self._execs = execs
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def watch(self, live: Live, publish: Publish) -> None:
        """Probe it from now on, if it has a probe and is not watched yet; `publish` tells of its new states."""
        container = live.container
        if container.id in self._tasks or not probe_command(container.config):
            return
        if container.state.health is None:
            container.state.health = begin(None)
        self._tasks[container.id] = spawn(self._probe_on(live, publish), f"health of {container.id[:12]}")

    def leave(self, live: Live) -> None:
        """Probe it no more, and say so; idempotent."""
        if task := self._tasks.pop(live.container.id, None):
            task.cancel()
            live.container.state.health = cease(live.container.state.health)

    async def _probe_on(self, live: Live, publish: Publish) -> None:
        check = live.container.config.healthcheck
        assert check is not None, "what has no probe is not watched"
        started = times.parse(live.container.state.started_at)
        health = live.container.state.health
        assert health is not None, "what is watched has a state of health"
        delay = first_delay_s(health, check, started=started, now=time.time())
        while True:
            await asyncio.sleep(delay)
            if (state := live.container.state).health is None:
                return
            began = time.time()
            code, output = await self._probe(live, (check.timeout or DEFAULT_TIMEOUT_NS) / SECOND_NS)
            result = HealthResult(
                start=times.from_seconds(began), end=times.now(), exit_code=code, output=shorten(output)
            )
            before = state.health.status
            state.health = judge(state.health, check, result, since_start_s=began - started)
            await self._index.save(live.container)
            if state.health.status != before:
                publish(live, f"health_status: {state.health.status}")
            delay = delay_s(state.health, check, since_start_s=time.time() - started)

    async def _probe(self, live: Live, timeout_s: float) -> tuple[int, bytes]:
        config = live.container.config
        spec = ExecSpec(
            attach_stdout=True,
            attach_stderr=True,
            cmd=probe_command(config),
            user=config.user,
            working_dir=config.working_dir,
        )
        try:
            exec = self._execs.create(live, spec)
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
        reason = f"Health check exceeded timeout ({times.show_duration(timeout_s)})".encode()
        return CANNOT_PROBE, b": ".join((reason, output)) if output else reason


async def _in_time(work: Awaitable[None], timeout_s: float) -> bool:
    try:
        await asyncio.wait_for(work, timeout_s)
    except TimeoutError:
        return False
    return True
