"""Removals that a user asks for.

claim "removing" --> break off a start, kill (force), end copies --> erase (`erasure`) --> row deleted --> destroy
                                   `--> a failure: "dead", waiters are told; another try, or the next daemon, goes on

The row is marked first, so that a removal that is cut short is finished by recovery. What somebody still copies out of
the container or into it is broken off.
"""

from __future__ import annotations

from havre.containers.life.control import Control
from havre.containers.life.lifecycle import Lifecycle
from havre.containers.life.vocabulary import RemovalAsked, RemovalFailed, Remove
from havre.containers.live import Live
from havre.containers.states import Starting


class Removal:
    """Makes containers go, and what was theirs alone."""

    def __init__(self, lifecycle: Lifecycle, control: Control) -> None:
        self._lifecycle = lifecycle
        self._control = control

    async def remove(self, live: Live, *, force: bool = False, volumes: bool = False) -> None:
        """Remove it, with its anonymous volumes if asked. Conflict while it runs (unless by force) or is going."""
        await self._claim(live, RemovalAsked(force, live.container.name))
        try:
            async with live.lock:
                pass  # a start that was broken off has undone itself
            await self._control.end(live)
            await live.end_uses()
            async with live.lock:
                await self._lifecycle.carry_out(live, (Remove(volumes),))
        except BaseException as error:
            self._lifecycle.turn(live, RemovalFailed(str(error)))
            raise

    async def _claim(self, live: Live, event: RemovalAsked) -> None:
        """What a start under way makes is to go, too: it is waited for, or by force broken off."""
        if live.removing or (event.force and isinstance(live.life, Starting)):
            await self._lifecycle.feed(live, event)
            return
        async with live.lock:
            await self._lifecycle.feed(live, event)
