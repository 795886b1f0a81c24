"""Removal of containers on request.

claim "removing" --> abort a start, kill (force), abort copies --> erase (`erasure`) --> row deleted --> destroy
                                   `--> failure: "dead", waiters are woken; a retry or the next daemon continues

The row is marked first, so that recovery completes an interrupted removal. Copies from or to the container are aborted.
"""

from __future__ import annotations

from havre.containers.life.control import Control
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.life.vocabulary import RemovalAsked, RemovalFailed, Remove
from havre.containers.live import Live
from havre.containers.states import Starting


class Removal:
    """Removes containers."""

    def __init__(self, lifecycle: Lifecycle, control: Control) -> None:
        self._lifecycle = lifecycle
        self._control = control

    async def remove(self, live: Live, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it, optionally with anonymous volumes. Raises `Conflict` if it runs, unless forced."""
        await self._claim(live, RemovalAsked(force, live.container.name))
        try:
            async with live.lock:
                pass  # an aborted start has been undone
            await self._control.end(live)
            await live.end_uses()
            async with live.lock:
                await self._lifecycle.carry_out(live, (Remove(volumes),))
        except BaseException as error:
            self._lifecycle.turn(live, RemovalFailed(str(error)))
            raise

    async def _claim(self, live: Live, event: RemovalAsked) -> None:
        """Mark it for removal. Waits for a start in progress; with `force`, aborts it."""
        if live.removing or (event.force and isinstance(live.life, Starting)):
            await self._lifecycle.feed(live, event)
            return
        async with live.lock:
            await self._lifecycle.feed(live, event)
