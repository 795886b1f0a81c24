"""`system df` measures what was asked for and nothing else: a walk through all volumes takes its time."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from havre.system.info import System


class Counted:
    """Images, containers and volumes at once; what was asked of them."""

    def __init__(self) -> None:
        self.asked: set[str] = set()

    def list(self, **_: object) -> list[Any]:
        self.asked.add("list")
        return []

    def layers_size(self) -> int:
        self.asked.add("layers")
        return 7

    def unused_size(self) -> int:
        self.asked.add("unused")
        return 3

    async def usage(self) -> list[Any]:
        self.asked.add("usage")
        return []


@pytest.mark.parametrize(
    ("kinds", "images", "containers", "volumes"),
    [
        (("image",), {"list", "layers", "unused"}, set(), set()),
        (("container",), set(), {"list"}, set()),
        (("volume",), set(), set(), {"usage"}),
        (("build-cache",), set(), set(), set()),
        (("container", "image", "volume"), {"list", "layers", "unused"}, {"list"}, {"usage"}),
    ],
)
def test_only_what_was_asked_for_is_measured(
    kinds: tuple[str, ...], images: set[str], containers: set[str], volumes: set[str]
) -> None:
    nouns = Counted(), Counted(), Counted()
    system = System(*cast(Any, (None, "id", None, None, *nouns)))
    answer = asyncio.run(system.disk_usage(kinds))
    assert [noun.asked for noun in nouns] == [images, containers, volumes]
    assert answer.layers_bytes == (7 if "image" in kinds else 0)
