"""The host goes down: containers end in order, while the daemon is still there to see and record it.

Each gets its stop signal and its stop time-out, all of a wave at once, and those that use another (its namespaces, a
link to it) in a wave before it. Nothing starts any more. No user has wished for these ends: what a restart policy wants
after them is left in the row (`restarting`), and comes with the next daemon (`recovery`).

A daemon that only stops, or is restarted, leaves containers alone.
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

LONGEST_S = 1500  # a reboot that hangs is forced after 30 min (systemd's reboot.target); "for ever" is no longer
_SLACK_S = 5  # of a wave: to end what SIGKILL was needed for, and to take everything down
_START_S = 2  # for starts under way: their containers may run already
_JOINED = "container:"


def plan_waves(containers: Sequence[Container]) -> list[list[Container]]:
    """All of `containers`, each in a later wave than those that use it."""
    uses = {container.id: _used_by(container, containers) for container in containers}
    waves, left = [], list(containers)
    while left:
        used = {id for container in left for id in uses[container.id]}
        # Links can form a circle, which is then one wave.
        wave = [container for container in left if container.id not in used] or left
        waves.append(wave)
        left = [container for container in left if container not in wave]
    return waves


def _used_by(container: Container, others: Sequence[Container]) -> set[str]:
    host = container.host_config
    modes = (host.network_mode, host.pid_mode, host.ipc_mode)
    joined = {mode.removeprefix(_JOINED) for mode in modes if mode.startswith(_JOINED)}
    linked = set(links_of(container).values())
    found = {other.id for other in others if other.id in joined or other.name.lower() in linked}
    return found - {container.id}


def stop_timeout_s(container: Container) -> int:
    """How long it has after its stop signal; a negative time-out means for ever, which the host does not wait."""
    configured = container.config.stop_timeout
    wanted = DEFAULT_TIMEOUT_S if configured is None else configured
    return min(wanted, LONGEST_S) if wanted >= 0 else LONGEST_S


def longest_s(waves: Sequence[Sequence[Container]]) -> int:
    """How long the waves take at most."""
    return sum(max(map(stop_timeout_s, wave)) + _SLACK_S for wave in waves)


class Shutdown:
    """Stops all containers, once."""

    def __init__(self, index: Index, lifecycle: Lifecycle, control: Control) -> None:
        self._index = index
        self._lifecycle = lifecycle
        self._control = control

    def begin(self) -> int:
        """From now on nothing starts; how many seconds `run` takes at most."""
        self._lifecycle.closing = True
        return longest_s(self._waves())

    async def run(self) -> None:
        """Stop what runs; break off starts that hang. What cannot be stopped is told in the log."""
        for live in self._index:
            live.abandon_launch(_START_S)
        for wave in self._waves():
            await asyncio.gather(*(self._stop(container) for container in wave))

    def _waves(self) -> list[list[Container]]:
        return plan_waves([live.container for live in self._index if live.process or live.launch])

    async def _stop(self, container: Container) -> None:
        try:
            await self._control.stop_with_host(self._index.get(container.id), stop_timeout_s(container))
        except (HavreError, OSError) as error:
            log.error("stopping container %s with the host: %s", container.id, error)
