"""Sockets of SSH agents in builds: a RUN cannot take the daemon's descriptors by them."""

from __future__ import annotations

import asyncio
from pathlib import Path

from havre.api.agents import agent_socket


def test_so_many_are_served_at_once_and_the_others_wait(tmp_path: Path) -> None:
    async def work() -> list[int]:
        served = 0
        changed = asyncio.Condition()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            nonlocal served
            async with changed:
                served += 1
                changed.notify_all()
            await reader.read()

        async def until(count: int) -> int:
            async with changed:
                await changed.wait_for(lambda: served >= count)
            return served

        path = tmp_path / "agent"
        async with agent_socket(path, serve):
            users = [await asyncio.open_unix_connection(path) for _ in range(70)]
            counts = [await until(64)]
            for number in range(3):
                users[number][1].close()
                counts.append(await until(65 + number))
            for _, writer in users:
                writer.close()
        return counts

    assert asyncio.run(asyncio.wait_for(work(), 20)) == [64, 65, 66, 67]
