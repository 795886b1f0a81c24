"""Data roots in unusual places: a small tmpfs that fills up, the inside of an overlay."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from havre.errors import Failed
from havre.linux import mounts
from havre.oci.digest import Digest
from havre.storage import Storage
from havre.storage.drivers import Writable, mount_overlay
from support import tars


async def ingest(storage: Storage, tar: bytes) -> Digest:
    async with storage.layers.ingest() as sink:
        await sink.write(tar + tars.END)
        return (await sink.finish()).diff_id


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Path]:
    """A directory; whatever is mounted below it is taken down."""
    try:
        yield tmp_path
    finally:
        for entry in reversed(mounts.mounts_below(tmp_path)):
            mounts.unmount_all(entry.target)


async def use(data_root: Path, run_root: Path) -> str:
    """The whole life of a snapshot; the name of the driver that was chosen."""
    storage = await Storage.open(data_root, run_root)
    try:
        layers = [
            await ingest(storage, tars.member(b"kept", b"1") + tars.member(b"gone", b"2") + tars.member(b"d/old")),
            await ingest(storage, tars.member(b".wh.gone") + tars.member(b"d/.wh..wh..opq")),
        ]
        await storage.snapshots.create("c", layers)
        root = await storage.snapshots.mount("c")
        (root / "new").write_text("x")
        (root / "kept").unlink()
        assert sorted(os.listdir(root)) == ["d", "new"]
        assert os.listdir(root / "d") == []
        assert [change.path for change in await storage.snapshots.changes("c")] == ["/kept", "/new"]
        tar = b"".join([piece async for piece in storage.snapshots.diff_tar("c")])
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            assert archive.getnames() == [".wh.kept", "new"]
        await storage.snapshots.remove("c")
        return storage.driver
    finally:
        await storage.close()


def test_on_a_tmpfs(place: Path) -> None:
    mounts.mount_filesystem("tmpfs", [("size", "16m")], place)
    driver = asyncio.run(use(place / "data", place / "run"))
    assert driver != "erofs"  # the kernel mounts no files of a tmpfs without a loop device
    assert [entry.target for entry in mounts.mounts_below(place)] == [place]


def test_inside_an_overlay(place: Path) -> None:
    for name in ("lower", "upper", "work", "merged"):
        (place / name).mkdir()
    writable = Writable(place / "upper", place / "work")
    mount_overlay([place / "lower"], place / "merged", writable, append=False)
    asyncio.run(use(place / "merged/data", place / "run"))
    assert [entry.target for entry in mounts.mounts_below(place)] == [place / "merged"]


def test_what_works_is_found_out_once(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = asyncio.run(use(place / "data", place / "run"))

    def probed_again(scratch: Path) -> None:
        raise AssertionError(f"probed again in {scratch}")

    monkeypatch.setattr("havre.storage.store.probe", probed_again)
    assert asyncio.run(use(place / "data", place / "run")) == first


def test_a_full_disk_fails_clearly_and_only_until_there_is_room(place: Path) -> None:
    mounts.mount_filesystem("tmpfs", [("size", "4m")], place)

    async def fill_and_free() -> None:
        storage = await Storage.open(place / "data", place / "run", driver="copy")
        ballast = place / "ballast"
        layer = await ingest(storage, b"".join(tars.member(b"f%d" % n, os.urandom(4096)) for n in range(100)))
        ballast.write_bytes(bytes(os.statvfs(place).f_bavail * 4096 - 300_000))
        with pytest.raises(Failed, match="creating snapshot c") as caught:
            await storage.snapshots.create("c", [layer])
        assert "free some space" in (caught.value.hint or "")
        with pytest.raises(Failed, match="No space left") as caught:
            await storage.blobs.add(os.urandom(400_000))
        assert os.listdir(place / "data/snapshots") == os.listdir(place / "data/blobs/tmp") == []
        assert storage.blobs.all() == []
        ballast.unlink()
        await storage.snapshots.create("c", [layer])
        await storage.blobs.add(os.urandom(400_000))
        await storage.close()

    asyncio.run(fill_and_free())


async def stream(size: int) -> AsyncIterator[bytes]:
    for _ in range(size // 1000):
        yield os.urandom(1000)
