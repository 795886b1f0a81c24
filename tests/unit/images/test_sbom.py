"""Lists of packages of images: looked for once at a time, beside the shared threads, never too long."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest

from havre import aio
from havre.images import sbom
from havre.images.inventory import take_inventory
from havre.images.sbom import Inventories
from havre.oci.digest import Digest
from havre.packages.model import Inventory
from support.imagery import config_of, layer_tar

CONFIG = config_of(layer_tar("x"))


@dataclass
class Tree:
    """A storage in which all layers are one directory."""

    root: Path

    @asynccontextmanager
    async def mounted(self, layers: Sequence[Digest]) -> AsyncIterator[Path]:
        yield self.root


@pytest.fixture
def inventories(tmp_path: Path) -> Inventories:
    for number in range(20):
        package = tmp_path / f"node_modules/m{number}/package.json"
        package.parent.mkdir(parents=True)
        package.write_text('{"name": "m", "version": "1"}')
    return Inventories(Tree(tmp_path))  # type: ignore[arg-type]


def test_an_image_is_looked_at_once(inventories: Inventories, monkeypatch: pytest.MonkeyPatch) -> None:
    """By all who ask meanwhile, also where the first has left, and by none of the threads that all share."""
    looks: list[threading.Thread] = []
    begun, go_on = threading.Event(), threading.Event()

    def look(root: Path) -> Inventory:
        looks.append(threading.current_thread())
        begun.set()
        assert go_on.wait(20)
        return take_inventory(root)

    async def work() -> None:
        asked = [asyncio.create_task(inventories.render(CONFIG, "x")) for _ in range(3)]
        assert await aio.in_own_thread(begun.wait, 20)
        asked[0].cancel()
        asked.append(asyncio.create_task(inventories.render(CONFIG, "y", "cyclonedx-json")))
        await asyncio.wait(asked[:1])
        go_on.set()
        first, *others = await asyncio.gather(*asked, return_exceptions=True)
        assert isinstance(first, asyncio.CancelledError)
        assert all(isinstance(other, bytes) for other in others), others
        await inventories.render(CONFIG, "x")

    monkeypatch.setattr(sbom, "take_inventory", look)
    asyncio.run(asyncio.wait_for(work(), 20))
    assert len(looks) == 1
    assert looks[0] not in aio.SHARED._threads


@pytest.mark.parametrize(("form", "packages"), [("spdx-json", "packages"), ("cyclonedx-json", "components")])
def test_a_list_that_is_too_long_is_cut_and_tells_so(
    inventories: Inventories, form: str, packages: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = asyncio.run(inventories.render(CONFIG, "x", form))
    monkeypatch.setattr(sbom, "MAX_ATTESTED", len(whole) // 2)
    cut = asyncio.run(inventories.render(CONFIG, "x", form))
    assert len(cut) <= len(whole) // 2
    assert 0 < len(json.loads(cut)[packages]) < len(json.loads(whole)[packages]) // 2
    assert b" of 20 packages are listed" in cut
