"""Shutdown of the host: stops containers in order, while the daemon still runs to record their ends.

Each gets its stop signal and its stop timeout, all of a wave concurrently; containers that use another one (namespaces,
links) are stopped in an earlier wave. Nothing starts any more. These are not stops by the user: a restart that the
policy wants is stored in the row (`restarting`) and done by the next daemon (`recovery`).

When only the daemon stops or restarts, containers keep running.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence

from havre.containers.container import Container
from havre.containers.life.control import DEFAULT_TIMEOUT_S, Control
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.live import Index
from havre.containers.networking import links_of
from havre.errors import HavreError

log = logging.getLogger(__name__)

LONGEST_S = 1500  # below the 30 min after which systemd forces a reboot (JobTimeoutSec of reboot.target)
_SLACK_S = 5  # per wave: for SIGKILL and teardown
_START_S = 2  # for starts in progress, whose processes may already run
_JOINED = "container:"


def plan_waves(containers: Sequence[Container]) -> list[list[Container]]:
    """Order `containers` in waves, each container in a later wave than those that use it."""
    uses = {container.id: _used_by(container, containers) for container in containers}
    waves, left = [], list(containers)
    while left:
        used = {id for container in left for id in uses[container.id]}
        # Links may form a cycle, which becomes one wave.
        wave = [container for container in left if container.id not in used] or left
        waves.append(wave)
        left = [container for container in left if container not in wave]
    return waves


def _used_by(container: Container, others: Sequence[Container]) -> set[str]:
    host = container.spec.host_config
    modes = (host.network_mode, host.pid_mode, host.ipc_mode)
    joined = {mode.removeprefix(_JOINED) for mode in modes if mode.startswith(_JOINED)}
    linked = set(links_of(container).values())
    found = {other.id for other in others if other.id in joined or other.name.lower() in linked}
    return found - {container.id}


def stop_timeout_s(container: Container, default_s: int = DEFAULT_TIMEOUT_S) -> int:
    """Seconds from the stop signal to SIGKILL; a negative timeout (no limit) is capped."""
    configured = container.spec.config.stop_timeout
    wanted = default_s if configured is None else configured
    return min(wanted, LONGEST_S) if wanted >= 0 else LONGEST_S


def longest_s(waves: Sequence[Sequence[Container]], default_s: int = DEFAULT_TIMEOUT_S) -> int:
    """The maximum duration of all waves, in seconds."""
    return sum(max(stop_timeout_s(each, default_s) for each in wave) + _SLACK_S for wave in waves)


class Shutdown:
    """Stops all containers, once."""

    def __init__(self, index: Index, lifecycle: Lifecycle, control: Control) -> None:
        self._index = index
        self._lifecycle = lifecycle
        self.control = control

    def begin(self) -> int:
        """Prevent further starts. Returns the maximum duration of `run`, in seconds."""
        self._lifecycle.closing = True
        return longest_s(self._waves(), self.control.default_timeout_s)

    async def run(self) -> None:
        """Stop running containers, and abort starts that hang. Failures are logged."""
        for live in self._index:
            live.abandon_launch(_START_S)
        for wave in self._waves():
            await asyncio.gather(*(self._stop(container) for container in wave))

    def _waves(self) -> list[list[Container]]:
        return plan_waves([live.container for live in self._index if live.process or live.launch])

    async def _stop(self, container: Container) -> None:
        try:
            timeout_s = stop_timeout_s(container, self.control.default_timeout_s)
            await self.control.stop_with_host(self._index.get(container.id), timeout_s)
        except (HavreError, OSError) as error:
            log.error("cannot stop container %s at the host's shutdown: %s", container.id, error)
