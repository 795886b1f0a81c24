"""Builds for several platforms at once: how many, and what becomes of the others when one fails."""

from __future__ import annotations

import asyncio
import os

import pytest

from havre.builds.platforms import PlatformsProgress, side_by_side
from havre.builds.progress import BuildEvent, Finished, Started, Vertex, vertex_of_context
from havre.builds.request import MAIN_CONTEXT


def test_as_many_at_a_time_as_processors() -> None:
    running, most = 0, 0

    async def work() -> int:
        nonlocal running, most
        running += 1
        most = max(most, running)
        for _ in range(5):
            await asyncio.sleep(0)
        running -= 1
        return most

    limit = max(2, os.cpu_count() or 1)
    results = asyncio.run(side_by_side([work] * (limit + 3)))
    assert most == limit
    assert len(results) == limit + 3


def test_the_first_failure_ends_the_others() -> None:
    ended = []

    async def waits() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append("waits")

    async def fails() -> None:
        await asyncio.sleep(0)
        raise ValueError("first")

    with pytest.raises(ValueError, match="first"):
        asyncio.run(side_by_side([waits, fails]))
    assert ended == ["waits"]


def test_what_is_no_platforms_is_told_once() -> None:
    told: list[BuildEvent] = []
    progress = PlatformsProgress(told.append, 2)
    context, step = vertex_of_context(MAIN_CONTEXT), Vertex("sha256:aa", "[2/3] RUN x", step=2, steps=3)
    for number, platform in enumerate(("linux/amd64", "linux/arm64")):
        tell = progress.of(platform, number)
        for vertex in (context, step):
            tell(Started(vertex, 1.0))
            tell(Finished(vertex, 2.0))
    shown = [(type(event).__name__, event.vertex.name, event.vertex.step) for event in told if hasattr(event, "vertex")]
    assert shown == [
        ("Started", context.name, 0),
        ("Finished", context.name, 0),
        ("Started", "[linux/amd64 2/3] RUN x", 2),
        ("Finished", "[linux/amd64 2/3] RUN x", 2),
        ("Started", "[linux/arm64 2/3] RUN x", 5),
        ("Finished", "[linux/arm64 2/3] RUN x", 5),
    ]
