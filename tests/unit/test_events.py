"""The event bus and its filters."""

from __future__ import annotations

import asyncio
import time

import pytest

from havre.containers.exits import Exits, WaitResult, check_condition
from havre.errors import InvalidInput
from havre.events import HISTORY, Actor, Event, Events, passes


def event(type: str = "container", action: str = "start", id: str = "abc", **attributes: str) -> Event:
    return Event(type, action, Actor(id, attributes), "local", 1, 1_000_000_000)


@pytest.mark.parametrize(
    ("filters", "wanted"),
    [
        ({}, True),
        ({"event": ["start"]}, True),
        ({"event": ["sta"]}, False),
        ({"event": ["exec_create", "start"]}, True),
        ({"type": ["image"]}, False),
        ({"container": ["web"]}, True),
        ({"container": ["ab"]}, True),
        ({"container": ["other"]}, False),
        ({"image": ["busybox"]}, True),
        ({"image": ["busybox:latest"]}, True),
        ({"label": ["k=v"]}, True),
        ({"label": ["k=w"]}, False),
        ({"unknown": ["x"]}, True),
    ],
)
def test_filters(filters: dict[str, list[str]], wanted: bool) -> None:
    assert passes(filters, event(name="web", image="busybox:latest", k="v")) == wanted


def test_exec_events_match_by_their_beginning() -> None:
    assert passes({"event": ["exec_create"]}, event(action="exec_create: sh"))


def test_subscribers_miss_nothing_after_subscribing() -> None:
    async def scenario() -> list[str]:
        events = Events()
        events.publish("container", "before", "1")
        stream = events.subscribe({}, since=0.0, until=time.time() + 0.2)
        events.publish("container", "after", "1")
        return [told.action async for told in stream]

    assert asyncio.run(scenario()) == ["before", "after"]


def test_the_past_alone() -> None:
    async def scenario() -> int:
        events = Events()
        for _ in range(HISTORY + 10):
            events.publish("container", "x", "1")
        return len([told async for told in events.subscribe({}, since=1.0, until=time.time())])

    assert asyncio.run(scenario()) == HISTORY


def test_since_after_until() -> None:
    with pytest.raises(InvalidInput, match="cannot be after"):
        Events().subscribe({}, since=2.0, until=1.0)


def test_waits() -> None:
    async def scenario() -> list[int]:
        exits = Exits()
        at_once = exits.wait("not-running", WaitResult(3))
        next_exit, removed = exits.wait("next-exit", None), exits.wait("removed", None)
        exits.exited(WaitResult(4))
        exits.removed(WaitResult(5))
        return [(await each.result()).code for each in (at_once, next_exit, removed)]

    assert asyncio.run(scenario()) == [3, 4, 5]


def test_conditions() -> None:
    assert check_condition("") == "not-running"
    with pytest.raises(InvalidInput, match="invalid condition"):
        check_condition("sometime")
