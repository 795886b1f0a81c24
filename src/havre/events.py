r"""The event bus with its short history, and the filters of `GET /events`.

A subscription is registered before `subscribe` returns, so no later event is missed. Each has a bounded queue; when a
slow subscriber fills it, its oldest events are dropped and the engine is not delayed.

    publish --> history (last 256)
            \-> queue of each subscription --> filter --> async for
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping

import msgspec

from havre.errors import InvalidInput
from havre.wire.filters import Filters, matches_exactly, matches_labels, matches_prefix

HISTORY = 256
QUEUE = 4096
_BY_PREFIX = frozenset({"health_status", "exec_create", "exec_start"})


class Actor(msgspec.Struct, frozen=True):
    """The object that an event is about."""

    id: str = msgspec.field(name="ID")
    attributes: dict[str, str] = msgspec.field(name="Attributes")


class Event(msgspec.Struct, frozen=True):
    """One event in Docker's shape; `time` in seconds and `time_nano` in nanoseconds since the epoch."""

    type: str = msgspec.field(name="Type")
    action: str = msgspec.field(name="Action")
    actor: Actor = msgspec.field(name="Actor")
    scope: str
    time: int
    time_nano: int = msgspec.field(name="timeNano")


class Events:
    """The bus. Publishing never blocks and never fails."""

    def __init__(self) -> None:
        self._history: deque[Event] = deque(maxlen=HISTORY)
        self._subscriptions: set[EventStream] = set()

    def publish(self, type: str, action: str, id: str, attributes: Mapping[str, str] | None = None) -> None:
        """Add an event to the history and offer it to all subscribers."""
        now = time.time_ns()
        actor = Actor(id, dict(attributes or {}))
        event = Event(type, action, actor, "local", now // 1_000_000_000, now)
        self._history.append(event)
        for stream in self._subscriptions:
            stream.offer(event)

    def subscribe(self, filters: Filters, since: float | None = None, until: float | None = None) -> EventStream:
        """Events from `since` (history included) to `until`, both seconds since the epoch.

        Without them: from now on, without end. Close the stream when done. Raises `InvalidInput` if `since` is
        after `until`.
        """
        if since is not None and until is not None and since > until:
            raise InvalidInput("`since` time cannot be after `until` time")
        stream = EventStream(filters, until, self._subscriptions)
        for event in self._remembered(since, until):
            stream.offer(event)
        return stream

    def _remembered(self, since: float | None, until: float | None) -> list[Event]:
        if since is None and (until is None or until > time.time()):
            return []
        first = int((since or 0.0) * 1e9)
        return [event for event in self._history if event.time_nano >= first]


class EventStream:
    """One subscriber's events: iterate with `async for`; ends at `until` or after `close()`."""

    def __init__(self, filters: Filters, until: float | None, registry: set[EventStream]) -> None:
        self._filters = filters
        self._until = until
        self._queue: deque[Event] = deque(maxlen=QUEUE)
        self._wake = asyncio.Event()
        self._registry = registry
        registry.add(self)

    def offer(self, event: Event) -> None:
        """Queue `event` if it matches the filters."""
        if self._until is not None and event.time_nano > self._until * 1e9:
            return
        if passes(self._filters, event):
            self._queue.append(event)
            self._wake.set()

    def close(self) -> None:
        """End the subscription; idempotent."""
        self._registry.discard(self)
        self._until = 0.0
        self._wake.set()

    async def __aiter__(self) -> AsyncIterator[Event]:
        try:
            while True:
                while self._queue:
                    yield self._queue.popleft()
                self._wake.clear()
                remaining = None if self._until is None else self._until - time.time()
                if remaining is not None and remaining <= 0:
                    return
                try:
                    await asyncio.wait_for(self._wake.wait(), remaining)
                except TimeoutError:
                    continue
        finally:
            self.close()


def passes(filters: Filters, event: Event) -> bool:
    """Report whether an event matches. Objects match by ID or name prefix, as with Docker; unknown keys are ignored."""
    name = event.actor.attributes.get("name", "")
    return (
        _action_wanted(filters, event.action)
        and matches_exactly(filters, "type", event.type)
        and matches_exactly(filters, "scope", event.scope)
        and matches_labels(filters, event.actor.attributes)
        and all(
            matches_prefix(filters, noun, event.actor.id) or matches_prefix(filters, noun, name)
            for noun in ("container", "volume", "network", "plugin", "daemon")
        )
        and _image_wanted(filters, event)
    )


def _action_wanted(filters: Filters, action: str) -> bool:
    if _BY_PREFIX.intersection(filters.get("event", ())):
        return matches_prefix(filters, "event", action)
    return matches_exactly(filters, "event", action)


def _image_wanted(filters: Filters, event: Event) -> bool:
    """Image filters match the image's own events and those of its containers; the tag may be omitted."""
    wanted = filters.get("image")
    if not wanted:
        return True
    attribute = "name" if event.type == "image" else "image"
    name = event.actor.attributes.get(attribute, "")
    return any(value in (event.actor.id, name, _without_tag(name)) for value in wanted)


def _without_tag(name: str) -> str:
    head, slash, tail = name.rpartition("/")
    return head + slash + tail.partition(":")[0]
