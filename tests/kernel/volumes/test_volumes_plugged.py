"""Plugins that are silent, slow, dead or odd: what depends on them fails in time, nothing else does."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from havre.errors import Failed, NotFound, Unavailable
from havre.events import Events
from havre.plugins import Patience
from havre.storage import Database
from support.volumeplugin import VolumePlugin
from support.volumes import open_volumes

PATIENCE = Patience(connect_s=0.3, answer_s=0.5, passing_s=0.5)


@pytest.fixture
def plugin(tmp_path: Path) -> Iterator[VolumePlugin]:
    (tmp_path / "plugins").mkdir()
    (tmp_path / "kept").mkdir()
    plugin = VolumePlugin(tmp_path / "plugins/plug.sock", tmp_path / "kept")
    plugin.start()
    yield plugin
    plugin.kill()


def test_a_call_without_an_answer_ends(tmp_path: Path, plugin: VolumePlugin) -> None:
    async def run() -> None:
        database = await Database.open(tmp_path / "db")
        volumes = open_volumes(tmp_path / "volumes", database, Events(), tmp_path / "plugins", PATIENCE)
        await volumes.load()
        await volumes.create("slow", "plug", {"hang": "Mount"})
        with pytest.raises(Unavailable, match=r"plugin plug does not answer VolumeDriver\.Mount: no answer in time"):
            await volumes.mount_for("c", "slow")
        await volumes.release("c")
        assert plugin.calls("Unmount") == [{"Name": "slow", "ID": "c"}], "it may have mounted it after all"
        with pytest.raises(Unavailable, match=r"does not answer VolumeDriver\.Create"):
            await volumes.create("never", "plug", {"hang": "Create"})
        listed, warnings = await volumes.list({})
        assert ([volume.name for volume in listed], warnings) == (["slow"], [])
        await volumes.remove("slow")
        await database.close()

    asyncio.run(run())


def test_a_dead_one_fails_what_needs_it_alone(tmp_path: Path, plugin: VolumePlugin) -> None:
    async def run() -> None:
        database = await Database.open(tmp_path / "db")
        volumes = open_volumes(tmp_path / "volumes", database, Events(), tmp_path / "plugins", PATIENCE)
        await volumes.load()
        await volumes.create("data", "plug")
        plugin.kill()
        for work in (volumes.mount_for("c", "data"), volumes.remove("data"), volumes.inspect("data")):
            with pytest.raises(Unavailable, match="plugin plug does not answer"):
                await work
            await volumes.release("c")
        await volumes.create("mine")
        assert (await volumes.inspect("mine")).driver == "local"
        with pytest.raises(NotFound, match="get nope: no such volume"):
            await volumes.inspect("nope")
        assert await volumes.remove("data", force=True) == 0
        listed, (warning,) = await volumes.list({})
        assert [volume.name for volume in listed] == ["mine"]
        assert "plugin plug does not answer" in warning
        await database.close()

    asyncio.run(run())


def test_one_that_hangs_is_waited_for_once(tmp_path: Path, plugin: VolumePlugin) -> None:
    async def run() -> None:
        database = await Database.open(tmp_path / "db")
        patience = Patience(passing_s=1.0, silent_s=0.02)
        volumes = open_volumes(tmp_path / "volumes", database, Events(), tmp_path / "plugins", patience)
        await volumes.load()
        await volumes.create("data", "plug")
        plugin.signal(signal.SIGSTOP)
        took = []
        for _ in range(2):
            begun = time.monotonic()
            listed, (warning,) = await volumes.list({})
            took.append(time.monotonic() - begun)
            assert [volume.name for volume in listed] == ["data"]
            assert "plugin plug does not answer" in warning
        assert took[0] >= 1.0
        assert took[1] < 0.5
        plugin.signal(signal.SIGCONT)
        while (await volumes.list({}))[1]:  # it is heard again
            await asyncio.sleep(0.01)
        await database.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_what_a_dead_one_owes_is_asked_for_again(tmp_path: Path, plugin: VolumePlugin) -> None:
    async def run() -> None:
        database = await Database.open(tmp_path / "db")
        volumes = open_volumes(tmp_path / "volumes", database, Events(), tmp_path / "plugins", PATIENCE)
        await volumes.load()
        for name in ("data", "again"):
            await volumes.create(name, "plug")
            await volumes.mount_for("c", name)
        plugin.kill()
        await volumes.unmounted("c")
        plugin.start()
        await volumes.mount_for("c", "again")  # in use once more: that is not unmounted
        while not plugin.calls("Unmount"):
            await asyncio.sleep(0.01)
        assert plugin.calls("Unmount") == [{"Name": "data", "ID": "c"}]
        await database.close()

    asyncio.run(asyncio.wait_for(run(), 20))


def test_what_is_no_plugin_is_told_so(tmp_path: Path) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]")
        await writer.drain()
        writer.close()

    async def run() -> None:
        (tmp_path / "plugins").mkdir()
        database = await Database.open(tmp_path / "db")
        volumes = open_volumes(tmp_path / "volumes", database, Events(), tmp_path / "plugins", PATIENCE)
        await volumes.load()
        async with await asyncio.start_unix_server(answer, tmp_path / "plugins/odd.sock"):
            with pytest.raises(Failed, match="the answer is no JSON object"):
                await volumes.create("data", "odd")
        await database.close()

    asyncio.run(run())
