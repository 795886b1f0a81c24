"""Layers coming in and going out, in both of their forms: one suite, with and without an index."""

from __future__ import annotations

import asyncio
import bz2
import gzip
import hashlib
import lzma
import os
import random
import shutil
import subprocess
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
import zstandard

from havre.errors import Failed, HavreError, InvalidInput, NotFound
from havre.oci.digest import Digest, digest_of
from havre.storage.db import Database
from havre.storage.ingest import Ingested
from havre.storage.layers import LayerRow, Layers, Source
from havre.storage.verify import verify_layer
from support import tars

NOISE = random.Random(7).randbytes(300_000)
TAR = tars.directory(b"d") + tars.member(b"d/noise", NOISE) + tars.member(b"d/text", b"text" * 50_000) + tars.END
DIFF_ID = digest_of(TAR)
COMPRESSORS: dict[str, Callable[[bytes], bytes]] = {
    "tar": bytes,
    "gzip": gzip.compress,
    "zstd": zstandard.ZstdCompressor().compress,
    "xz": lzma.compress,
    "bzip2": bz2.compress,
}

Open = Callable[[], "asynccontextmanager[Layers]"]


@pytest.fixture(params=[False, True], ids=["index", "unpacked"])
def unpacks(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@asynccontextmanager
async def opened(root: Path, unpacks: bool) -> AsyncIterator[Layers]:
    database = await Database.open(root / "havre.db")
    try:
        layers = Layers(root / "layers", database.table("layers", LayerRow), unpacks)
        await layers.load()
        yield layers
    finally:
        await database.close()


def on_layers(root: Path, unpacks: bool, work: Callable[[Layers], Coroutine[None, None, None]]) -> None:
    async def run() -> None:
        async with opened(root, unpacks) as layers:
            await work(layers)

    asyncio.run(run())


async def ingest(
    layers: Layers,
    stream: bytes,
    *,
    digest: Digest | None = None,
    diff_id: Digest | None = None,
    chunk: int = 100_000,
) -> Ingested:
    async with layers.ingest(digest=digest, diff_id=diff_id) as sink:
        for at in range(0, len(stream), chunk):
            await sink.write(stream[at : at + chunk])
        return await sink.finish()


async def read(layers: Layers, diff_id: Digest) -> bytes:
    return b"".join([piece async for piece in layers.open_tar(diff_id)])


def left(root: Path) -> list[str]:
    return os.listdir(root / "layers")


@pytest.mark.parametrize("kind", COMPRESSORS)
def test_a_layer_comes_back_byte_for_byte(kind: str, unpacks: bool, tmp_path: Path) -> None:
    stream = COMPRESSORS[kind](TAR)

    async def work(layers: Layers) -> None:
        done = await ingest(layers, stream, digest=digest_of(stream), diff_id=DIFF_ID)
        assert done == Ingested(DIFF_ID, digest_of(stream), len(TAR), len(stream))
        layer = layers.get(DIFF_ID)
        assert layer is not None
        assert layers.all() == [layer]
        assert (layer.size, layer.form) == (len(TAR), "dir" if unpacks else "tar")
        assert await read(layers, DIFF_ID) == TAR

    on_layers(tmp_path, unpacks, work)


@pytest.mark.parametrize("chunk", [1, 977, 10**9])
def test_the_size_of_chunks_does_not_matter(chunk: int, unpacks: bool, tmp_path: Path) -> None:
    tar = tars.member(b"f", b"x" * 3000) + tars.END

    async def work(layers: Layers) -> None:
        done = await ingest(layers, gzip.compress(tar), chunk=chunk)
        assert done.diff_id == digest_of(tar)

    on_layers(tmp_path, unpacks, work)


def test_a_layer_is_there_after_a_restart(unpacks: bool, tmp_path: Path) -> None:
    async def store(layers: Layers) -> None:
        await ingest(layers, TAR)

    async def look(layers: Layers) -> None:
        assert await read(layers, DIFF_ID) == TAR

    on_layers(tmp_path, unpacks, store)
    on_layers(tmp_path, unpacks, look)


OTHER = digest_of(b"something else")


@pytest.mark.parametrize(
    ("stream", "given", "kind", "message"),
    [
        (TAR, {"digest": OTHER}, Failed, f"layer {OTHER} does not match: got {DIFF_ID}"),
        (TAR, {"diff_id": OTHER}, Failed, f"layer {OTHER} does not match: got {DIFF_ID}"),
        (gzip.compress(TAR, mtime=0)[:-5000], {}, InvalidInput, "ends in the middle of its gzip stream"),
        (gzip.compress(TAR[:100_000], mtime=0), {}, InvalidInput, "ends in the middle of a member"),
        (gzip.compress(TAR, mtime=0) + b"more" * 9, {}, InvalidInput, "not a valid gzip stream"),
        (gzip.compress(TAR, mtime=0)[:-1] + b"\x7f", {}, InvalidInput, "not a valid gzip stream"),
        (COMPRESSORS["zstd"](TAR)[:-500], {}, InvalidInput, "ends in the middle of its zstd stream"),
        (COMPRESSORS["zstd"](tars.member(b"../f")), {}, InvalidInput, "points outside of its layer"),
        (b"<html>not a layer at all</html>" * 100, {}, InvalidInput, "invalid tar header"),
        (tars.member(b"f", b"x") + tars.hardlink(b"g", b"/etc/passwd"), {}, InvalidInput, "no earlier file"),
    ],
)
def test_what_is_wrong_leaves_nothing(
    stream: bytes, given: dict[str, Digest], kind: type[HavreError], message: str, unpacks: bool, tmp_path: Path
) -> None:
    async def work(layers: Layers) -> None:
        with pytest.raises(kind, match=message):
            await ingest(layers, stream, **given)
        assert layers.all() == []
        assert left(tmp_path) == []

    on_layers(tmp_path, unpacks, work)


def test_refused_and_removed_layers_leave_no_descriptors(unpacks: bool, tmp_path: Path) -> None:
    link_as_parent = tars.symlink(b"l", b"d") + tars.directory(b"d") + tars.member(b"l/f", b"x")
    broken = [tars.member(b"f", NOISE)[:5000], tars.member(b"d/f", b"x") + tars.member(b"../f"), link_as_parent[:-600]]

    async def work(layers: Layers) -> None:
        before = len(os.listdir("/proc/self/fd"))
        for stream in broken * 3:
            with pytest.raises(InvalidInput):
                await ingest(layers, stream)
        for stream in (TAR, link_as_parent):
            done = await ingest(layers, stream)
            assert await read(layers, done.diff_id) == stream
            await layers.remove(done.diff_id)
        assert len(os.listdir("/proc/self/fd")) == before

    on_layers(tmp_path, unpacks, work)


def test_an_abandoned_stream_leaves_nothing(unpacks: bool, tmp_path: Path) -> None:
    async def work(layers: Layers) -> None:
        async with layers.ingest() as sink:
            for _ in range(20):
                await sink.write(tars.member(b"f", NOISE))
            async with asyncio.timeout(10):
                while not left(tmp_path):  # a thread writes
                    await asyncio.sleep(0.001)
        assert left(tmp_path) == []

    on_layers(tmp_path, unpacks, work)


@pytest.mark.parametrize("steps", [1, 2, 3, 5, 8, 13])
def test_a_cancelled_stream_leaves_nothing_or_a_whole_layer(steps: int, unpacks: bool, tmp_path: Path) -> None:
    big = tars.member(b"big", NOISE * 20) + tars.END

    async def work(layers: Layers) -> None:
        task = asyncio.ensure_future(ingest(layers, big))
        for _ in range(steps * 4):
            await asyncio.sleep(0.0001)
        task.cancel()
        try:
            await task
        except asyncio.CancelledError:
            assert left(tmp_path) == [] or layers.get(digest_of(big)) is not None
        else:
            assert await read(layers, digest_of(big)) == big

    on_layers(tmp_path, unpacks, work)


def test_the_same_layer_twice_at_once_is_kept_once(unpacks: bool, tmp_path: Path) -> None:
    async def work(layers: Layers) -> None:
        streams = [COMPRESSORS[kind](TAR) for kind in COMPRESSORS]
        done = await asyncio.gather(*(ingest(layers, stream) for stream in streams))
        assert {each.diff_id for each in done} == {DIFF_ID}
        assert left(tmp_path) == [hashlib.sha256(TAR).hexdigest()]
        assert await read(layers, DIFF_ID) == TAR

    on_layers(tmp_path, unpacks, work)


def test_more_layers_at_once_than_there_are_threads(unpacks: bool, tmp_path: Path) -> None:
    tarballs = [tars.member(b"f%d" % n, NOISE) + tars.END for n in range(40)]

    async def work(layers: Layers) -> None:
        await asyncio.gather(*(ingest(layers, tar) for tar in tarballs))
        assert len(layers.all()) == 40

    on_layers(tmp_path, unpacks, work)


def test_removal(unpacks: bool, tmp_path: Path) -> None:
    async def work(layers: Layers) -> None:
        await ingest(layers, TAR)
        assert await layers.remove(DIFF_ID) == len(TAR)
        assert await layers.remove(DIFF_ID) == 0
        assert layers.get(DIFF_ID) is None
        await layers.swept()
        assert left(tmp_path) == []
        with pytest.raises(NotFound, match=DIFF_ID):
            await read(layers, DIFF_ID)

    on_layers(tmp_path, unpacks, work)


def test_sources_are_remembered_once_each(unpacks: bool, tmp_path: Path) -> None:
    source = Source(OTHER, 5, "application/vnd.oci.image.layer.v1.tar+gzip", "localhost:5000", "library/x")

    async def store(layers: Layers) -> None:
        await ingest(layers, TAR)
        await layers.add_source(DIFF_ID, source)
        await layers.add_source(DIFF_ID, source)

    async def look(layers: Layers) -> None:
        assert layers.sources(DIFF_ID) == [source]
        with pytest.raises(NotFound):
            layers.sources(OTHER)

    on_layers(tmp_path, unpacks, store)
    on_layers(tmp_path, unpacks, look)


def test_a_start_sweeps_away_what_a_crash_left(unpacks: bool, tmp_path: Path) -> None:
    async def store(layers: Layers) -> None:
        await ingest(layers, TAR)
        for name in ("tmp-0123", "f" * 64):
            (layers.path(DIFF_ID).parent / name).mkdir()
            (layers.path(DIFF_ID).parent / name / "tar").write_bytes(b"half")

    async def look(layers: Layers) -> None:
        assert left(tmp_path) == [layers.path(DIFF_ID).name]
        assert await read(layers, DIFF_ID) == TAR

    on_layers(tmp_path, unpacks, store)
    on_layers(tmp_path, unpacks, look)


def test_a_layer_whose_data_is_gone_is_dropped_at_start(unpacks: bool, tmp_path: Path) -> None:
    async def store(layers: Layers) -> None:
        await ingest(layers, TAR)
        (layers.path(DIFF_ID) / ("tar.zst" if unpacks else "tar")).unlink()

    async def look(layers: Layers) -> None:
        assert layers.all() == []
        assert left(tmp_path) == []
        await ingest(layers, TAR)
        assert await read(layers, DIFF_ID) == TAR

    on_layers(tmp_path, unpacks, store)
    on_layers(tmp_path, unpacks, look)


def test_a_lost_index_is_built_anew(tmp_path: Path) -> None:
    indexes = []

    async def store(layers: Layers) -> None:
        await ingest(layers, TAR)
        indexes.append((layers.path(DIFF_ID) / "index").read_bytes())
        (layers.path(DIFF_ID) / "index").unlink()

    async def look(layers: Layers) -> None:
        indexes.append((layers.path(DIFF_ID) / "index").read_bytes())

    on_layers(tmp_path, False, store)
    on_layers(tmp_path, False, look)
    assert indexes[0] == indexes[1]


def test_data_changed_on_disk_is_noticed_when_read(unpacks: bool, tmp_path: Path) -> None:
    async def work(layers: Layers) -> None:
        await ingest(layers, TAR)
        with (layers.path(DIFF_ID) / ("tar.zst" if unpacks else "tar")).open("r+b") as file:
            file.seek(100_000)
            file.write(b"X")
        with pytest.raises(Failed, match="damaged"):
            await read(layers, DIFF_ID)

    on_layers(tmp_path, unpacks, work)


DAMAGE: dict[str, Callable[[Path], object]] = {
    "'d/text' is missing": lambda root: (root / "d" / "text").unlink(),
    "'d/more' is in its directory and not in its tar": lambda root: (root / "d" / "more").touch(),
    "the size of 'd/text'": lambda root: os.truncate(root / "d" / "text", 5),
    "the mode of 'd/text'": lambda root: (root / "d" / "text").chmod(0o4755),
    "the owner of 'd/text'": lambda root: os.chown(root / "d" / "text", 7, 7),
    "the time of 'd/noise'": lambda root: os.utime(root / "d" / "noise", (5, 5)),
    "the kind of 'd/noise'": lambda root: (
        os.rename(root / "d" / "noise", root / "other"), os.mkfifo(root / "d" / "noise"), (root / "other").unlink(),
    ),
    "its files are gone": lambda root: shutil.rmtree(root),
}  # fmt: skip


@pytest.mark.parametrize("words", DAMAGE)
def test_files_changed_on_disk_are_noticed_by_a_check(words: str, tmp_path: Path) -> None:
    async def work(layers: Layers) -> None:
        await ingest(layers, TAR)
        assert await verify_layer(layers, DIFF_ID) == ("", False)
        DAMAGE[words](layers.path(DIFF_ID) / "root")
        problem, mendable = await verify_layer(layers, DIFF_ID)
        assert problem.startswith(words)
        assert not mendable

    on_layers(tmp_path, True, work)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB for the layers."""
    place = tmp_path / "layers"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", place], check=True)
    yield place
    subprocess.run(["umount", place], check=True)


def test_a_full_disk_is_said_and_forgotten(unpacks: bool, tmp_path: Path, small_disk: Path) -> None:
    big = tars.member(b"noise", NOISE * 5) + tars.END

    async def work(layers: Layers) -> None:
        filler = small_disk / "f"
        filler.write_bytes(bytes(3 << 20))
        with pytest.raises(Failed, match=f"no space left on device while writing layer {digest_of(big)}"):
            await ingest(layers, big, digest=digest_of(big))
        assert os.listdir(small_disk) == ["f"]
        filler.unlink()
        await ingest(layers, big, digest=digest_of(big))
        assert await read(layers, digest_of(big)) == big

    on_layers(tmp_path, unpacks, work)
