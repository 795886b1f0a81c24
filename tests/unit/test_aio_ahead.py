"""Items of an asynchronous iterator, each awaited while the caller is at the one before."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from havre.aio import ahead


class Source:
    def __init__(self, fail_at: int = 9) -> None:
        self.asked: list[int] = []
        self.closed = False
        self._fail_at = fail_at

    async def items(self) -> AsyncGenerator[int, None]:
        try:
            for number in range(4):
                self.asked.append(number)
                await asyncio.sleep(0)
                if number == self._fail_at:
                    raise OSError("no more")
                yield number
        finally:
            self.closed = True


def test_the_next_item_comes_meanwhile() -> None:
    source = Source()

    async def use() -> list[int]:
        seen = []
        async with aclosing(ahead(source.items())) as items:
            async for item in items:
                await asyncio.sleep(0)  # to the end of what is ready, which the next item's task is
                assert item == 3 or item + 1 in source.asked, "nobody has asked for the next one yet"
                seen.append(item)
        return seen

    assert asyncio.run(use()) == [0, 1, 2, 3]
    assert source.closed


def test_a_failure_comes_after_what_was_before_it() -> None:
    source, seen = Source(fail_at=2), list[int]()

    async def use() -> None:
        async with aclosing(ahead(source.items())) as items:
            async for item in items:
                seen.append(item)

    with pytest.raises(OSError, match="no more"):
        asyncio.run(use())
    assert (seen, source.closed) == ([0, 1], True)


def test_who_leaves_early_closes_the_source() -> None:
    source = Source()

    async def use() -> None:
        async with aclosing(ahead(source.items())) as items:
            async for _ in items:
                break

    asyncio.run(use())
    assert source.closed
    assert 2 not in source.asked
