"""Volumes on a real file system: what Docker's clients see of them, and what is on disk."""

from __future__ import annotations

import asyncio
import os
import stat
from collections.abc import Coroutine, Iterator
from pathlib import Path
from typing import Any, TypeVar

import pytest

from havre.errors import Conflict, Failed, HavreError, InvalidInput, NotFound
from havre.events import Events
from havre.linux import mounts
from havre.storage import Database
from havre.volumes.spec import ANONYMOUS, Volume
from support.trees import describe
from support.volumes import open_volumes

T = TypeVar("T")


class World:
    """Volumes below a directory of the test's own, and an event loop to use them in."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._runner = asyncio.Runner()
        self.events = Events()
        self.open()

    def open(self) -> None:
        self._database = self(Database.open(self.root / "db"))
        self.volumes = open_volumes(self.root / "volumes", self._database, self.events)
        self(self.volumes.load())

    def close(self) -> None:
        self(self._database.close())

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def reopen(self) -> None:
        self.close()
        self.open()

    def fill(self, name: str, rootfs: Path, path: str, container: str = "c") -> None:
        """As the start of a new container does."""
        self(self.volumes.mount_for(container, name))
        self(self.volumes.fill(name, rootfs, path))

    def names(self, **filters: str) -> list[str]:
        listed, _ = self(self.volumes.list({key: [value] for key, value in filters.items()}))
        return [volume.name for volume in listed]

    def create(self, *arguments: Any, **keywords: Any) -> Volume:
        volume, _ = self(self.volumes.create(*arguments, **keywords))
        return volume

    def image(self) -> Path:
        """A root file system with something to copy in it."""
        rootfs = self.root / "rootfs"
        (rootfs / "data/sub").mkdir(parents=True)
        (rootfs / "data/file").write_text("from the image")
        os.link(rootfs / "data/file", rootfs / "data/sub/same")
        (rootfs / "data/link").symlink_to("/etc/shadow")
        os.mkfifo(rootfs / "data/pipe")
        os.setxattr(rootfs / "data/file", "user.note", b"kept")
        os.chown(rootfs / "data/file", 1000, 1001)
        (rootfs / "data/file").chmod(0o4711)
        os.utime(rootfs / "data/sub", (5, 5))
        os.chown(rootfs / "data", 33, 34)
        (rootfs / "data").chmod(0o2770)
        return rootfs


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    world = World(tmp_path)
    try:
        yield world
    finally:
        for entry in reversed(mounts.mounts_below(tmp_path)):
            mounts.unmount_all(entry.target)
        world.close()


def test_a_volume_is_made_once_and_survives(world: World) -> None:
    made = world.create("data", labels={"a": "1"})
    again = world.create("data", labels={"b": "2"}, options={"type": "tmpfs", "device": "tmpfs"})
    assert again == made
    assert (made.driver, made.scope, made.labels, made.options) == ("local", "local", {"a": "1"}, None)
    assert stat.S_IMODE(Path(made.mountpoint).stat().st_mode) == 0o755
    world.reopen()
    assert world.volumes.get("data") == made


def test_without_a_name_it_is_anonymous(world: World) -> None:
    first, second = world.create(), world.create(labels={"x": "y"})
    assert len(first.name) == 64
    assert first.name != second.name
    assert second.labels == {ANONYMOUS: "", "x": "y"}


@pytest.mark.parametrize(
    ("name", "driver", "options", "error", "message"),
    [
        ("a", "", None, InvalidInput, "create a: volume name is too short, names should be at least two alphanumeric"),
        ("a/b", "", None, InvalidInput, 'create a/b: "a/b" includes invalid characters for a local volume name'),
        ("-ab", "", None, InvalidInput, 'create -ab: "-ab" includes invalid characters'),
        ("../ab", "", None, InvalidInput, "includes invalid characters"),
        ("a" * 300, "", None, InvalidInput, "includes invalid characters"),
        ("ab", "x", None, NotFound, 'create ab: error looking up volume plugin x: plugin "x" not found'),
        ("ab", "", {"foo": "bar"}, InvalidInput, 'create ab: invalid option: "foo"'),
        ("ab", "", {"type": "tmpfs"}, InvalidInput, 'create ab: missing required option: "device"'),
        ("ab", "", {"device": "/tmp"}, InvalidInput, 'create ab: missing required option: "type"'),
        ("ab", "", {"size": "10m"}, InvalidInput, "create ab: quota size requested but no quota support"),
    ],
)
def test_what_docker_refuses(
    world: World, name: str, driver: str, options: dict[str, str] | None, error: type[HavreError], message: str
) -> None:
    with pytest.raises(error) as caught:
        world.create(name, driver, options)
    assert caught.value.message.startswith(message) or message in caught.value.message
    assert world.names() == []
    assert os.listdir(world.root / "volumes") == []


def test_lists_are_filtered(world: World) -> None:
    world.create("web-data", labels={"tier": "web"})
    world.create("db-data")
    world(world.volumes.mount_for("c1", "db-data"))
    assert world.names() == ["db-data", "web-data"]
    assert world.names(name="web") == ["web-data"]
    assert world.names(name="-data$") == ["db-data", "web-data"]
    assert world.names(label="tier=web") == ["web-data"]
    assert world.names(driver="loc") == []
    assert world.names(dangling="true") == ["web-data"]
    assert world.names(dangling="0") == ["db-data"]
    with pytest.raises(InvalidInput, match="invalid filter 'bad'"):
        world.names(bad="x")


def test_one_in_use_is_not_removed(world: World) -> None:
    world.create("data")
    for container in ("c2", "c1"):
        world(world.volumes.mount_for(container, "data"))
    for force in (False, True):
        with pytest.raises(Conflict, match=r"^remove data: volume is in use - \[c1 c2\]"):
            world(world.volumes.remove("data", force))
    world(world.volumes.unmounted("c1"))
    world(world.volumes.release("c2"))
    with pytest.raises(Conflict, match=r"\[c1\]"):
        world(world.volumes.remove("data"))
    world(world.volumes.release("c1"))
    (world.root / "volumes/data/_data/f").write_bytes(b"12345")
    assert world(world.volumes.remove("data")) == 5
    assert os.listdir(world.root / "volumes") == []
    world.reopen()
    assert world.names() == []


def test_removing_what_is_not_there(world: World) -> None:
    with pytest.raises(NotFound, match=r"^get nope: no such volume"):
        world(world.volumes.remove("nope"))
    assert world(world.volumes.remove("nope", force=True)) == 0


def test_prune_takes_the_anonymous_unless_told_otherwise(world: World) -> None:
    named, kept = world.create("named"), world.create("labelled", labels={"keep": ""})
    anonymous, used = world.create(), world.create()
    world(world.volumes.mount_for("c", used.name))
    (Path(anonymous.mountpoint) / "f").write_bytes(b"123")
    pruned = world(world.volumes.prune({}))
    assert (pruned.deleted, pruned.reclaimed) == ((anonymous.name,), 3)
    pruned = world(world.volumes.prune({"all": ["true"], "label!": ["keep"]}))
    assert pruned.deleted == (named.name,)
    assert world.names() == sorted([kept.name, used.name])


def test_usage_is_told_where_it_is_asked_for(world: World) -> None:
    made = world.create("data")
    (Path(made.mountpoint) / "f").write_bytes(b"x" * 700)
    world(world.volumes.mount_for("c", "data"))
    (volume,) = world(world.volumes.usage())
    assert volume.usage_data.size == 700  # type: ignore[union-attr]
    assert volume.usage_data.ref_count == 1  # type: ignore[union-attr]


def test_a_tmpfs_volume_is_mounted_from_start_to_stop(world: World) -> None:
    options = {"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000,nosuid,noexec"}
    world.create("scratch", "local", options)
    path = world(world.volumes.mount_for("c1", "scratch"))
    assert world(world.volumes.mount_for("c2", "scratch")) == path
    (entry,) = mounts.mounts_below(path)
    assert entry.fstype == "tmpfs"
    assert {"nosuid", "noexec"} <= set(entry.options.split(","))
    assert "size=1024k" in entry.super_options
    assert path.stat().st_uid == 1000
    world(world.volumes.unmounted("c1"))
    assert len(mounts.mounts_below(path)) == 1
    world(world.volumes.unmounted("c2"))
    assert mounts.mounts_below(path) == []


def test_a_bind_volume_shows_its_device_and_honours_its_flags(world: World) -> None:
    device = world.root / "device"
    device.mkdir()
    (device / "f").write_text("x")
    world.create("bound", "local", {"type": "none", "device": str(device), "o": "bind,ro"})
    path = world(world.volumes.mount_for("c", "bound"))
    assert (path / "f").read_text() == "x"
    with pytest.raises(OSError, match="Read-only"):
        (path / "f").write_text("y")
    world(world.volumes.release("c"))
    world(world.volumes.remove("bound"))
    assert (device / "f").read_text() == "x"


def test_a_mount_that_fails_says_what_was_tried(world: World) -> None:
    world.create("bad", "local", {"type": "none", "device": "/nonexistent", "o": "bind"})
    expected = r"error while mounting volume '.*/bad/_data': failed to mount local volume: mount /nonexistent:.*, "
    with pytest.raises(Failed, match=expected + "flags: 0x1000: no such file or directory"):
        world(world.volumes.mount_for("c", "bad"))
    world(world.volumes.release("c"))
    world(world.volumes.remove("bad"))


def test_what_ran_before_a_restart_is_known_after_it(world: World) -> None:
    world.create("scratch", "local", {"type": "tmpfs", "device": "tmpfs"})
    path = world(world.volumes.mount_for("c", "scratch"))
    world.reopen()
    world.volumes.adopt("c", ["scratch"], running=True)
    with pytest.raises(Conflict):
        world(world.volumes.remove("scratch"))
    assert len(mounts.mounts_below(path)) == 1
    world(world.volumes.unmounted("c"))
    assert mounts.mounts_below(path) == []


def test_what_died_with_the_daemon_is_unmounted(world: World) -> None:
    world.create("scratch", "local", {"type": "tmpfs", "device": "tmpfs"})
    path = world(world.volumes.mount_for("c", "scratch"))
    world.reopen()
    world.volumes.adopt("c", ["scratch"], running=False)
    world(world.volumes.unmounted("c"))
    assert mounts.mounts_below(path) == []


def test_many_containers_at_once_share_one_mount(world: World) -> None:
    world.create("scratch", "local", {"type": "tmpfs", "device": "tmpfs"})

    async def live(container: str) -> None:
        for _ in range(3):
            path = await world.volumes.mount_for(container, "scratch")
            assert len(mounts.mounts_below(path)) == 1
            await world.volumes.unmounted(container)
        await world.volumes.release(container)

    async def all_of_them() -> None:
        await asyncio.gather(*(live(f"c{number}") for number in range(10)))

    world(all_of_them())
    assert mounts.mounts_below(world.root) == []


def test_removal_cut_short_is_finished_and_a_lost_row_costs_no_data(world: World) -> None:
    made = world.create("data")
    (Path(made.mountpoint) / "f").write_text("precious")
    (world.root / "volumes/.gone-old/_data").mkdir(parents=True)
    (world.root / "volumes/data/_data.new").mkdir()
    world.close()
    for file in world.root.glob("db*"):
        file.unlink()
    world.open()
    assert (Path(world.volumes.get("data").mountpoint) / "f").read_text() == "precious"
    assert os.listdir(world.root / "volumes") == ["data"]
    assert os.listdir(world.root / "volumes/data") == ["_data"]


class TestFill:
    def test_an_empty_volume_begins_with_the_images_content(self, world: World) -> None:
        rootfs, made = world.image(), world.create("data")
        world.fill("data", rootfs, "/data")
        data = Path(made.mountpoint)
        assert describe(data) == describe(rootfs / "data")
        assert (data.stat().st_mode, data.stat().st_uid, data.stat().st_gid) == (0o042770, 33, 34)
        assert os.listdir(data.parent) == ["_data"]

    def test_one_with_content_stays_as_it_is(self, world: World) -> None:
        rootfs, made = world.image(), world.create("data")
        (Path(made.mountpoint) / "mine").touch()
        world.fill("data", rootfs, "/data")
        assert os.listdir(made.mountpoint) == ["mine"]

    def test_one_that_was_emptied_later_stays_so(self, world: World) -> None:
        rootfs, made = world.image(), world.create("data")
        world.fill("data", rootfs, "/data")
        for name in ("file", "link", "pipe", "sub/same"):
            (Path(made.mountpoint) / name).unlink()
        (Path(made.mountpoint) / "sub").rmdir()
        world(world.volumes.mount_for("c", "data"))
        world(world.volumes.fill("data", rootfs, "/data"))  # the same container starts again
        assert os.listdir(made.mountpoint) == []
        world.fill("data", rootfs, "/data", container="another")
        assert len(os.listdir(made.mountpoint)) == 4

    def test_another_containers_view_is_not_taken_away(self, world: World) -> None:
        rootfs, made = world.image(), world.create("data")
        world(world.volumes.mount_for("other", "data"))
        before = Path(made.mountpoint).stat().st_ino
        world.fill("data", rootfs, "/data")
        assert Path(made.mountpoint).stat().st_ino == before
        assert describe(Path(made.mountpoint)) == describe(rootfs / "data")

    def test_nothing_where_the_image_has_nothing(self, world: World) -> None:
        rootfs, made = world.image(), world.create("data")
        for path in ("/absent", "/absent/deeper", "/data/file/below"):
            world.fill("data", rootfs, path, container=path)
        assert os.listdir(made.mountpoint) == []

    def test_a_file_is_no_directory(self, world: World) -> None:
        rootfs = world.image()
        world.create("data")
        with pytest.raises(Failed, match="is not directory"):
            world.fill("data", rootfs, "/data/file")
        assert os.listdir(world.root / "volumes/data") == ["_data"]

    @pytest.mark.parametrize("target", ["/outside", "../../../../../../outside", "../outside"])
    def test_links_in_the_image_lead_nowhere_else(self, world: World, target: str) -> None:
        # CVE-2022-23648: a volume at a path that resolves to a directory of the host.
        rootfs, made = world.image(), world.create("data")
        (world.root / "outside").mkdir()
        (world.root / "outside/secret").touch()
        (rootfs / "trap").symlink_to(target if target.startswith("..") else str(world.root / "outside"))
        world.fill("data", rootfs, "/trap")
        world.fill("data", rootfs, "/data/../../outside", container="another")
        assert os.listdir(made.mountpoint) == []

    def test_into_a_tmpfs(self, world: World) -> None:
        rootfs = world.image()
        world.create("scratch", "local", {"type": "tmpfs", "device": "tmpfs"})
        path = world(world.volumes.mount_for("c", "scratch"))
        world(world.volumes.fill("scratch", rootfs, "/data"))
        assert sorted(os.listdir(path)) == ["file", "link", "pipe", "sub"]
        assert len(mounts.mounts_below(path)) == 1


def test_a_name_is_free_when_its_rename_is_finished(world: World) -> None:
    async def both() -> None:
        await asyncio.gather(
            world.volumes.rename("here", "there"),
            world.volumes.create("here", labels={"of": "second"}),
            world.volumes.create("there", labels={"of": "third"}),
        )

    def labels() -> dict[str, object]:
        return {name: world.volumes.get(name).labels for name in world.names()}

    world.create("here", labels={"of": "first"})
    world(both())
    assert labels() == {"there": {"of": "first"}, "here": {"of": "second"}}
    (world.root / "volumes/there/_renamed").symlink_to("here/there")  # as a daemon killed at a rename's end leaves it
    world.reopen()
    assert labels() == {"there": {"of": "first"}, "here": {"of": "second"}}
