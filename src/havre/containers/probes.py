"""The health of a container as a state machine of probe results.

                    success                     failure, `retries` in a row
    starting ------------------------> healthy ------------------------------> unhealthy
        |                                 ^-----------------------------------------|
        |  failure, `retries` in a row (those in the start period do not count)     |  success
        '---------------------------------------------------------------------------'

A start resets to "starting" and keeps the log; a probe first waits for the interval (for the start interval while the
state is starting and the start period lasts). A pause or an end sets "unhealthy", as Docker does. Pure.
Source: Docker's documentation, "HEALTHCHECK", and observed behaviour.
"""

from __future__ import annotations

from msgspec.structs import replace

from havre.containers.container import Health, HealthResult
from havre.wire import times
from havre.wire.config import Config, Healthcheck

STARTING, HEALTHY, UNHEALTHY = "starting", "healthy", "unhealthy"
KEPT_RESULTS = 5
KEPT_OUTPUT = 4096
DEFAULT_SHELL = ("/bin/sh", "-c")
DEFAULT_RETRIES = 3
SECOND_NS = 1_000_000_000
DEFAULT_INTERVAL_NS, DEFAULT_TIMEOUT_NS, DEFAULT_START_INTERVAL_NS = 30 * SECOND_NS, 30 * SECOND_NS, 5 * SECOND_NS


def probe_command(config: Config) -> list[str]:
    """The command of a container's probe; [] for none."""
    kind, *words = (config.healthcheck.test if config.healthcheck else None) or ["NONE"]
    if kind == "CMD-SHELL":
        return [*(config.shell or DEFAULT_SHELL), *words]
    return words if kind == "CMD" else []


def begin(health: Health | None) -> Health:
    """The health at a container's start."""
    return Health(status=STARTING, log=health.log if health else [])


def cease(health: Health | None) -> Health | None:
    """The health when probing stops."""
    return replace(health, status=UNHEALTHY) if health else None


def judge(health: Health, check: Healthcheck, result: HealthResult, *, since_start_s: float) -> Health:
    """The health after a probe that began `since_start_s` after the container's start."""
    known = replace(health, log=[*health.log, result][-KEPT_RESULTS:])
    if result.exit_code == 0:
        return replace(known, status=HEALTHY, failing_streak=0)
    if health.status == STARTING and since_start_s * SECOND_NS < check.start_period:
        return known
    streak = health.failing_streak + 1
    unhealthy = streak >= (check.retries or DEFAULT_RETRIES)
    return replace(known, status=UNHEALTHY if unhealthy else health.status, failing_streak=streak)


def delay_s(health: Health, check: Healthcheck, *, since_start_s: float) -> float:
    """Seconds to wait before the next probe."""
    if health.status == STARTING and since_start_s * SECOND_NS < check.start_period:
        return (check.start_interval or DEFAULT_START_INTERVAL_NS) / SECOND_NS
    return (check.interval or DEFAULT_INTERVAL_NS) / SECOND_NS


def first_delay_s(health: Health, check: Healthcheck, *, started: float, now: float) -> float:
    """Seconds to wait before the daemon's first probe. A healthy container keeps the schedule of the earlier daemon."""
    delay = delay_s(health, check, since_start_s=now - started)
    if health.status != HEALTHY or not health.log:
        return delay
    return max(0.0, times.parse(health.log[-1].end) + delay - now)


def shorten(output: bytes) -> str:
    """The part of a probe's output that is stored."""
    text = output[:KEPT_OUTPUT].decode(errors="replace")
    return text + "..." if len(output) > KEPT_OUTPUT else text
