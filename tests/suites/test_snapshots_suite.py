"""One contract for containers' root file systems, run on every storage driver this machine can use.

`at-once` is the overlay driver as kernels before `lowerdir+` mount it.
"""

from __future__ import annotations

import asyncio
import dataclasses
import io
import os
import shutil
import stat
import subprocess
import sys
import tarfile
import threading
from collections.abc import Callable, Coroutine, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

import pytest

from havre.errors import Conflict, Failed, InvalidInput, NotFound
from havre.linux import mounts
from havre.linux.idmap import IdRange, as_root_of
from havre.oci.digest import Digest, hex_of
from havre.storage import Storage, collect, store
from havre.storage.drivers import Abilities, Driver, choose_driver
from support import tars
from support.trees import describe

T = TypeVar("T")

DRIVERS = ("erofs", "erofs-loop", "overlay", "at-once", "copy")

BASE = (
    tars.directory(b"./", mode=0o751, uid=7, gid=8, mtime=1234)
    + tars.directory(b"etc", uid=1)
    + tars.member(b"etc/hosts", b"base hosts")
    + tars.member(b"etc/removed", b"gone in the next layer")
    + tars.directory(b"opt")
    + tars.member(b"opt/old", b"hidden by an opaque directory")
    + tars.directory(b"bin")
    + tars.member(b"bin/tool", b"#!/bin/sh\n" * 300, mode=0o4755)
    + tars.hardlink(b"bin/alias", b"bin/tool")
    + tars.symlink(b"lib", b"bin")
    + tars.member(b"kept", b"untouched")
)
MIDDLE = (
    tars.directory(b"etc", uid=2, mode=0o700)
    + tars.member(b"etc/hosts", b"newer hosts")
    + tars.member(b"etc/.wh.removed")
    + tars.directory(b"opt")
    + tars.member(b"opt/.wh..wh..opq")
    + tars.member(b"opt/new", b"shown")
)


class World:
    """A data root and a run root of the test's own, and an event loop to use them in."""

    def __init__(self, root: Path, driver: str, monkeypatch: pytest.MonkeyPatch) -> None:
        self.data, self.run = root / "data", root / "run"
        self.driver = "overlay" if driver == "at-once" else driver
        if driver == "at-once":

            def without_append(wanted: str | None, can: Abilities) -> Driver:
                return dataclasses.replace(choose_driver(wanted, can), append=False)

            monkeypatch.setattr(store, "choose_driver", without_append)
        self._runner = asyncio.Runner()
        self.storage = self.open()

    def open(self) -> Storage:
        self.storage = self(Storage.open(self.data, self.run, driver=self.driver))
        return self.storage

    def __call__(self, work: Coroutine[Any, Any, T]) -> T:
        return self._runner.run(work)

    def layer(self, tar: bytes) -> Digest:
        async def ingest() -> Digest:
            async with self.storage.layers.ingest() as sink:
                await sink.write(tar + tars.END)
                return (await sink.finish()).diff_id

        return self(ingest())

    def rootfs(self, id: str, *layers: Digest) -> Path:
        self(self.storage.snapshots.create(id, layers))
        return self(self.storage.snapshots.mount(id))

    def changes(self, id: str) -> list[tuple[str, str]]:
        return [(change.kind, change.path) for change in self(self.storage.snapshots.changes(id))]

    def mounted(self) -> list[Path]:
        return [entry.target for entry in mounts.mounts_below(self.data.parent)]

    def close(self) -> None:
        self(self.storage.close())
        for target in reversed(self.mounted()):
            mounts.unmount_all(target)
        self._runner.close()


