"""Searching a registry: filters choose among all that it finds, then the limit cuts."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from havre.errors import InvalidInput
from havre.registry import Auth, FoundRepository
from support.imagery import FakeRegistry, staged


class Index(FakeRegistry):
    """A registry whose index has 60 repositories; every third is official."""

    asked = 0

    async def search(self, term: str, limit: int, auth: Auth | None = None) -> list[FoundRepository]:
        self.asked = limit
        return [FoundRepository(f"{term}{n}", star_count=n, is_official=n % 3 == 0) for n in range(60)][:limit]


def test_filters_come_before_the_limit(tmp_path: Path) -> None:
    async def main() -> None:
        index = Index()
        async with staged(tmp_path, index) as stage:
            found = await stage.images.search("x", 12, {"is-official": ["true"], "stars": ["20"]})
            assert [one.name for one in found] == [f"x{n}" for n in range(21, 55, 3)]
            assert [one.name for one in await stage.images.search("x", 2)] == ["x0", "x1"]
            assert index.asked == 2
            with pytest.raises(InvalidInput):
                await stage.images.search("x", 101, {"stars": ["1"]})

    asyncio.run(main())
