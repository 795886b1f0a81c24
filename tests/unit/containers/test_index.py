"""The index of containers: what is recorded late, once there is room again."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from havre.containers.container import Container
from havre.containers.live import Index, Live
from havre.errors import Failed
from support.rows import container_row


class Rows:
    """A table on a disk that may be full; a write that `pauses` lets others go first."""

    def __init__(self) -> None:
        self.damaged: Mapping[str, bytes] = {}
        self.rows: dict[str, Container] = {}
        self.full = False
        self.pauses = ""
        self.go_on = asyncio.Event()

    async def all(self) -> dict[str, Container]:
        return dict(self.rows)

    async def put(self, key: str, value: Container, *, urgent: bool = False, lazily: bool = False) -> None:
        if self.full:
            raise Failed("no space left on device")
        self.rows[key] = value
        if key == self.pauses:
            await self.go_on.wait()

    async def delete(self, key: str) -> None:
        self.rows.pop(key, None)


def container(name: str) -> Container:
    return container_row(name, id=name * 8)


def test_what_was_removed_while_others_were_recorded_late_stays_removed() -> None:
    async def work() -> None:
        table = Rows()
        index = Index(table)  # type: ignore[arg-type]
        first, *others = (container(name) for name in "abc")
        for each in (first, *others):
            index.add(Live(each))
            table.rows[each.id] = each
        table.full = True
        for each in others:
            await index.note(each)
        table.full = False
        at_first = next(iter(index._unrecorded))
        removed = next(each for each in others if each.id != at_first)
        table.pauses = at_first
        recording = asyncio.ensure_future(index.save(first))
        await asyncio.sleep(0)
        assert not recording.done()
        await index.remove(removed)
        table.go_on.set()
        await recording
        assert set(table.rows) == {first.id, at_first}

    asyncio.run(work())