@pytest.fixture(params=DRIVERS)
def world(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[World]:
    world = World(tmp_path, request.param, monkeypatch)
    try:
        yield world
    finally:
        world.close()


def test_the_layers_show_merged(world: World) -> None:
    root = world.rootfs("c", world.layer(BASE), world.layer(MIDDLE))
    assert sorted(os.listdir(root)) == ["bin", "etc", "kept", "lib", "opt"]
    assert (root / "etc/hosts").read_bytes() == b"newer hosts"
    assert os.listdir(root / "etc") == ["hosts"]
    assert os.listdir(root / "opt") == ["new"]
    assert (stat.S_IMODE((root / "etc").stat().st_mode), (root / "etc").stat().st_uid) == (0o700, 2)
    tool = (root / "bin/tool").stat()
    assert (stat.S_IMODE(tool.st_mode), tool.st_ino) == (0o4755, (root / "bin/alias").stat().st_ino)
    assert os.readlink(root / "lib") == "bin"


def test_other_ids_are_shown_and_never_kept(world: World) -> None:
    """Copied up, created, given away, removed: seen from the host it is the range's, on disk it is as inside."""
    ids, snapshots = IdRange(500_000, 600_000, 1000), world.storage.snapshots
    layers = world.layer(BASE + tars.member(b"nobody's", b"", uid=2000)), world.layer(MIDDLE)
    world(snapshots.create("c", layers))
    root = world(snapshots.mount("c", ids))
    assert (root.stat().st_uid, root.stat().st_gid) == (500_007, 600_008)
    assert (root / "etc").stat().st_uid == 500_002
    assert (root / "nobody's").stat().st_uid == 65534
    with as_root_of(ids):
        (root / "made").write_bytes(b"new")
        (root / "etc/hosts").write_bytes(b"copied up")
        (root / "etc/dir").mkdir()
    os.chown(root / "made", 500_005, 600_006)
    (root / "kept").unlink()
    with pytest.raises(OSError, match="too large"):
        (root / "the host's root has no name here").touch()
    assert os.geteuid() == 0
    assert (world.data.parent / "anywhere").mkdir() is None
    assert (world.data.parent / "anywhere").stat().st_uid == 0
    world(snapshots.unmount("c"))
    assert [entry for entry in world.mounted() if "/snapshots/c" in str(entry)] == []
    assert not list(world.run.glob("snapshots/c*"))
    root = world(snapshots.mount("c"))
    assert ((root / "made").stat().st_uid, (root / "made").stat().st_gid) == (5, 6)
    assert {(root / "etc" / name).stat().st_uid for name in ("hosts", "dir")} == {0}
    assert not (root / "kept").exists()
    assert {("A", "/made"), ("C", "/etc/hosts"), ("A", "/etc/dir"), ("D", "/kept")} <= set(world.changes("c"))


def test_layers_merged_into_a_snapshot_are_as_if_below_it(world: World) -> None:
    base, middle = world.layer(BASE + tars.directory(b"opt/a/b") + tars.member(b"opt/a/b/c", b"")), world.layer(MIDDLE)
    stacked, merged = world.rootfs("stacked", base, middle), world.rootfs("merged", base)
    world(world.storage.snapshots.merge("merged", [middle]))
    assert describe(merged) == describe(stacked)


def test_a_merge_that_is_cancelled_ends_when_nothing_is_written_any_more(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, go_on = threading.Event(), threading.Event()

    def write(*_: object) -> None:
        writing.set()
        assert go_on.wait(30)

    async def cancel() -> None:
        merge = asyncio.ensure_future(world.storage.snapshots.merge("c", [middle]))
        await asyncio.to_thread(writing.wait, 30)
        merge.cancel()
        await asyncio.wait([merge], timeout=0.1)
        assert not merge.done(), "the snapshot may be removed while a thread writes into it"
        go_on.set()
        with pytest.raises(asyncio.CancelledError):
            await merge

    world.rootfs("c", world.layer(BASE))
    middle = world.layer(MIDDLE)
    monkeypatch.setattr("havre.storage.snapshots.merge_layers", write)
    try:
        world(cancel())
    finally:
        go_on.set()


def test_the_root_directory_is_the_topmost_layers_that_has_one(world: World) -> None:
    root = world.rootfs("c", world.layer(BASE), world.layer(MIDDLE)).stat()
    assert (stat.S_IMODE(root.st_mode), root.st_uid, root.st_gid) == (0o751, 7, 8)
    bare = world.rootfs("d", world.layer(MIDDLE)).stat()
    assert (stat.S_IMODE(bare.st_mode), bare.st_uid) == (0o755, 0)


def test_what_is_written_stays_and_is_the_containers_own(world: World) -> None:
    layers = world.layer(BASE), world.layer(MIDDLE)
    root, other = world.rootfs("c", *layers), world.rootfs("d", *layers)
    (root / "etc/hosts").write_bytes(b"mine")
    (root / "bin/tool").unlink()
    os.rename(root / "kept", root / "moved")
    world(world.storage.snapshots.unmount("c"))
    root = world(world.storage.snapshots.mount("c"))
    assert (root / "etc/hosts").read_bytes() == b"mine"
    assert not (root / "bin/tool").exists()
    assert (root / "moved").read_bytes() == b"untouched"
    assert (other / "etc/hosts").read_bytes() == b"newer hosts"
    assert (other / "bin/tool").exists()


def test_every_call_may_be_repeated(world: World) -> None:
    snapshots = world.storage.snapshots
    root = world.rootfs("c", world.layer(BASE))
    assert world(snapshots.mount("c")) == root
    for _ in range(2):
        world(snapshots.unmount("c"))
    for _ in range(2):
        world(snapshots.remove("c"))
    assert os.listdir(world.data / "snapshots") == os.listdir(world.run / "snapshots") == []
    with pytest.raises(NotFound):
        world(snapshots.mount("c"))


def test_what_comes_next_waits_for_what_goes_on_in_the_background(world: World) -> None:
    snapshots, layer = world.storage.snapshots, world.layer(BASE)
    (world.rootfs("c", layer) / "written").write_bytes(b"mine")

    async def again() -> None:
        for _ in range(5):
            snapshots.unmount_later("c")
            assert ((await snapshots.mount("c")) / "written").read_bytes() == b"mine"
        await snapshots.abandon("c")
        with pytest.raises(NotFound):
            await snapshots.mount("c")
        await snapshots.create("c", [layer])
        root = await snapshots.mount("c")
        assert (root / "etc/hosts").exists()
        assert not (root / "written").exists()
        await snapshots.abandon("c")

    world(again())
    world(snapshots.close())
    assert os.listdir(world.data / "snapshots") == os.listdir(world.run / "snapshots") == []


def test_many_at_once(world: World) -> None:
    layers = [world.layer(BASE), world.layer(MIDDLE)]
    snapshots = world.storage.snapshots

    async def live(id: str) -> None:
        await snapshots.create(id, layers)
        roots = await asyncio.gather(*(snapshots.mount(id) for _ in range(4)))
        assert len(set(roots)) == 1
        assert (roots[0] / "etc/hosts").read_bytes() == b"newer hosts"
        await asyncio.gather(snapshots.unmount(id), snapshots.unmount(id))
        await snapshots.remove(id)

    async def all_of_them() -> None:
        await asyncio.gather(*(live(f"c{number}") for number in range(20)))

    world(all_of_them())
    assert os.listdir(world.data / "snapshots") == os.listdir(world.run / "snapshots") == []


def test_a_failed_creation_leaves_nothing(world: World) -> None:
    snapshots, missing = world.storage.snapshots, Digest("sha256:" + "0" * 64)
    present = world.layer(BASE)
    with pytest.raises(NotFound, match="0000"):
        world(snapshots.create("c", [present, missing]))
    for bad in ("", "../c", "a/b", ".c", "c.tmp"):
        with pytest.raises(InvalidInput):
            world(snapshots.create(bad, [present]))
    world(snapshots.create("c", [present]))
    with pytest.raises(Conflict):
        world(snapshots.create("c", [present]))
    world(snapshots.remove("c"))
    assert os.listdir(world.data / "snapshots") == []
    assert snapshots.layers_in_use() == set()


def test_a_damaged_layer_is_refused(world: World) -> None:
    one, other = world.layer(BASE), world.layer(MIDDLE)
    directory = world.data / "layers" / hex_of(one)
    if (directory / "index").exists():
        shutil.copy(world.data / "layers" / hex_of(other) / "index", directory / "index")
    else:
        shutil.rmtree(directory)

    def use() -> None:
        world(world.storage.snapshots.create("c", [one]))
        world(world.storage.snapshots.mount("c"))

    with pytest.raises((Failed, NotFound), match=one):
        use()
    assert world.mounted() == []


def test_no_layers_at_all(world: World) -> None:
    root = world.rootfs("c")
    (root / "f").write_text("x")
    assert world.changes("c") == [("A", "/f")]


def test_a_layer_that_is_there_twice(world: World) -> None:
    base, top = world.layer(BASE), world.layer(tars.directory(b"etc") + tars.member(b"etc/.wh.hosts"))
    rootfs = world.rootfs("c1", base, top, base, top)
    assert not (rootfs / "etc/hosts").exists()
    assert (rootfs / "etc/removed").exists()
    world(world.storage.snapshots.remove("c1"))


def test_sixty_layers(world: World) -> None:
    layers = [world.layer(tars.member(b"n", b"%d" % n) + tars.member(b"f%d" % n, b"x" * n)) for n in range(60)]
    root = world.rootfs("c", *layers)
    assert (root / "n").read_bytes() == b"59"
    assert len(os.listdir(root)) == 61
    (root / "f7").unlink()
    assert world.changes("c") == [("D", "/f7")]


def test_a_layer_is_mounted_once_and_while_it_is_used(world: World) -> None:
    layer = world.layer(BASE)
    world.rootfs("c", layer)
    world.rootfs("d", layer)
    mounted = world.run / "layers" / hex_of(layer)
    assert world.mounted().count(mounted) == (1 if world.driver.startswith("erofs") else 0)
    world(world.storage.snapshots.remove("c"))
    assert world(collect(world.storage, set(), set())) == 0  # d needs it still
    world(world.storage.snapshots.remove("d"))
    assert world(collect(world.storage, set(), set())) > 0
    assert world.mounted() == []
    world(world.storage.layers.swept())
    assert os.listdir(world.data / "layers") == []


def test_what_is_held_is_not_collected(world: World) -> None:
    layer, blob = world.layer(BASE), world(world.storage.blobs.add(b"{}"))
    with world.storage.hold(layer, blob), world.storage.hold(layer):
        assert world(collect(world.storage, set(), set())) == 0
    assert world(collect(world.storage, {layer}, {blob})) == 0
    assert world(collect(world.storage, set(), {blob})) > 0
    assert world.storage.blobs.has(blob)


def test_size_counts_what_was_written(world: World) -> None:
    root = world.rootfs("c", world.layer(BASE))
    assert world(world.storage.snapshots.size("c")) == 0
    (root / "new").mkdir()
    (root / "new/file").write_bytes(b"x" * 5000)
    os.link(root / "new/file", root / "new/again")
    (root / "kept").write_bytes(b"changed")
    (root / "etc/hosts").unlink()
    assert world(world.storage.snapshots.size("c")) == 5007
    world(world.storage.snapshots.unmount("c"))
    assert world(world.storage.snapshots.size("c")) == 5007


def _replace_file_by_directory(root: Path) -> None:
    (root / "kept").unlink()
    (root / "kept").mkdir()
    (root / "kept/f").touch()


def _replace_directory_by_file(root: Path) -> None:
    shutil.rmtree(root / "bin")
    (root / "bin").touch()


def _make_directory_anew(root: Path) -> None:
    shutil.rmtree(root / "opt")
    (root / "opt").mkdir()
    (root / "opt/other").touch()


def _add_a_tree(root: Path) -> None:
    (root / "a/b").mkdir(parents=True)
    (root / "a/b/c").symlink_to("nowhere")


def _make_and_remove(root: Path) -> None:
    (root / "passing").touch()
    (root / "passing").unlink()


CHANGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "nothing": (lambda root: (root / "kept").read_bytes(), ""),
    "a file added": (lambda root: (root / "etc/new").touch(), "C /etc, A /etc/new"),
    "a file deleted": (lambda root: (root / "etc/hosts").unlink(), "C /etc, D /etc/hosts"),
    "a file written": (lambda root: (root / "kept").write_bytes(b"12345"), "C /kept"),
    "a mode changed": (lambda root: (root / "etc/hosts").chmod(0o600), "C /etc, C /etc/hosts"),
    "a directory's mode changed": (lambda root: (root / "etc").chmod(0o711), "C /etc"),
    "a file renamed": (lambda root: os.rename(root / "kept", root / "etc/k"), "C /etc, A /etc/k, D /kept"),
    "a directory deleted": (lambda root: shutil.rmtree(root / "bin"), "D /bin"),
    "a directory for a file": (_replace_file_by_directory, "C /kept, A /kept/f"),
    "a file for a directory": (_replace_directory_by_file, "C /bin"),
    "a directory made anew": (_make_directory_anew, "C /opt, D /opt/old, A /opt/other"),
    "a tree added": (_add_a_tree, "A /a, A /a/b, A /a/b/c"),
    "made and removed": (_make_and_remove, ""),
    "a name that is no UTF-8": (lambda root: os.close(os.open(os.fsencode(root) + b"/\xff", os.O_CREAT)), "A /\ufffd"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_changes_are_told_as_docker_tells_them(world: World, name: str) -> None:
    act, expected = CHANGES[name]
    root = world.rootfs("c", world.layer(BASE))
    act(root)
    assert ", ".join(f"{kind} {path}" for kind, path in world.changes("c")) == expected
    world(world.storage.snapshots.unmount("c"))
    assert ", ".join(f"{kind} {path}" for kind, path in world.changes("c")) == expected


@pytest.mark.parametrize("name", CHANGES)
def test_the_changes_as_a_layer_give_the_same_files_again(world: World, name: str) -> None:
    base = world.layer(BASE)
    root = world.rootfs("c", base)
    CHANGES[name][0](root)

    async def commit() -> Digest:
        async with world.storage.layers.ingest() as sink:
            async for piece in world.storage.snapshots.diff_tar("c"):
                await sink.write(piece)
            return (await sink.finish()).diff_id

    again = world.rootfs("d", base, world(commit()))
    assert _as_layers_keep_it(describe(again)) == _as_layers_keep_it(describe(root))
    assert world.changes("d") == []


def _as_layers_keep_it(tree: dict[bytes, tuple[Any, ...]]) -> dict[bytes, tuple[Any, ...]]:
    """Whole seconds, and no marks of overlayfs."""
    return {
        path: (*row[:3], row[3] // 10**9, *row[4:6], {k: v for k, v in row[6].items() if "overlay" not in k}, *row[7:])
        for path, row in tree.items()
    }


def test_what_the_runtime_mounts_over_is_no_change(world: World) -> None:
    base = world.layer(tars.directory(b"etc") + tars.member(b"etc/hostname", b"the image's own"))
    root = world.rootfs("c", base)
    for directory in ("proc", "sys", "dev", "dev/pts"):
        (root / directory).mkdir()
    for file in ("etc/hosts", "etc/resolv.conf", "dev/console"):
        (root / file).touch()
    assert world.changes("c") == []
    (root / "dev/mine").touch()
    (root / "etc/hosts").write_text("by hand")
    (root / "etc/hostname").unlink()
    expected = "A /dev, A /dev/mine, C /etc, D /etc/hostname, A /etc/hosts"
    assert ", ".join(f"{kind} {path}" for kind, path in world.changes("c")) == expected

    async def names() -> list[str]:
        tar = b"".join([piece async for piece in world.storage.snapshots.diff_tar("c")])
        return sorted(tarfile.open(fileobj=io.BytesIO(tar)).getnames())

    assert world(names()) == ["dev", "dev/mine", "etc", "etc/.wh.hostname", "etc/hosts"]


def test_a_running_container_is_looked_at_all_the_same(world: World) -> None:
    root = world.rootfs("c", world.layer(BASE))
    script = "while :; do mkdir -p x/y/z; touch x/y/z/f x/g; rm -rf x; done"
    with subprocess.Popen(["sh", "-c", script], cwd=root, stderr=subprocess.DEVNULL) as busy:
        try:

            async def look() -> None:
                snapshots = world.storage.snapshots
                for _ in range(5):
                    looks = (snapshots.size("c"), snapshots.changes("c"), snapshots.changes("c"))
                    _, *found = await asyncio.gather(*looks)
                    assert all(change.path.startswith("/x") for each in found for change in each)

            world(look())
        finally:
            busy.kill()
    world(world.storage.snapshots.unmount("c"))
    assert [path.name for path in world.run.glob("snapshots/*")] == []


def test_a_stream_left_early_lets_go(world: World) -> None:
    root = world.rootfs("c", world.layer(BASE))
    (root / "big").write_bytes(os.urandom(1 << 20) * 8)

    async def peek() -> bytes:
        stream = world.storage.snapshots.diff_tar("c")
        try:
            return await anext(aiter(stream))
        finally:
            await stream.aclose()

    for _ in range(6):  # more often than streams may run at once
        assert world(peek())
    world(world.storage.snapshots.remove("c"))


def test_a_deep_tree_goes_too(world: World) -> None:
    root = world.rootfs("c", world.layer(BASE))
    directory = os.open(root, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=directory)
        inner = os.open("d", os.O_RDONLY, dir_fd=directory)
        os.close(directory)
        directory = inner
    os.close(directory)
    world(world.storage.snapshots.remove("c"))
    assert os.listdir(world.data / "snapshots") == []


CRASH = """
import asyncio, os, sys
from pathlib import Path
from havre.storage import Storage, store

async def main(data, run, driver, layers):
    storage = await Storage.open(Path(data), Path(run), driver=driver)
    for id in ("running", "stopped", "forgotten"):
        await storage.snapshots.create(id, layers)
        (await storage.snapshots.mount(id) / "written").write_text(id)
    (Path(data) / "snapshots" / "half.tmp").mkdir()
    (Path(data) / "snapshots" / "norow" / "upper").mkdir(parents=True)
    os._exit(9)

asyncio.run(main(*sys.argv[1:4], sys.argv[4:]))
"""


def test_a_killed_daemon_is_recovered_from(world: World) -> None:
    layers = [world.layer(BASE), world.layer(MIDDLE)]
    world(world.storage.close())
    command = [sys.executable, "-c", CRASH, str(world.data), str(world.run), world.driver, *layers]
    assert subprocess.run(command, check=False).returncode == 9

    snapshots = world.open().snapshots
    world(snapshots.recover(in_use={"running"}, known={"running", "stopped"}))
    assert sorted(os.listdir(world.data / "snapshots")) == ["running", "stopped"]
    expected = [] if world.driver == "copy" else ["running"]
    assert os.listdir(world.run / "snapshots") == expected
    assert (world(snapshots.mount("running")) / "written").read_text() == "running"
    assert (world(snapshots.mount("stopped")) / "written").read_text() == "stopped"

    layer_mounts = [target for target in world.mounted() if target.parent.name == "layers"]
    assert len(layer_mounts) == (2 if world.driver.startswith("erofs") else 0)
    world(snapshots.remove("running"))
    world(snapshots.remove("stopped"))
    world(world.storage.close())
    assert world.mounted() == []
    world.open()


def test_after_a_reboot_everything_is_mounted_anew(world: World) -> None:
    root = world.rootfs("c", world.layer(BASE))
    (root / "f").write_text("x")
    world(world.storage.close())
    for target in reversed(world.mounted()):
        mounts.unmount_all(target)
    shutil.rmtree(world.run)
    snapshots = world.open().snapshots
    world(snapshots.recover(in_use=(), known={"c"}))
    assert (world(snapshots.mount("c")) / "f").read_text() == "x"


def test_set_user_id_files_and_devices_work_inside(world: World) -> None:
    root = world.rootfs(
        "c",
        world.layer(
            tars.member(b"id", Path("/usr/bin/id").read_bytes(), mode=0o4755)
            + tars.member(b"null", flag=b"3", device=(1, 3), mode=0o666)
        ),
    )
    assert (root / "null").write_bytes(b"x") == 1
    assert (root / "null").read_bytes() == b""
    program = os.open(root / "id", os.O_RDONLY)
    script = f"import os; os.setgroups([]); os.setresuid(1000, 1000, 1000); os.execve({program}, ['id', '-u'], {{}})"
    try:
        command = [sys.executable, "-c", script]
        shown = subprocess.run(command, pass_fds=[program], capture_output=True, text=True, check=True)
    finally:
        os.close(program)
    assert shown.stdout == "0\n"


def test_roots_may_be_reached_through_links(world: World) -> None:
    world(world.storage.close())
    for name in ("data", "run"):
        (world.data.parent / f"{name}-link").symlink_to(world.data.parent / name)
    real, world.data = world.data, world.data.parent / "data-link"
    world.run = world.run.parent / "run-link"
    snapshots = world.open().snapshots
    root = world.rootfs("c", world.layer(BASE))
    world(snapshots.recover(in_use={"c"}, known={"c"}))
    assert (root / "etc/hosts").exists()
    world(snapshots.recover(in_use=(), known=()))
    assert os.listdir(real / "snapshots") == []
    world(world.storage.close())
    assert world.mounted() == []
    world.open()


def test_two_daemons_never_share_a_data_root(world: World) -> None:
    with pytest.raises(Conflict, match="another daemon"):
        world(Storage.open(world.data, world.run, driver=world.driver))


def test_nobody_else_gets_in(world: World) -> None:
    world.rootfs("c", world.layer(BASE))
    assert stat.S_IMODE(world.data.stat().st_mode) == 0o711
    for entry in (*world.data.iterdir(), *world.run.iterdir()):
        assert stat.S_IMODE(entry.stat().st_mode) & 0o077 == 0, entry


def test_idle_layers_are_unmounted_before_long(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("havre.storage.snapshots.IDLE_S", 0.05)
    world.rootfs("c", world.layer(BASE))

    async def settle() -> None:
        await world.storage.snapshots.remove("c")
        async with asyncio.timeout(10):
            while world.mounted():
                await asyncio.sleep(0.01)

    with suppress(TimeoutError):
        world(settle())
    assert world.mounted() == []
